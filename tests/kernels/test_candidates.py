"""The compiled score filter gives the rows of the reference, and never one that is not a number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd import geometry, ops
from edgekd.errors import UsageError

pytestmark = pytest.mark.usefixtures("implementation")

# Few distinct values, so that ties and scores at the threshold are common.
values = st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.75, 1.0, -1.0, 1e-40, np.nan, np.inf, -np.inf, 3e38])
scores = hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.integers(0, 20)), elements=values.map(np.float32))


def _assert_same(scores: np.ndarray, conf: float, limit: int, classes: list[int] | None) -> None:
    before = scores.copy()
    for every in (False, True):
        found = ops.candidates(scores, conf, limit, classes, every_class=every)
        expected = geometry.candidates(scores, conf, limit, classes, every_class=every)
        for ours, reference in zip(found, expected, strict=True):
            assert ours.dtype == reference.dtype
            np.testing.assert_array_equal(ours, reference)
    np.testing.assert_array_equal(scores, before)


@settings(max_examples=200, deadline=None)
@given(scores, st.sampled_from([0.5, 0.25, 0.0, -2.0, 1.0, -np.inf, np.inf]), st.integers(1, 45), st.data())
def test_candidates_of_any_scores_equal_the_reference(scores, conf, limit, data) -> None:
    columns = st.lists(st.integers(0, scores.shape[1] - 1), max_size=4) if scores.shape[1] else st.just([])
    _assert_same(scores, conf, limit, data.draw(st.none() | columns))


@pytest.mark.parametrize("shape", [(0, 80), (1, 1), (7, 1), (8, 1), (9, 3), (8400, 1), (8400, 80), (333, 7), (100, 83)])
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_candidates_of_a_network_sized_array_equal_the_reference(shape, share) -> None:
    rng = np.random.default_rng(1)
    scores = rng.random(shape, np.float32) * np.float32(0.25)
    scores[rng.random(shape) < share] += np.float32(0.5)
    _assert_same(scores, 0.25, 300, None)


def test_every_class_of_a_row_may_be_a_candidate() -> None:
    scores = np.float32([[0.5, 0.9, 0.1], [0.5, 0.2, 0.5]])
    rows, labels, best = ops.candidates(scores, 0.3, 9, every_class=True)
    assert (rows.tolist(), labels.tolist()) == ([0, 0, 1, 1], [1, 0, 0, 2])
    assert best.tolist() == pytest.approx([0.9, 0.5, 0.5, 0.5])
    assert ops.candidates(scores, 0.3, 2, every_class=True)[1].tolist() == [1, 0]


def test_candidates_at_exactly_the_threshold_are_left_out() -> None:
    rows, _, _ = ops.candidates(
        np.array([[0.25], [np.nextafter(np.float32(0.25), np.float32(1))]], np.float32), 0.25, 9
    )
    assert rows.tolist() == [1]


def test_candidates_with_equal_scores_come_by_row_and_lowest_class() -> None:
    rows, labels, best = ops.candidates(np.full((5, 3), 0.5, np.float32), 0.1, 3)
    assert (rows.tolist(), labels.tolist(), best.tolist()) == ([0, 1, 2], [0, 0, 0], [0.5, 0.5, 0.5])


def test_candidates_that_are_not_finite_lose_to_the_next_class() -> None:
    rows, labels, best = ops.candidates(
        np.array([[np.nan, 0.5, np.inf], [np.nan, np.inf, -np.inf]], np.float32), 0.1, 9
    )
    assert (rows.tolist(), labels.tolist(), best.tolist()) == ([0], [1], [0.5])


def test_candidates_of_no_class_are_none() -> None:
    assert len(ops.candidates(np.ones((5, 3), np.float32), 0.1, 9, [])[0]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(3, np.float32), 0.5, 9), r"\(3,\)"),
        ((np.zeros((3, 2), np.float32), 0.5, 0), "got 0"),
        ((np.zeros((3, 2), np.float32), float("nan"), 9), "NaN"),
        ((np.zeros((3, 2), np.float32), 0.5, 9, [2]), "no class 2; possible: 0 to 1"),
        ((np.zeros((3, 2), np.float32), 0.5, 9, [-1]), "no class -1"),
    ],
)
def test_candidates_with_a_wrong_argument_say_what_they_got(arguments, message) -> None:
    for function in (ops.candidates, geometry.candidates):
        with pytest.raises(UsageError, match=message):
            function(*arguments)
