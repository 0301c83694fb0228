"""Keep-lists of two runs: real differences are found, those within the tolerance are forgiven, and none is invented."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekd._decisions import Decisions, compare, compare_verdicts
from edgekd._manifest import Suppression

Run = tuple[NDArray[np.float32], NDArray[np.float32]]
PREDICT = Suppression(conf=0.3, iou=0.5, max_det=100, max_candidates=1000)
T = 0.01


def run(*rows: tuple[tuple[float, float, float, float], tuple[float, ...]]) -> Run:
    """Return boxes and scores of rows given as (x1, y1, x2, y2), (score of each class)."""
    boxes, scores = zip(*rows, strict=True)
    return np.array(boxes, np.float32), np.array(scores, np.float32)


FAR = (100, 100, 120, 120)
HERE = (0, 0, 10, 10)
NEAR = (1, 0, 11, 10)  # IoU 90 / 110 with HERE
HALF = (0, 0, 10, 4.99)  # IoU 0.499 with HERE
MORE = (0, 0, 10, 5.01)  # IoU 0.501 with HERE


def test_equal_runs_decide_the_same() -> None:
    outputs = run((HERE, (0.9, 0.1)), (NEAR, (0.8, 0.1)), (FAR, (0.1, 0.7)), (FAR, (0.1, 0.1)))
    assert compare(outputs, outputs, PREDICT, T) == Decisions(reference=2, same=2, borderline=0, different=0)


CASES = {
    "lost": (run((HERE, (0.9, 0)), (FAR, (0.8, 0))), run((HERE, (0.9, 0)), (FAR, (0.2, 0))), (2, 1, 0, 1)),
    "found": (run((HERE, (0.9, 0)), (FAR, (0.2, 0))), run((HERE, (0.9, 0)), (FAR, (0.8, 0))), (1, 1, 0, 1)),
    "threshold, lost": (run((HERE, (0.308, 0))), run((HERE, (0.299, 0))), (1, 0, 1, 0)),
    "threshold, found": (run((HERE, (0.299, 0))), run((HERE, (0.308, 0))), (0, 0, 1, 0)),
    "beyond the threshold": (run((HERE, (0.312, 0))), run((HERE, (0.299, 0))), (1, 0, 0, 1)),
    "class, close": (run((HERE, (0.600, 0.595))), run((HERE, (0.595, 0.600))), (1, 0, 1, 0)),
    "class, far": (run((HERE, (0.600, 0.595))), run((HERE, (0.595, 0.620))), (1, 0, 0, 1)),
    "swap, close": (
        run((HERE, (0.900, 0)), (NEAR, (0.895, 0))),
        run((HERE, (0.895, 0)), (NEAR, (0.900, 0))),
        (1, 0, 2, 0),
    ),
    "swap, far": (run((HERE, (0.9, 0)), (NEAR, (0.7, 0))), run((HERE, (0.7, 0)), (NEAR, (0.9, 0))), (1, 0, 0, 2)),
    "overlap straddles": (
        run((HERE, (0.9, 0)), (HALF, (0.7, 0))),
        run((HERE, (0.9, 0)), (MORE, (0.7, 0))),
        (2, 1, 1, 0),
    ),
    "follows a borderline one": (  # HERE becomes class 1 and stops suppressing NEAR
        run((HERE, (0.900, 0.895)), (NEAR, (0.7, 0))),
        run((HERE, (0.895, 0.900)), (NEAR, (0.7, 0))),
        (1, 0, 2, 0),
    ),
    "follows a real one": (
        run((HERE, (0.90, 0.80)), (NEAR, (0.7, 0))),
        run((HERE, (0.80, 0.90)), (NEAR, (0.7, 0))),
        (1, 0, 0, 2),
    ),
    "a bystander excuses nothing": (
        run((HERE, (0.5, 0)), (NEAR, (0.7, 0)), (FAR, (0.8, 0))),
        run((HERE, (0.9, 0)), (NEAR, (0.7, 0)), (FAR, (0.8, 0))),
        (2, 1, 0, 2),
    ),
    "class takes it from its rival": (  # as class 1 nothing suppresses it
        run((HERE, (0.9, 0)), (NEAR, (0.600, 0.595))),
        run((HERE, (0.9, 0)), (NEAR, (0.595, 0.600))),
        (1, 1, 1, 0),
    ),
    "class takes it far": (
        run((HERE, (0.9, 0)), (NEAR, (0.60, 0.50))),
        run((HERE, (0.9, 0)), (NEAR, (0.50, 0.60))),
        (1, 1, 0, 1),
    ),
    "not a number": (run((HERE, (0.9, 0))), run((HERE, (np.nan, 0))), (1, 0, 0, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_difference_is_told_from_borderline(name: str) -> None:
    first, second, (reference, same, borderline, different) = CASES[name]
    assert compare(first, second, PREDICT, T) == Decisions(reference, same, borderline, different)


def test_rows_pushed_out_by_the_limit_are_borderline_only_if_close() -> None:
    limited = Suppression(conf=0.3, iou=0.5, max_det=1, max_candidates=1000)
    first = run((HERE, (0.900, 0)), (FAR, (0.895, 0)))
    assert compare(first, run((HERE, (0.895, 0)), (FAR, (0.900, 0))), limited, T) == Decisions(1, 0, 2, 0)
    assert compare(first, run((HERE, (0.50, 0)), (FAR, (0.900, 0))), limited, T) == Decisions(1, 0, 1, 1)
    few = Suppression(conf=0.3, iou=0.5, max_det=100, max_candidates=1)
    assert compare(first, run((HERE, (0.895, 0)), (FAR, (0.900, 0))), few, T) == Decisions(1, 0, 2, 0)


def test_decisions_add_up() -> None:
    assert Decisions(1, 2, 3, 4) + Decisions(10, 20, 30, 40) == Decisions(11, 22, 33, 44)


def crowd(rng: np.random.Generator, rows: int, classes: int, *, oriented: bool = False) -> Run:
    centre = rng.uniform(0, 60, (rows, 2))
    size = rng.uniform(5, 40, (rows, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    if oriented:
        boxes = np.concatenate([centre, size, rng.uniform(-np.pi / 2, np.pi / 2, (rows, 1))], axis=1)
    return boxes.astype(np.float32), rng.uniform(0.2, 0.6, (rows, classes)).astype(np.float32)


def rewritten(boxes: NDArray[np.float32], turns: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the same rectangles, turned by quarter turns, with w and h swapped by odd ones."""
    other = boxes.copy()
    odd = turns % 2 == 1
    other[odd, 2], other[odd, 3] = boxes[odd, 3], boxes[odd, 2]
    other[:, 4] += turns * np.float32(np.pi / 2)
    return other


LIMITS = st.sampled_from([PREDICT, Suppression(conf=0.3, iou=0.5, max_det=7, max_candidates=1000),
                          Suppression(conf=0.3, iou=0.5, max_det=100, max_candidates=20)])  # fmt: skip


@given(st.integers(0, 1 << 32), st.sampled_from([1, 2, 5]), st.floats(1e-4, 0.02), LIMITS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_errors_within_the_tolerance_never_count_as_different(
    seed: int, classes: int, tolerance: float, predict: Suppression, oriented: bool
) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = crowd(rng, 80, classes, oriented=oriented)
    written = rewritten(boxes, rng.integers(0, 4, len(boxes))) if oriented else boxes
    noisy = (
        written + rng.uniform(-0.5, 0.5, boxes.shape).astype(np.float32),
        scores + rng.uniform(-tolerance, tolerance, scores.shape).astype(np.float32) * np.float32(0.999),
    )
    assert compare((boxes, scores), noisy, predict, tolerance).different == 0
    assert compare(noisy, (boxes, scores), predict, tolerance).different == 0


@given(st.integers(0, 1 << 32))
@settings(max_examples=100, deadline=None)
def test_rectangles_written_another_way_decide_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = crowd(rng, 60, 2, oriented=True)
    found = compare((boxes, scores), (rewritten(boxes, rng.integers(0, 4, 60)), scores), PREDICT, T)
    assert (found.borderline, found.different) == (0, 0)
    assert 0 < found.same == found.reference < 60


def test_turned_boxes_overlap_by_their_rectangles_not_by_their_hulls() -> None:
    cross = np.float32([[50, 50, 40, 6, 0.6], [50, 50, 6, 40, 0.6], [50, 50, 6, 40, 0.6 + np.pi / 2]])
    scores = np.float32([[0.9], [0.8], [0.7]])
    assert compare((cross, scores), (cross, scores), PREDICT, T).reference == 2, "the third is the first"


@given(st.integers(0, 1 << 32), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_detection_taken_away_is_always_found(seed: int, oriented: bool) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = crowd(rng, 30, 2, oriented=oriented)
    row = int(rng.integers(30))
    scores[row, 0] = 0.9
    gone = scores.copy()
    gone[row] = 0.0
    assert compare((boxes, scores), (boxes, gone), PREDICT, T).different >= 1


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        (0.9, 0.8, (1, 1, 0, 0)),  # both normal, however far apart: the scores have a bound of their own
        (1.5, 3.0, (1, 1, 0, 0)),
        (1.0, 1.0, (1, 1, 0, 0)),  # at the threshold is normal
        (0.995, 1.004, (1, 0, 1, 0)),
        (1.004, 0.995, (1, 0, 1, 0)),
        (0.98, 1.004, (1, 0, 0, 1)),
        (1.5, 0.5, (1, 0, 0, 1)),
        (0.5, float("nan"), (1, 0, 0, 1)),
        (1.5, float("nan"), (1, 0, 0, 1)),
    ],
)
def test_verdicts_agree_differ_or_lie_by_the_threshold(
    reference: float, other: float, expected: tuple[int, int, int, int]
) -> None:
    assert compare_verdicts(reference, other, 1.0, T) == Decisions(*expected)
