"""The compiled letterbox gives the bits of the reference, on any image, stride and size."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import geometry, ops
from edgekd.errors import UsageError

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
pytestmark = pytest.mark.usefixtures("implementation")


BITS = {4: np.uint32, 2: np.uint16, 1: np.uint8}


def _noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def _frame(pixels: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a camera frame of noise, `height` and `width` in blocks of what shares U and V."""
    if pixels == "nv12":
        return _noise(3 * height, 2 * width, 1, seed)[:, :, 0]
    return _noise(height, 2 * width, 2, seed)


def _assert_same(image: np.ndarray, height: int, width: int, **options) -> None:
    options = {"swap": False, "mean": MEAN, "std": STD, **options}
    ours, placement = ops.letterbox(image, height, width, **options)
    reference, expected = geometry.letterbox(image, height, width, **options)
    assert placement == expected
    assert (ours.shape, ours.dtype) == (reference.shape, reference.dtype)
    bits = BITS[ours.itemsize]
    np.testing.assert_array_equal(ours.view(bits), reference.view(bits))


def _three(values: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float, float]]:
    return st.tuples(values, values, values)


sides = st.integers(1, 70)
means = st.floats(-300, 300, width=32) | st.sampled_from([0.0, 0.5, 3e38, -3e38, 1e-40])
divisors = st.floats(2**-10, 2**10, width=32) | st.sampled_from([1.0, 2.0, 255.0, 1 / 127.5, 1.2e-38, 1e-20, 3e38])


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, Any]:
    """Any type and layout of the network's input, any normalisation, extremes among them."""
    dtype = draw(st.sampled_from(geometry.DTYPES))
    options = {"dtype": dtype, "layout": draw(st.sampled_from(geometry.LAYOUTS)), "swap": draw(st.booleans())}
    options |= {"mean": draw(_three(means)), "std": draw(_three(divisors)), "pad": draw(st.integers(0, 255))}
    if dtype.kind == "f":
        return options
    low, high = (-128, 127) if dtype == np.int8 else (0, 255)
    return {**options, "scale": draw(divisors), "zero_point": draw(st.integers(low, high))}


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


@settings(max_examples=250, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from([1, 3, 4]), outputs(), st.integers(0, 99))
def test_letterbox_to_any_type_and_layout_equals_the_reference(h, w, height, width, channels, options, seed) -> None:
    _assert_same(_noise(h, w, channels, seed), height, width, **options)


@settings(max_examples=100, deadline=None)
@given(sides, sides, sides, sides, st.booleans(), outputs())
def test_only_the_border_of_the_same_placement_is_left_as_it_is(h, w, height, width, stretch, options) -> None:
    options = {"swap": False, "mean": MEAN, "std": STD, "stretch": stretch, **options}
    out, there = ops.letterbox(_noise(h, w, 3), height, width, **options)
    expected, _ = geometry.letterbox(_noise(h, w, 3, 1), height, width, **options)
    again, placement = ops.letterbox(_noise(h, w, 3, 1), height, width, out=out, bordered=there, **options)
    assert (placement, again is out) == (there, True)
    np.testing.assert_array_equal(out.view(BITS[out.itemsize]), expected.view(BITS[out.itemsize]))

    _, new_height, new_width = geometry.place(h, w, height, width, stretch=stretch)
    border = np.ones((height, width), bool)
    border[there.top : there.top + new_height, there.left : there.left + new_width] = False
    pixels = out.transpose(1, 2, 0) if options["layout"] == "nchw" else out  # a view
    pixels[border] = 0
    ops.letterbox(_noise(h, w, 3, 1), height, width, out=out, bordered=there, **options)
    assert not pixels[border].any(), "the border was written"

    other, _ = geometry.letterbox(_noise(h + 1, w, 3), height, width, **options)
    ops.letterbox(_noise(h + 1, w, 3), height, width, out=out, bordered=there, **options)
    np.testing.assert_array_equal(out.view(BITS[out.itemsize]), other.view(BITS[out.itemsize]))


@settings(max_examples=250, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(["nv12", "yuyv"]), outputs(), st.integers(0, 99))
def test_letterbox_of_a_camera_frame_equals_the_reference(h, w, height, width, pixels, options, seed) -> None:
    _assert_same(_frame(pixels, h, w, seed), height, width, pixels=pixels, **options)


@settings(max_examples=150, deadline=None)
@given(sides, sides, st.sampled_from(["nv12", "yuyv"]), outputs(), st.data())
def test_letterbox_of_a_strided_camera_frame_equals_the_reference(h, w, pixels, options, data) -> None:
    image = _frame(pixels, h, w)
    left, gap = 2 * data.draw(st.integers(0, w - 1)), 2 * data.draw(st.integers(0, 3))
    view = image[:, left : max(left + 2, 2 * w - gap)]
    views = [view, view[::-1], view[:, ::-1]]
    if pixels == "yuyv":
        views += [view[::2], view[:, :, ::-1]]
    view = data.draw(st.sampled_from(views))
    before = image.copy()
    _assert_same(view, 48, 33, pixels=pixels, **options)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("pixels", "size"), [("nv12", (270, 480)), ("nv12", (1, 1)), ("yuyv", (1, 1)), ("yuyv", (7, 999))]
)
def test_letterbox_of_odd_and_large_camera_frames_equals_the_reference(pixels, size) -> None:
    _assert_same(_frame(pixels, *size), 320, 352, pixels=pixels)


@pytest.mark.parametrize("pixels", ["nv12", "yuyv"])
def test_letterbox_of_a_camera_frame_is_that_of_its_rgb_image(pixels) -> None:
    cv2 = pytest.importorskip("cv2")
    frame = _frame(pixels, 60, 90)
    code = cv2.COLOR_YUV2RGB_NV12 if pixels == "nv12" else cv2.COLOR_YUV2RGB_YUYV
    options = {"mean": (0,) * 3, "std": (1,) * 3, "dtype": np.uint8, "swap": True}
    ours, _ = ops.letterbox(frame, 96, 96, pixels=pixels, **options)
    theirs, _ = ops.letterbox(cv2.cvtColor(frame, code), 96, 96, **options)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def _levels(**options) -> tuple[np.ndarray, np.ndarray]:
    """Return what the kernel makes of every level 0..255 in each channel, `(3, 256)`, and `value_table`'s answer."""
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    ours, _ = ops.letterbox(image, 1, 256, swap=False, **options)
    return ours[:, 0], geometry.value_table(**options)


def test_float16_is_numpys_at_ties_subnormals_and_infinities() -> None:
    seen = set()
    for exponent in range(-12, 36):
        for fraction in range(0, 32, 3):  # 8 bits of level and 5 of fraction: 2 more than a half has
            mean = (fraction / 32, -fraction / 32, 255 + fraction / 32)
            ours, expected = _levels(mean=mean, std=(2.0**exponent,) * 3, dtype=np.float16)
            np.testing.assert_array_equal(ours.view(np.uint16), expected.view(np.uint16))
            seen.update(expected.ravel().tolist())
    assert len(seen) > 30000
    assert {float("inf"), -float("inf"), 0.0, 2.0**-24, -(2.0**-24)} <= seen


def test_quantization_equals_the_table_where_a_straight_line_does_not() -> None:
    differ = 0
    for dtype, zero_point in ((np.uint8, 7), (np.int8, -3)):
        for scale in (1 / 127.5, 1 / 63.75, 0.02, 0.5, 2.0):
            options = {"mean": (0.0, 1.0, 0.5), "std": (255.0, 127.5, 51.0), "scale": scale, "zero_point": zero_point}
            ours, expected = _levels(dtype=dtype, **options)
            np.testing.assert_array_equal(ours, expected)
            factor = np.float32(1) / (np.float32(options["std"]) * np.float32(scale))
            line = np.arange(256, dtype=np.float32) * factor[:, None] + (-np.float32(options["mean"]) * factor)[:, None]
            limits = np.iinfo(dtype)
            differ += (np.clip(np.rint(line) + zero_point, limits.min, limits.max) != expected).any(axis=1).sum()
    assert 0 < differ < 30  # both ways of the kernel were taken


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


@pytest.mark.parametrize("dtype", geometry.DTYPES)
@pytest.mark.parametrize("layout", geometry.LAYOUTS)
def test_letterbox_writes_the_given_array_and_only_it(dtype, layout) -> None:
    shape = (3, 40, 56) if layout == "nchw" else (40, 56, 3)
    memory = np.full((3, *shape), 99, dtype)
    options = {"swap": True, "mean": (0,) * 3, "std": (1000,) * 3, "dtype": dtype, "layout": layout}
    filled, _ = ops.letterbox(_noise(50, 31, 3), 40, 56, out=memory[1], **options)
    assert filled.base is memory
    assert (memory[1] <= 1).all()
    assert (memory[[0, 2]] == 99).all()


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
        ({"pixels": "nv21"}, "interleaved, nv12, yuyv, got 'nv21'"),
        ({"pixels": "nv12"}, r"nv12 as \(3 H / 2, W\), H and W even, uint8, got \(4, 4, 3\)"),
        ({"pixels": "nv12", "image": np.zeros((8, 4), np.uint8)}, r"got \(8, 4\)"),
        ({"pixels": "nv12", "image": np.zeros((6, 3), np.uint8)}, r"got \(6, 3\)"),
        ({"pixels": "nv12", "image": np.zeros((0, 4), np.uint8)}, "0x4"),
        ({"pixels": "yuyv"}, r"yuyv as \(H, W, 2\), W even, uint8, got \(4, 4, 3\)"),
        ({"pixels": "yuyv", "image": np.zeros((4, 3, 2), np.uint8)}, r"got \(4, 3, 2\)"),
        ({"pixels": "yuyv", "image": np.zeros((4, 4, 2), np.int8)}, "int8"),
        ({"dtype": np.float64}, "float32, float16, uint8 or int8, got .*float64"),
        ({"dtype": "half a byte"}, "got 'half a byte'"),
        ({"dtype": ">f4"}, "got '>f4'"),
        ({"layout": "chw"}, "nchw or nhwc, got 'chw'"),
        ({"scale": 0.5}, "scale 0.5 .* dtype is float32"),
        ({"zero_point": 1, "dtype": np.float16}, "zero_point 1: .* dtype is float16"),
        ({"scale": 0.0, "dtype": np.uint8}, "positive number, got 0.0"),
        ({"scale": float("inf"), "dtype": np.uint8}, "got inf"),
        ({"scale": 1e-40, "dtype": np.uint8}, "got 1e-40"),
        ({"zero_point": -1, "dtype": np.uint8}, r"0\.\.255 for uint8, got -1"),
        ({"zero_point": 128, "dtype": np.int8}, r"-128\.\.127 for int8, got 128"),
        ({"zero_point": 0.5, "dtype": np.int8}, "whole number .* got 0.5"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, "0x4"),
        ({"height": 0}, "into 0x32"),
        ({"std": (1.0, 0.0, 1.0)}, "std positive"),
        ({"std": (1.0, 1e-50, 1.0)}, "std positive"),
        ({"mean": (1.0, float("nan"), 1.0)}, "finite"),
        ({"mean": (1.0, 1e39, 1.0)}, "finite"),
        ({"pad": 256}, "got 256"),
        ({"pad": 114.5}, "got 114.5"),
        ({"out": np.zeros((3, 32, 31), np.float32)}, r"\(3, 32, 31\)"),
        ({"out": np.zeros((3, 32, 32), np.float64)}, "float64"),
        ({"out": np.zeros((3, 32, 64), np.float32)[:, :, ::2]}, "contiguous"),
        (
            {"out": np.zeros((3, 32, 32), np.float32), "layout": "nhwc"},
            r"\(32, 32, 3\) float32 array, got \(3, 32, 32\)",
        ),
        ({"out": np.zeros((3, 32, 32), np.float32), "dtype": np.float16}, "float16 array, got .* float32"),
        ({"out": np.zeros(3 * 32 * 32 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(3, 32, 32)}, "aligned"),
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
