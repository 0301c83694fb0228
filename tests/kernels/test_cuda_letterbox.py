"""The CUDA letterbox gives the bits of the reference: emulated on the host, and on the GPU where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
BITS = {4: np.uint32, 2: np.uint16, 1: np.uint8}
NAN, INF, TOO_SMALL = float("nan"), float("inf"), 1e-40


def _noise(height: int, width: int, channels: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def _frame(pixels: str, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a camera frame of noise, `height` and `width` in blocks of what shares U and V."""
    if pixels == "nv12":
        return _noise(3 * height, 2 * width, 1, seed)[:, :, 0]
    return _noise(height, 2 * width, 2, seed)


def _assert_same(cuda: CudaKernels, image: NDArray[np.uint8], height: int, width: int, **options) -> None:
    options = {"swap": False, "mean": MEAN, "std": STD, **options}
    reference, _ = geometry.letterbox(image, height, width, **options)
    ours = cuda.letterbox(image, height, width, **options)
    assert (ours.shape, ours.dtype) == (reference.shape, reference.dtype)
    bits = BITS[ours.itemsize]
    np.testing.assert_array_equal(ours.view(bits), reference.view(bits))


def _three(values: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float, float]]:
    return st.tuples(values, values, values)


sides = st.integers(1, 70)
seeds = st.integers(0, 99)
means = st.floats(-300, 300, width=32) | st.sampled_from([0.0, 0.5, 3e38, -3e38, 1e-40])
divisors = st.floats(2**-10, 2**10, width=32) | st.sampled_from([1.0, 2.0, 255.0, 1 / 127.5, 1.2e-38, 1e-20, 3e38])


@st.composite
def outputs(draw: st.DrawFn, dtype: np.dtype[Any], layout: str) -> dict[str, Any]:
    """Any normalisation to a type and layout, extremes among them."""
    options = {"dtype": dtype, "layout": layout, "swap": draw(st.booleans()), "mean": draw(_three(means))}
    options |= {"std": draw(_three(divisors)), "pad": draw(st.integers(0, 255))}
    if dtype.kind == "f":
        return options
    low, high = (-128, 127) if dtype == np.int8 else (0, 255)
    return {**options, "scale": draw(divisors), "zero_point": draw(st.integers(low, high))}


@pytest.mark.parametrize("kind", [1, 3, 4, "nv12", "yuyv"])
@pytest.mark.parametrize("layout", geometry.LAYOUTS)
@pytest.mark.parametrize("dtype", geometry.DTYPES, ids=str)
@settings(max_examples=20, deadline=None)
@given(sides, sides, sides, sides, st.data(), seeds)
def test_letterbox_of_any_pixels_to_any_values_equals_the_reference(
    cuda, kind, layout, dtype, h, w, height, width, data, seed
) -> None:
    cuda.order(seed)
    options = data.draw(outputs(dtype, layout))
    if isinstance(kind, str):
        return _assert_same(cuda, _frame(kind, h, w, seed), height, width, pixels=kind, **options)
    return _assert_same(cuda, _noise(h, w, kind, seed), height, width, **options)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_letterbox_of_rows_far_apart_or_upside_down_equals_the_reference(cuda, channels) -> None:
    image = _noise(50, 60, channels)
    for view in (image[:, 7:40], image[::-1], image[::3, 5:], image[40::-2, :31]):
        _assert_same(cuda, view, 48, 33)


@pytest.mark.parametrize("pixels", ["nv12", "yuyv"])
def test_letterbox_of_a_camera_frame_in_a_larger_one_equals_the_reference(cuda, pixels) -> None:
    image = _frame(pixels, 30, 40)
    for view in (image[:, 8:50], image[::-1], image[::-1, 2:4]):
        _assert_same(cuda, view, 48, 33, pixels=pixels, swap=True)


@pytest.mark.parametrize("size", [(17, 999), (999, 17), (1, 1), (1, 2), (2, 1), (1, 5000), (540, 960)])
def test_letterbox_of_odd_and_large_images_equals_the_reference(cuda, size) -> None:
    _assert_same(cuda, _noise(*size, 3), 320, 352, swap=True)


@pytest.mark.parametrize(
    ("pixels", "size"), [("nv12", (270, 480)), ("nv12", (1, 1)), ("yuyv", (1, 1)), ("yuyv", (7, 999))]
)
def test_letterbox_of_odd_and_large_camera_frames_equals_the_reference(cuda, pixels, size) -> None:
    options = {"dtype": np.int8, "layout": "nhwc", "mean": (0.0,) * 3, "std": (255.0,) * 3, "scale": 1 / 255}
    _assert_same(cuda, _frame(pixels, *size), 320, 352, pixels=pixels, zero_point=-128, **options)


def test_letterbox_of_a_camera_image_equals_the_reference(cuda) -> None:
    _assert_same(cuda, _noise(1080, 1920, 3), 640, 640)


def test_every_pair_of_colours_is_decoded_as_the_reference_does(cuda) -> None:
    """Every U with every V, beside the darkest, the lightest and other Y."""
    u, v = np.divmod(np.arange(2**16), 256)
    for light in (0, 16, 17, 128, 235, 255):
        pairs = np.stack([np.full(2**16, light), u, np.full(2**16, 255 - light), v], axis=1).astype(np.uint8)
        image = pairs.reshape(256, 512, 2)
        _assert_same(cuda, image, 256, 512, pixels="yuyv", mean=(0,) * 3, std=(1,) * 3, dtype=np.uint8)


def test_float16_is_numpys_at_ties_subnormals_and_infinities(cuda) -> None:
    image, seen = np.arange(256, dtype=np.uint8).reshape(1, 256, 1), set()
    for exponent in range(-12, 36):
        for fraction in range(0, 32, 9):  # 8 bits of level and 5 of fraction: 2 more than a half has
            options = {"mean": (fraction / 32, -fraction / 32, 255 + fraction / 32), "std": (2.0**exponent,) * 3}
            ours = cuda.letterbox(image, 1, 256, swap=False, dtype=np.float16, **options)
            expected = geometry.value_table(dtype=np.float16, **options)
            np.testing.assert_array_equal(ours[:, 0].view(np.uint16), expected.view(np.uint16))
            seen.update(expected.ravel().tolist())
    assert {INF, -INF, 0.0, 2.0**-24, -(2.0**-24)} <= seen


def _assert_refused(cuda: CudaKernels, part: str, field: str, value: object, job: Any) -> None:
    """Expect a refusal with that value in that field, and nothing written."""
    before, data = cuda.field(job.canvas, "data"), job.canvas.data
    setattr(getattr(job, part), field, cuda.ffi.NULL if value is None else value)
    assert cuda.lib.edgekd_cuda_letterbox(job, cuda.ffi.NULL) == BAD_ARGUMENT
    job.canvas.data = data
    np.testing.assert_array_equal(cuda.field(job.canvas, "data").view(np.uint8), before.view(np.uint8))
    cuda.memory.free()


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("frame", "data", None), ("frame", "pixels", -1), ("frame", "pixels", 5), ("frame", "height", 0),
        ("frame", "width", 2**24 + 1), ("frame", "row_stride", 2**38 + 1), ("frame", "row_stride", -(2**38) - 1),
        ("canvas", "data", None), ("canvas", "height", 65535 * 16 + 1), ("canvas", "width", 2**24 + 1),
        ("canvas", "new_width", 9), ("canvas", "new_height", 9), ("canvas", "new_height", 0), ("canvas", "left", -1),
        ("canvas", "top", 5), ("canvas", "top", 2**62), ("canvas", "values", 4), ("canvas", "layout", 2),
        ("canvas", "pad", 256), ("canvas", "pad", -1), ("canvas", "mean", (0.0, NAN, 0.0)),
        ("canvas", "mean", (0.0, 0.0, INF)), ("canvas", "std", (1.0, -1.0, 1.0)), ("canvas", "std", (1.0, NAN, 1.0)),
        ("canvas", "std", (INF, 1.0, 1.0)), ("canvas", "std", (1.0, 1.0, TOO_SMALL)),
    ],
)  # fmt: skip
def test_letterbox_refuses_what_would_leave_its_memory(cuda, part, field, value) -> None:
    job = cuda.letterbox_job(_noise(4, 4, 3), 8, 8, swap=False, mean=MEAN, std=STD, pad=0)
    job.canvas.new_height = job.canvas.new_width = 4
    job.canvas.left = job.canvas.top = 2
    _assert_refused(cuda, part, field, value, job)


@pytest.mark.parametrize(
    ("pixels", "field", "value"),
    [
        ("nv12", "chroma", None), ("nv12", "chroma_stride", 2**38 + 1), ("nv12", "height", 3), ("nv12", "width", 3),
        ("yuyv", "width", 3),
    ],
)  # fmt: skip
def test_letterbox_refuses_camera_frames_without_whole_blocks(cuda, pixels, field, value) -> None:
    job = cuda.letterbox_job(_frame(pixels, 2, 2), 8, 8, pixels=pixels, swap=False, mean=MEAN, std=STD)
    _assert_refused(cuda, "frame", field, value, job)


@pytest.mark.parametrize(
    ("dtype", "field", "value"),
    [
        (np.uint8, "scale", 0.0), (np.int8, "scale", TOO_SMALL), (np.uint8, "scale", INF), (np.int8, "scale", NAN),
        (np.uint8, "zero_point", -1), (np.uint8, "zero_point", 256), (np.int8, "zero_point", -129),
        (np.int8, "zero_point", 128),
    ],
)  # fmt: skip
def test_letterbox_refuses_integers_it_cannot_make(cuda, dtype, field, value) -> None:
    job = cuda.letterbox_job(_noise(4, 4, 3), 8, 8, swap=False, mean=MEAN, std=STD, dtype=dtype)
    _assert_refused(cuda, "canvas", field, value, job)


@pytest.mark.parametrize(("dtype", "off"), [(np.float32, 2), (np.float16, 1)])
def test_letterbox_refuses_a_canvas_off_its_values(cuda, dtype, off) -> None:
    job = cuda.letterbox_job(_noise(4, 4, 3), 8, 8, swap=False, mean=MEAN, std=STD, dtype=dtype)
    _assert_refused(cuda, "canvas", "data", cuda.ffi.cast("char *", job.canvas.data) + off, job)
