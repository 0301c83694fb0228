"""Rows in another order: put back exactly, and what is not there differs still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd._int8.rows import aligned

if TYPE_CHECKING:
    from edgekd._session import Outputs


def apart(count: int, columns: int, seed: int) -> Outputs:
    """Return boxes on a grid, so that none overlaps another, and scores of three classes."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(400)[:count]
    corner = np.stack([places % 20, places // 20], axis=1) * 20.0
    if columns == 4:
        boxes = np.concatenate([corner, corner + rng.uniform(4, 15, (count, 2))], axis=1)
    else:
        sides = np.sort(rng.uniform(4, 12, (count, 2)))[:, ::-1]
        boxes = np.concatenate([corner, sides, rng.uniform(-1.5, 1.5, (count, 1))], axis=1)
    return boxes[None].astype(np.float32), rng.random((1, count, 3), np.float32)


@given(st.integers(1, 40), st.sampled_from([4, 5]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_any_order_is_put_back(count: int, columns: int, seed: int) -> None:
    first = apart(count, columns, seed)
    order = np.random.default_rng(seed).permutation(count)
    moved = tuple(item[:, order] + np.float32(1e-3) for item in first)
    for one, other in zip(first, aligned(first, moved), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_boxes_that_coincide_are_told_apart_by_their_class() -> None:
    boxes = np.tile(np.array([[10, 10, 30, 30]], np.float32), (2, 1))[None]
    scores = np.array([[[0.9, 0.1], [0.1, 0.8]]], np.float32)
    found = aligned((boxes, scores), (boxes, scores[:, ::-1]))
    np.testing.assert_array_equal(found[1], scores)


@pytest.mark.parametrize("columns", [4, 5])
def test_row_that_is_not_there_differs_and_costs_no_other(columns: int) -> None:
    first = apart(6, columns, 1)
    boxes = first[0].copy()
    boxes[0, 3, :2] += 1000
    boxes[0, 3, 2:4] += 1000 if columns == 4 else 0
    found = aligned(first, (boxes[:, ::-1], first[1][:, ::-1]))
    same = (np.abs(found[0] - first[0]).max(axis=2) < 1e-6)[0]
    assert same.tolist() == [True, True, True, False, True, True]


def test_values_that_are_not_finite_keep_every_row() -> None:
    first = apart(5, 4, 2)
    other = (np.full_like(first[0], np.nan), first[1])
    found = aligned(first, other)
    assert found[1].shape == first[1].shape
    np.testing.assert_array_equal(np.sort(found[1].reshape(5, 3), axis=0), np.sort(first[1].reshape(5, 3), axis=0))
