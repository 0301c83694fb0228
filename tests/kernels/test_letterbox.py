"""The compiled letterbox gives the bits of the reference, on any image, stride and size."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import geometry, ops
from edgekd.errors import UsageError

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
pytestmark = pytest.mark.usefixtures("implementation")


def _noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def _assert_same(image: np.ndarray, height: int, width: int, **options) -> None:
    options = {"swap": False, "mean": MEAN, "std": STD, **options}
    ours, placement = ops.letterbox(image, height, width, **options)
    reference, expected = geometry.letterbox(image, height, width, **options)
    assert placement == expected
    np.testing.assert_array_equal(ours.view(np.uint32), reference.view(np.uint32))


sides = st.integers(1, 70)


@settings(max_examples=150, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 255), st.integers(0, 99))
def test_letterbox_of_any_size_equals_the_reference(h, w, height, width, channels, swap, pad, seed) -> None:
    _assert_same(_noise(h, w, channels, seed), height, width, swap=swap, pad=pad)


@settings(max_examples=100, deadline=None)
@given(sides, sides, st.sampled_from([1, 3, 4]), st.data())
def test_letterbox_of_a_strided_view_equals_the_reference(h, w, channels, data) -> None:
    image = _noise(h, w, channels)
    top, left = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    view = image[top:, left:]
    view = data.draw(st.sampled_from([view, view[::-1], view[::2], view[:, ::2], view[:, ::-1], view[:, :, ::-1]]))
    before = image.copy()
    _assert_same(view, 48, 33, swap=data.draw(st.booleans()))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("size", [(17, 999), (999, 17), (1, 1), (1, 2), (2, 1), (1, 5000), (540, 960)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_letterbox_of_odd_and_large_images_equals_the_reference(size, channels) -> None:
    _assert_same(_noise(*size, channels), 320, 352)


@pytest.mark.parametrize(("size", "target"), [((1080, 1920), 640), ((4320, 7680), 320), ((100, 90), 1000)])
def test_letterbox_of_camera_images_equals_the_reference(size, target) -> None:
    _assert_same(_noise(*size, 3), target, target, swap=True)


@pytest.mark.parametrize("value", [0, 255])
def test_letterbox_of_a_flat_image_is_flat(value) -> None:
    planes, _ = ops.letterbox(
        np.full((123, 77, 3), value, np.uint8), 64, 96, swap=False, mean=(0,) * 3, std=(1,) * 3, pad=value
    )
    assert (planes == value).all()


def test_letterbox_writes_the_given_array_and_only_it() -> None:
    memory = np.full((3, 3, 40, 56), np.nan, np.float32)
    planes, _ = ops.letterbox(_noise(50, 31, 3), 40, 56, swap=True, mean=MEAN, std=STD, out=memory[1])
    assert planes.base is memory
    assert np.isfinite(memory[1]).all()
    assert np.isnan(memory[[0, 2]]).all()


def test_letterbox_of_a_read_only_image_works() -> None:
    image = _noise(9, 9, 3)
    image.setflags(write=False)
    _assert_same(image, 32, 32)


def test_letterbox_from_many_threads_gives_each_its_own_result() -> None:
    images = [_noise(60 + 7 * i, 90 - 5 * i, 3, i) for i in range(8)]
    expected = [geometry.letterbox(image, 64, 64, swap=True, mean=MEAN, std=STD)[0] for image in images]
    wrong: list[int] = []

    def work(i: int) -> None:
        results = (ops.letterbox(images[i], 64, 64, swap=True, mean=MEAN, std=STD)[0] for _ in range(50))
        wrong.extend(i for planes in results if not np.array_equal(planes, expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4, 3), np.float32)}, "uint8"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"\(4, 4\)"),
        ({"image": np.zeros((4, 4, 2), np.uint8)}, r"1\|3\|4"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, "0x4"),
        ({"height": 0}, "into 0x32"),
        ({"std": (1.0, 0.0, 1.0)}, "std positive"),
        ({"mean": (1.0, float("nan"), 1.0)}, "finite"),
        ({"pad": 256}, "got 256"),
        ({"out": np.zeros((3, 32, 31), np.float32)}, r"\(3, 32, 31\)"),
        ({"out": np.zeros((3, 32, 32), np.float64)}, "float64"),
        ({"out": np.zeros((3, 32, 64), np.float32)[:, :, ::2]}, "contiguous"),
    ],
)
def test_letterbox_with_a_wrong_argument_says_what_it_got(change, message) -> None:
    arguments = {
        "image": np.zeros((4, 4, 3), np.uint8),
        "height": 32,
        "width": 32,
        "swap": False,
        "mean": MEAN,
        "std": STD,
    }
    for function in (ops.letterbox, geometry.letterbox):
        with pytest.raises(UsageError, match=message):
            function(**{**arguments, **change})
