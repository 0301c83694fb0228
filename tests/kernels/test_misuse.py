"""Arguments that nobody can serve rightly are refused in words, by the kernels and by the reference alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd import geometry, ops
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

BOXES = np.float32([[0, 0, 2, 2], [1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
SCORES = np.float32([0.9, 0.8, 0.7, 0.6])
PLAIN = {"swap": False, "mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.fixture(params=ops.available(), autouse=True)
def serving(request: pytest.FixtureRequest) -> Iterator[str]:
    ops.select(request.param)
    yield request.param
    ops.select("auto")


@pytest.mark.parametrize("rotated", [False, True])
def test_iou_when_out_overlaps_an_input_then_it_is_refused_and_untouched(rotated) -> None:
    columns = 5 if rotated else 4
    shared = np.arange((columns + 1) * columns, dtype=np.float32).reshape(columns + 1, columns)
    before = shared.copy()
    pairs = ops.iou_rotated if rotated else ops.iou
    for a, b in [(shared[:-1], before[:-1]), (before[:-1], shared[:-1])]:
        with pytest.raises(UsageError, match="out: it overlaps the boxes in memory"):
            pairs(a, b, out=shared[1:])
    np.testing.assert_array_equal(shared, before)


@pytest.mark.parametrize("dtype", [None, np.float16, ">f8", "half a byte"])
def test_iou_rotated_when_dtype_is_none_that_it_computes_then_it_is_refused(dtype) -> None:
    """None above all: NumPy leaves the boxes as they are then, and the kernel took float32 for float64."""
    boxes = np.float32([[0, 0, 2, 2, 0], [1, 0, 3, 2, 0]])
    with pytest.raises(UsageError, match="dtype: expected float32 or float64, got "):
        ops.iou_rotated(boxes, boxes, dtype=dtype)


def test_letterbox_when_out_overlaps_the_image_then_it_is_refused_and_untouched() -> None:
    shared = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    before = shared.copy()
    with pytest.raises(UsageError, match="out: it overlaps the image in memory"):
        ops.letterbox(shared[:6, :6], 16, 16, **PLAIN, dtype=np.uint8, layout="nhwc", out=shared)
    np.testing.assert_array_equal(shared, before)


@pytest.mark.parametrize("step", [2**36, -(2**36)])
def test_letterbox_when_a_single_row_has_a_stride_beyond_all_memory_then_it_is_not_looked_at(step) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 3), np.uint8)
    row = image[::step]
    assert row.shape[0] == 1
    np.testing.assert_array_equal(ops.letterbox(row, 8, 8, **PLAIN)[0], ops.letterbox(row.copy(), 8, 8, **PLAIN)[0])


def test_anomaly_regions_when_out_is_not_two_arrays_then_it_is_refused_in_words() -> None:
    values, mask = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.bool_)
    for out in ((values,), (values, mask, mask)):
        with pytest.raises(UsageError, match=f"two arrays, the map and the mask, got {len(out)}"):
            ops.anomaly_regions(values.copy(), 4, 4, threshold=0.5, out=out)


def test_letterbox_when_bordered_comes_without_out_then_it_is_refused() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    filled, placement = ops.letterbox(image, 8, 8, **PLAIN)
    ops.letterbox(image, 8, 8, **PLAIN, out=filled, bordered=placement)
    with pytest.raises(UsageError, match=r"bordered: .* no `out`"):
        ops.letterbox(image, 8, 8, **PLAIN, bordered=placement)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_sizes_when_they_are_numbers_of_numpy_then_nothing_overflows(kind) -> None:
    image = np.zeros((1080, 1920, 3), np.uint8)
    filled, placement = ops.letterbox(image, kind(64), kind(128), **PLAIN)
    expected, place = ops.letterbox(image, 64, 128, **PLAIN)
    assert placement == place
    np.testing.assert_array_equal(filled, expected)
    assert geometry.place(32767, 32767, kind(32767), kind(32767)) == geometry.place(32767, 32767, 32767, 32767)
    raw = np.eye(9, dtype=np.float32)
    for side in (200, 2000):  # their area, and a quarter of it, are beyond 16 bits
        assert len(ops.anomaly_regions(raw, kind(side), kind(side), threshold=0.5, sigma=0)) == 1


@pytest.mark.parametrize("wrong", [0.0, np.inf, -1.0, np.nan])
def test_letterbox_when_halves_are_no_divisors_then_they_are_refused(wrong) -> None:
    """And others are taken, without a warning: NumPy compares a half with bounds that it rounds to 0 and infinity."""
    image, half = np.full((4, 8, 3), 200, np.uint8), np.float16(0.5)
    expected = ops.letterbox(image, 8, 8, swap=False, mean=(8.0,) * 3, std=(2.0,) * 3, dtype=np.uint8, scale=0.5)[0]
    usual = {"swap": False, "mean": np.float16([8] * 3), "std": np.float16([2] * 3), "dtype": np.uint8, "scale": half}
    np.testing.assert_array_equal(ops.letterbox(image, 8, 8, **usual)[0], expected)
    for change in ({"std": np.float16([1, wrong, 1])}, {"scale": np.float16(wrong)}):
        with pytest.raises(UsageError, match=r"std positive|expected a positive number"):
            ops.letterbox(image, 8, 8, **{**usual, **change})
    with pytest.raises(UsageError, match="expected 3 finite values"):
        ops.letterbox(image, 8, 8, **{**usual, "mean": np.float16([0, np.inf, 0])})


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_letterbox_when_zero_point_is_a_number_of_its_type_then_nothing_overflows(kind) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    usual = {"swap": False, "mean": (1.0,) * 3, "std": (2.0,) * 3, "dtype": kind, "scale": 0.5}
    for point in (np.iinfo(kind).min, -3 if kind is np.int8 else 3, np.iinfo(kind).max):
        ours, expected = (ops.letterbox(image, 1, 256, **usual, zero_point=z)[0] for z in (kind(point), point))
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.float16])
def test_anomaly_regions_when_sigma_is_a_small_number_of_numpy_then_nothing_overflows(kind) -> None:
    raw = np.random.default_rng(0).random((9, 9), np.float32)
    ours, expected = (ops.anomaly_regions(raw, 20, 20, threshold=0.5, sigma=s).map for s in (kind(64), 64))
    np.testing.assert_array_equal(ours, expected)


def test_letterbox_when_pad_is_a_truth_value_then_it_is_refused() -> None:
    with pytest.raises(UsageError, match="grey level"):
        ops.letterbox(np.zeros((4, 8, 3), np.uint8), 8, 8, **PLAIN, pad=True)


@pytest.mark.parametrize("classes", [[True, False], np.array([True, False]), [1.0], ["a"]])
def test_classes_when_they_are_a_mask_or_no_numbers_then_they_are_refused(classes) -> None:
    with pytest.raises(UsageError, match=r"no class .*; possible: 0 to 1"):
        ops.candidates(np.float32([[0.9, 0.1], [0.2, 0.8]]), 0.05, 9, classes)


WRONG = ([0.0, 0.5, 1, 1], [0, np.nan, 0, 0], [np.inf, 0, 0, 0], np.uint64([2**64 - 1] * 4), ["a"] * 4)


@pytest.mark.parametrize("wrong", WRONG, ids=["part", "nan", "infinite", "large", "text"])
def test_labels_and_tiles_when_they_are_not_whole_then_they_are_refused(wrong) -> None:
    windows = [[0, 0, 4, 4], [2, 0, 6, 4]]
    for call in (
        lambda: ops.nms(BOXES, SCORES, 0.3, wrong),
        lambda: ops.nms(BOXES, SCORES, 0.3, images=wrong),
        lambda: ops.merge_tiles(BOXES, SCORES, None, wrong, windows),
    ):
        with pytest.raises(UsageError, match=r"labels|images|tiles"):
            call()


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.uint8, np.int64])
def test_labels_when_they_are_whole_in_any_type_then_they_are_taken(kind) -> None:
    labels = np.array([0, 1, 1, 0]).astype(kind)
    assert ops.nms(BOXES, SCORES, 0.3, labels).tolist() == [0, 1, 3]


@pytest.mark.parametrize("most", [sys.maxsize, 10**30])
def test_limits_when_they_are_beyond_64_bits_then_nothing_is_left_out(most) -> None:
    scores = np.float32([[0.9, 0.2], [0.8, 0.7], [0.1, 0.6], [0.5, 0.3]])
    for every in (False, True):
        rows, _, _ = ops.candidates(scores, 0.25, most, every_class=every)
        assert rows.tolist() == ([0, 1, 1, 2, 3, 3] if every else [0, 1, 2, 3])
        options = {"conf": 0.25, "iou": 1.0, "max_candidates": most, "max_det": most, "every_class": every}
        assert len(ops.suppress(BOXES, scores, **options)[0]) == len(rows)
