"""The CUDA letterbox gives the bits of the reference: emulated on the host, and on the GPU where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import geometry

from .cuda_library import BAD_ARGUMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .cuda_library import CudaKernels

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _noise(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def _assert_same(cuda: CudaKernels, image: NDArray[np.uint8], height: int, width: int, **options) -> None:
    options = {"swap": False, "mean": MEAN, "std": STD, "pad": 114, **options}
    reference, _ = geometry.letterbox(image, height, width, **options)
    ours = cuda.letterbox(image, height, width, **options)
    np.testing.assert_array_equal(ours.view(np.uint32), reference.view(np.uint32))


sides = st.integers(1, 70)


@settings(max_examples=100, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 255), st.integers(0, 99))
def test_letterbox_of_any_size_equals_the_reference(cuda, h, w, height, width, channels, swap, pad, seed) -> None:
    cuda.order(seed)
    _assert_same(cuda, _noise(h, w, channels, seed), height, width, swap=swap, pad=pad)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_letterbox_of_rows_far_apart_or_upside_down_equals_the_reference(cuda, channels) -> None:
    image = _noise(50, 60, channels)
    for view in (image[:, 7:40], image[::-1], image[::3, 5:], image[40::-2, :31]):
        _assert_same(cuda, view, 48, 33)


@pytest.mark.parametrize("size", [(17, 999), (999, 17), (1, 1), (1, 2), (2, 1), (1, 5000), (540, 960)])
def test_letterbox_of_odd_and_large_images_equals_the_reference(cuda, size) -> None:
    _assert_same(cuda, _noise(*size, 3), 320, 352, swap=True)


def test_letterbox_of_a_camera_image_equals_the_reference(cuda) -> None:
    _assert_same(cuda, _noise(1080, 1920, 3), 640, 640)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 2), ("height", 0), ("width", 2**25), ("new_width", 9), ("new_height", 9), ("left", -1), ("top", 5),
        ("pad", 256), ("pad", -1), ("std", (1.0, -1.0, 1.0)), ("std", (1.0, float("nan"), 1.0)), ("image", None),
        ("out", None), ("out_height", 65535 * 16 + 1),
    ],
)  # fmt: skip
def test_letterbox_refuses_what_would_leave_its_memory(cuda, field, value) -> None:
    job = cuda.letterbox_job(_noise(4, 4, 3), 8, 8, swap=False, mean=MEAN, std=STD, pad=0)
    job.new_height = job.new_width = 4
    job.left = job.top = 2
    out = job.out
    setattr(job, field, cuda.ffi.NULL if value is None else value)
    assert cuda.lib.edgekd_cuda_letterbox(job, cuda.ffi.NULL) == BAD_ARGUMENT
    job.out = out
    assert np.isnan(cuda.field(job, "out")).all()
    cuda.memory.free()
