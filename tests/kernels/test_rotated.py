"""Compiled overlaps and suppression of rotated boxes have the reference's bits, whatever the boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd import geometry, ops
from edgekd.errors import UsageError


def everywhere(call: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the one result that all compiled implementations have to give."""
    results = []
    try:
        for name in ops.available()[:-1]:
            ops.select(name)
            results.append(call())
    finally:
        ops.select("auto")
    if not results:
        pytest.skip("the kernels were not compiled")
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    return results[0]


if TYPE_CHECKING:
    from collections.abc import Callable

# A coarse grid makes ties, identical boxes, shared edges and overlaps at exactly the threshold common.
grid = st.integers(-4, 12).map(float)
turns = st.sampled_from([0.0, 0.5, -0.5, np.pi / 4, np.pi / 2, -np.pi / 2, 3.0, 1e4]).map(np.float32)
hostile = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 1e19, -1e19, 2.0**20, 2.1e6]).map(np.float32)
numbers = st.one_of(grid, grid, grid, turns, st.floats(-50, 50, width=32), hostile).map(np.float32)
confidences = st.sampled_from([0.1, 0.5, 0.5, 0.9, 0.0, -0.0, np.nan, np.inf]).map(np.float32)
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0])
metrics = st.sampled_from(geometry.METRICS)


def arrays(n: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, (n, 5), elements=numbers)


@st.composite
def problems(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(0, 50))
    boxes = draw(arrays(n))
    if draw(st.booleans()):  # mostly boxes that count
        boxes[:, 2:4] = np.abs(boxes[:, 2:4]) + np.float32(0.5)
        boxes[:, 4] = draw(hnp.arrays(np.float32, n, elements=turns))
    scores = draw(hnp.arrays(np.float32, n, elements=confidences))
    labels = draw(hnp.arrays(np.int64, n, elements=st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)])))
    return boxes, scores, labels


def random_boxes(n: int, seed: int = 0, size: float = 60, span: float = 640) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = [rng.random((n, 2)) * span, rng.random((n, 2)) * size + 2, rng.uniform(-np.pi / 2, np.pi / 2, (n, 1))]
    return np.concatenate(columns, axis=1).astype(np.float32), rng.random(n).astype(np.float32)


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 40).flatmap(arrays), st.integers(0, 40).flatmap(arrays), metrics)
def test_overlaps_of_any_boxes_have_the_bits_of_the_reference(a, b, metric) -> None:
    ours = everywhere(lambda: ops.iou_rotated(a, b, metric=metric))
    reference = geometry.iou_rotated(a, b, metric=metric)
    assert ours.dtype == reference.dtype == np.float32
    np.testing.assert_array_equal(ours, reference)
    if metric == "iou":
        wide = everywhere(lambda: ops.iou_rotated(a, b, dtype=np.float64))
        np.testing.assert_array_equal(wide, geometry.iou_rotated(a, b, dtype=np.float64))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(4)), elements=numbers))
def test_upright_overlaps_have_the_bits_of_the_reference(boxes) -> None:
    np.testing.assert_array_equal(everywhere(lambda: ops.iou(boxes, boxes[::2])), geometry.iou(boxes, boxes[::2]))


@settings(max_examples=300, deadline=None)
@given(problems(), thresholds, st.booleans(), metrics)
def test_nms_of_any_boxes_equals_the_reference(problem, iou, by_label, metric) -> None:
    boxes, scores, labels = problem
    copies = boxes.copy(), scores.copy(), labels.copy()
    chosen = labels if by_label else None
    ours = everywhere(lambda: ops.nms_rotated(boxes, scores, iou, chosen, metric=metric))
    np.testing.assert_array_equal(ours, geometry.nms_rotated(boxes, scores, iou, chosen, metric=metric))
    assert ours.dtype == np.int64
    for array, copy in zip((boxes, scores, labels), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 63, 64, 65, 129, 257, 1000])
@pytest.mark.parametrize("size", [10, 300])
@pytest.mark.parametrize("metric", geometry.METRICS)
def test_nms_of_random_boxes_equals_the_reference(n, size, metric) -> None:
    boxes, scores = random_boxes(n, n, size)
    scores = np.round(scores, 2)  # many ties
    labels = np.arange(n) % 3
    for chosen in (None, labels):
        ours = everywhere(lambda chosen=chosen: ops.nms_rotated(boxes, scores, 0.35, chosen, metric=metric))
        np.testing.assert_array_equal(ours, geometry.nms_rotated(boxes, scores, 0.35, chosen, metric=metric))


def test_nms_of_upright_boxes_equals_that_of_upright_boxes() -> None:
    """At 0 and, with swapped sides, at 90 degrees; on a grid of quarters, where neither rounds."""
    rng = np.random.default_rng(0)
    boxes = np.float32(np.concatenate([rng.integers(0, 400, (800, 2)), rng.integers(4, 60, (800, 2)) * 2], axis=1) / 4)
    xyxy = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    scores = rng.random(800).astype(np.float32)
    threshold = 0.4321  # no pair of such boxes is within rounding of it
    flat = np.concatenate([boxes, np.zeros((800, 1), np.float32)], axis=1)
    turned = np.concatenate([boxes[:, [0, 1, 3, 2]], np.full((800, 1), -np.pi / 2, np.float32)], axis=1)
    expected = ops.nms(xyxy, scores, threshold)
    np.testing.assert_array_equal(ops.nms_rotated(flat, scores, threshold), expected)
    np.testing.assert_array_equal(ops.nms_rotated(turned, scores, threshold), expected)


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_nms_far_from_the_origin_equals_the_reference(shift) -> None:
    boxes, scores = random_boxes(600)
    boxes[:, :2] += np.float32(shift)
    np.testing.assert_array_equal(
        everywhere(lambda: ops.nms_rotated(boxes, scores, 0.3)), geometry.nms_rotated(boxes, scores, 0.3)
    )


def test_nms_with_a_box_as_large_as_the_world_equals_the_reference() -> None:
    boxes, scores = random_boxes(1000)
    boxes[::100, 2:4] = 1e15
    np.testing.assert_array_equal(
        everywhere(lambda: ops.nms_rotated(boxes, scores, 0.3)), geometry.nms_rotated(boxes, scores, 0.3)
    )


def test_nms_of_identical_boxes_keeps_the_first() -> None:
    boxes = np.tile(np.float32([50, 60, 30, 4, 0.7]), (500, 1))
    assert ops.nms_rotated(boxes, np.full(500, 0.5, np.float32), 0.99).tolist() == [0]


def test_nms_at_exactly_the_threshold_keeps_both() -> None:
    boxes = np.float32([[1, 0.5, 2, 1, 0], [0.5, 0.5, 1, 1, 0]])  # overlap 1/2
    scores = np.float32([0.9, 0.8])
    assert ops.nms_rotated(boxes, scores, 0.5).tolist() == [0, 1]
    assert ops.nms_rotated(boxes, scores, float(np.nextafter(np.float32(0.5), np.float32(0)))).tolist() == [0]


def test_nms_at_0_keeps_what_only_touches() -> None:
    boxes = np.float32([[0, 0, 2, 2, 0], [2, 0, 2, 2, 0], [0, 2.5, 2, 2, 0.1], [0.5, 0, 2, 2, 0.3]])
    assert ops.nms_rotated(boxes, np.float32([0.9, 0.8, 0.7, 0.6]), 0.0).tolist() == [0, 1, 2]


def test_nms_by_label_equals_nms_of_each_label() -> None:
    boxes, scores = random_boxes(700)
    labels = np.random.default_rng(2).integers(0, 5, 700)
    of_label = [np.flatnonzero(labels == k) for k in range(5)]
    joined = np.concatenate([rows[ops.nms_rotated(boxes[rows], scores[rows], 0.3)] for rows in of_label])
    expected = joined[np.lexsort((joined, -scores[joined]))]
    np.testing.assert_array_equal(ops.nms_rotated(boxes, scores, 0.3, labels), expected)


def test_nms_of_its_own_result_and_of_shuffled_boxes() -> None:
    boxes, scores = random_boxes(700)
    keep = ops.nms_rotated(boxes, scores, 0.3)
    assert ops.nms_rotated(boxes[keep], scores[keep], 0.3).tolist() == list(range(len(keep)))
    order = np.random.default_rng(3).permutation(700)
    np.testing.assert_array_equal(order[ops.nms_rotated(boxes[order], scores[order], 0.3)], keep)


def test_nms_repeated_gives_the_same_bits() -> None:
    boxes, scores = random_boxes(400)
    first = ops.nms_rotated(boxes, scores, 0.5).tobytes()
    assert all(ops.nms_rotated(boxes, scores, 0.5).tobytes() == first for _ in range(100))


def test_suppress_of_rotated_boxes_equals_the_reference() -> None:
    rng = np.random.default_rng(5)
    boxes, _ = random_boxes(3000)
    scores = rng.random((3000, 15), np.float32) ** 6
    for metric in geometry.METRICS:
        options = {"conf": 0.4, "iou": 0.2, "max_det": 300, "max_candidates": 800, "metric": metric}
        for a, b in zip(
            ops.suppress(boxes, scores, **options), geometry.suppress(boxes, scores, **options), strict=True
        ):
            np.testing.assert_array_equal(a, b)
            assert a.base is None


def test_results_go_where_the_caller_says() -> None:
    boxes, scores = random_boxes(100)
    keep = np.full(120, -1, np.int64)
    found = ops.nms_rotated(boxes, scores, 0.3, out=keep)
    assert np.shares_memory(found, keep)
    np.testing.assert_array_equal(found, geometry.nms_rotated(boxes, scores, 0.3))
    table = np.empty((100, 100), np.float32)
    assert ops.iou_rotated(boxes, boxes, out=table) is table
    np.testing.assert_array_equal(table, geometry.iou_rotated(boxes, boxes))
    xyxy = boxes[:, :4].copy()
    assert ops.nms(xyxy, scores, 0.3, out=keep).base is keep


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.nms_rotated(np.zeros((3, 4)), np.zeros(3), 0.5), r"boxes \(N, 5\).*got \(3, 4\)"),
        (lambda: ops.nms_rotated(np.zeros((3, 5)), np.zeros(2), 0.5), r"\(2,\)"),
        (lambda: ops.nms_rotated(np.zeros((3, 5)), np.zeros(3), 1.5), "got 1.5"),
        (lambda: ops.nms_rotated(np.zeros((3, 5)), np.zeros(3), 0.5, metric="x"), "no metric 'x'"),
        (lambda: ops.nms_rotated(np.zeros((3, 5)), np.zeros(3), 0.5, out=np.zeros(2, np.int64)), "at least 3"),
        (lambda: ops.iou_rotated(np.zeros((3, 4)), np.zeros((3, 5))), r"\(N, 5\), got \(3, 4\)"),
        (lambda: ops.iou(np.zeros((3, 5)), np.zeros((3, 4))), r"\(N, 4\), got \(3, 5\)"),
        (lambda: ops.iou(np.zeros((3, 4)), np.zeros((3, 4)), out=np.zeros((3, 2))), r"\(3, 3\) float32"),
        (lambda: ops.iou_rotated(np.zeros((1, 5)), np.zeros((1, 5)), metric="x"), "no metric 'x'"),
    ],
)
def test_wrong_arguments_say_what_they_got(call, message) -> None:
    with pytest.raises(UsageError, match=message):
        call()
