"""Compiled NMS and suppression keep what the reference keeps, whatever the boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd import geometry, ops
from edgekd.errors import UsageError

pytestmark = pytest.mark.usefixtures("implementation")

# A coarse grid makes ties, identical boxes and overlaps at exactly the threshold common; the rest is hostile.
grid = st.integers(-4, 12).map(float)
hostile = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 1e19, -1e19, 1e5])
coordinates = st.one_of(grid, grid, grid, st.floats(-50, 50, width=32), hostile).map(np.float32)
confidences = st.sampled_from([0.1, 0.5, 0.5, 0.9, 0.0, -0.0, np.nan, np.inf]).map(np.float32)
thresholds = st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0])


@st.composite
def problems(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(0, 50))
    boxes = draw(hnp.arrays(np.float32, (n, 4), elements=coordinates))
    if draw(st.booleans()):
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    scores = draw(hnp.arrays(np.float32, n, elements=confidences))
    labels = draw(hnp.arrays(np.int64, n, elements=st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)])))
    return boxes, scores, labels


def _random(n: int, seed: int = 0, size: float = 0.2, span: float = 640) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centre, half = rng.random((n, 2)) * span, (rng.random((n, 2)) * size * span + 1) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32), rng.random(n).astype(np.float32)


@settings(max_examples=250, deadline=None)
@given(problems(), thresholds, st.booleans())
def test_nms_of_any_boxes_equals_the_reference(problem, iou, by_label) -> None:
    boxes, scores, labels = problem
    copies = boxes.copy(), scores.copy(), labels.copy()
    ours = ops.nms(boxes, scores, iou, labels if by_label else None)
    reference = geometry.nms(boxes, scores, iou, labels if by_label else None)
    np.testing.assert_array_equal(ours, reference)
    assert ours.dtype == np.int64
    for array, copy in zip((boxes, scores, labels), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 63, 64, 65, 129, 255, 257, 1000, 2000])
@pytest.mark.parametrize("size", [0.02, 0.5])
def test_nms_of_random_boxes_equals_the_reference(n, size) -> None:
    boxes, scores = _random(n, n, size)
    scores = np.round(scores, 2)  # many ties
    labels = np.arange(n) % 3
    np.testing.assert_array_equal(ops.nms(boxes, scores, 0.45), geometry.nms(boxes, scores, 0.45))
    np.testing.assert_array_equal(ops.nms(boxes, scores, 0.45, labels), geometry.nms(boxes, scores, 0.45, labels))


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_nms_far_from_the_origin_equals_the_reference(shift) -> None:
    boxes, scores = _random(800)
    boxes += np.float32(shift)
    np.testing.assert_array_equal(ops.nms(boxes, scores, 0.5), geometry.nms(boxes, scores, 0.5))


def test_nms_with_a_box_as_large_as_the_world_equals_the_reference() -> None:
    boxes, scores = _random(2000)
    boxes[::200] = [-1e15, -1e15, 1e15, 1e15]
    np.testing.assert_array_equal(ops.nms(boxes, scores, 0.3), geometry.nms(boxes, scores, 0.3))


def test_read_only_arrays_are_accepted() -> None:
    boxes, scores = _random(50)
    expected = ops.nms(boxes, scores, 0.5, np.zeros(50, np.int64)).tolist()
    labels = np.zeros(50, np.int64)
    for array in (boxes, scores, labels):
        array.setflags(write=False)
    assert ops.nms(boxes, scores, 0.5, labels).tolist() == expected
    kept, _, _ = ops.suppress(boxes, scores[:, None], conf=0.0, iou=0.5, max_det=99, max_candidates=99)
    np.testing.assert_array_equal(kept, boxes[expected])


def test_nms_of_identical_boxes_keeps_the_first() -> None:
    assert ops.nms(np.tile(np.float32([1, 2, 3, 4]), (500, 1)), np.full(500, 0.5, np.float32), 0.99).tolist() == [0]


def test_nms_at_exactly_the_threshold_keeps_both() -> None:
    boxes = np.float32([[0, 0, 2, 1], [0, 0, 1, 1]])  # overlap 1/2
    scores = np.float32([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.5).tolist() == [0, 1]
    assert ops.nms(boxes, scores, float(np.nextafter(np.float32(0.5), np.float32(0)))).tolist() == [0]


def test_nms_by_label_equals_nms_of_each_label() -> None:
    boxes, scores = _random(900)
    labels = np.random.default_rng(2).integers(0, 5, 900)
    kept = [np.flatnonzero(labels == k)[ops.nms(boxes[labels == k], scores[labels == k], 0.4)] for k in range(5)]
    joined = np.concatenate(kept)
    expected = joined[np.lexsort((joined, -scores[joined]))]
    np.testing.assert_array_equal(ops.nms(boxes, scores, 0.4, labels), expected)


@pytest.mark.parametrize("rotated", [False, True])
def test_nms_of_a_batch_equals_nms_of_each_image(rotated) -> None:
    boxes, scores = _random(600)
    if rotated:
        angles = np.linspace(-1.5, 1.5, 600, dtype=np.float32)[:, None]
        boxes = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], angles], axis=1)
    function = ops.nms_rotated if rotated else ops.nms
    rng = np.random.default_rng(4)
    images, labels = rng.integers(-2, 3, 600), rng.integers(0, 3, 600)
    parts = [np.flatnonzero(images == image) for image in np.unique(images)]
    joined = np.concatenate([rows[function(boxes[rows], scores[rows], 0.3, labels[rows])] for rows in parts])
    expected = joined[np.lexsort((joined, -scores[joined]))]
    np.testing.assert_array_equal(function(boxes, scores, 0.3, labels, images=images), expected)
    reference = geometry.nms_rotated if rotated else geometry.nms
    np.testing.assert_array_equal(reference(boxes, scores, 0.3, labels, images=images), expected)


def test_nms_of_its_own_result_changes_nothing() -> None:
    boxes, scores = _random(700)
    keep = ops.nms(boxes, scores, 0.4)
    assert ops.nms(boxes[keep], scores[keep], 0.4).tolist() == list(range(len(keep)))


def test_nms_of_shuffled_boxes_keeps_the_same_boxes() -> None:
    boxes, scores = _random(700)
    order = np.random.default_rng(3).permutation(700)
    np.testing.assert_array_equal(order[ops.nms(boxes[order], scores[order], 0.4)], ops.nms(boxes, scores, 0.4))


def test_nms_repeated_gives_the_same_bits() -> None:
    boxes, scores = _random(400)
    first = ops.nms(boxes, scores, 0.5).tobytes()
    assert all(ops.nms(boxes, scores, 0.5).tobytes() == first for _ in range(100))


@settings(max_examples=200, deadline=None)
@given(problems(), thresholds, st.integers(1, 60), st.integers(1, 60), st.sampled_from([-1.0, 0.1, 0.3]), st.data())
def test_suppress_of_any_output_equals_the_reference(problem, iou, max_det, max_candidates, conf, data) -> None:
    boxes = problem[0]
    scores = data.draw(hnp.arrays(np.float32, (len(boxes), data.draw(st.integers(0, 4))), elements=confidences))
    columns = st.lists(st.integers(0, scores.shape[1] - 1), max_size=3) if scores.shape[1] else st.just([])
    options = {"conf": conf, "iou": iou, "max_det": max_det, "max_candidates": max_candidates}
    options["classes"] = data.draw(st.none() | columns)
    options["every_class"] = data.draw(st.booleans())
    for ours, reference in zip(
        ops.suppress(boxes, scores, **options), geometry.suppress(boxes, scores, **options), strict=True
    ):
        assert (ours.dtype, ours.shape) == (reference.dtype, reference.shape)
        np.testing.assert_array_equal(ours, reference)


def test_suppress_of_a_network_sized_output_equals_the_reference() -> None:
    rng = np.random.default_rng(5)
    boxes, _ = _random(8400)
    scores = rng.random((8400, 80), np.float32) ** 8
    for options in (
        {"max_det": 100, "max_candidates": 1000},
        {"max_det": 9000, "max_candidates": 9000, "classes": [3, 5]},
    ):
        ours = ops.suppress(boxes, scores, conf=0.5, iou=0.6, **options)
        for a, b in zip(ours, geometry.suppress(boxes, scores, conf=0.5, iou=0.6, **options), strict=True):
            np.testing.assert_array_equal(a, b)
        assert all(array.base is None for array in ours)  # owned: nothing larger stays alive behind a result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((3, 6), np.float32)}, r"\(3, 6\)"),
        ({"metric": "probiou"}, "possible here: iou"),
        ({"metric": "giou"}, "no metric 'giou'; possible: iou, probiou"),
        ({"scores": np.zeros((4, 2), np.float32)}, r"\(4, 2\)"),
        ({"iou": 1.5}, "got 1.5"),
        ({"iou": float("nan")}, "got nan"),
        ({"max_det": 0}, "got 0"),
        ({"max_candidates": 0}, "got 0"),
        ({"classes": [7]}, "no class 7"),
    ],
)
def test_suppress_with_a_wrong_argument_says_what_it_got(change, message) -> None:
    arguments = {"boxes": np.zeros((3, 4), np.float32), "scores": np.zeros((3, 2), np.float32), "conf": 0.2, "iou": 0.5}
    arguments |= {"max_det": 9, "max_candidates": 9}
    for function in (ops.suppress, geometry.suppress):
        with pytest.raises(UsageError, match=message):
            function(**{**arguments, **change})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 5), np.float32), np.zeros(3, np.float32), 0.5), r"\(3, 5\)"),
        ((np.zeros((3, 4), np.float32), np.zeros(2, np.float32), 0.5), r"\(2,\)"),
        ((np.zeros((3, 4), np.float32), np.zeros(3, np.float32), -0.1), "got -0.1"),
        ((np.zeros((3, 4), np.float32), np.zeros(3, np.float32), 0.5, np.zeros(2, np.int64)), r"labels.*\(2,\)"),
        ((np.zeros((1, 4), np.float32), np.zeros(1, np.float32), 0.5, np.array([2**31])), "2147483648"),
    ],
)
def test_nms_with_a_wrong_argument_says_what_it_got(arguments, message) -> None:
    for function in (ops.nms, geometry.nms):
        with pytest.raises(UsageError, match=message):
            function(*arguments)
