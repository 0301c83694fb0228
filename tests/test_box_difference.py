"""Which row is the worst, and what its difference is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd._box_difference import BoxDifference, box_difference, worse

ALL = np.ones(3, bool)
TURNED = np.float32([[50, 40, 30, 10, 0.2], [10, 10, 20, 20, -1.5], [90, 70, 40, 8, 1.55]])


def difference(px: float, image: int = 0) -> BoxDifference:
    return BoxDifference(px, image, 0, 0.0, 0.0, None)


def test_parts_are_those_of_the_worst_row_that_counts() -> None:
    other = TURNED + np.float32([[0, 0, 0, 0, 0], [2, -3, 0, 0, 0], [0, 0, 0, 0, 0.5]])
    found = box_difference(TURNED, other, ALL, 4)
    assert found is not None
    assert (found.image, found.row, found.centre_px, found.sides_px) == (4, 2, 0, 0)
    assert found.angle_rad == pytest.approx(0.5, abs=1e-6)
    found = box_difference(TURNED, other, np.array([True, True, False]), 4)
    assert found is not None
    assert (found.row, found.px, found.centre_px) == (1, 3, 3)
    assert found.described() == "image 4, row 1: centre by 3 px, sides by 0 px, angle by 0 rad"
    assert box_difference(TURNED, other, np.zeros(3, bool), 4) is None


def test_sides_are_paired_by_direction() -> None:
    other = TURNED[[0]].copy()
    other[0, [2, 3]] = 10, 32  # w and h change places with the quarter turn, and the long one is 2 px longer
    other[0, 4] += np.float32(np.pi / 2 + 0.01)
    found = box_difference(TURNED[[0]], other, ALL[:1], 0)
    assert found is not None
    assert found.sides_px == pytest.approx(2, abs=1e-5)
    assert found.angle_rad == pytest.approx(0.01, abs=1e-5)


def test_upright_boxes_have_no_angle() -> None:
    boxes, other = np.float32([[10, 10, 30, 40]]), np.float32([[10, 12, 34, 40]])
    assert box_difference(boxes, other, ALL[:1], 0) == BoxDifference(4, 0, 0, 2, 4, None)


def test_worse_is_the_larger_whichever_comes_first_and_what_is_no_number_is_the_worst() -> None:
    small, large, lost = difference(1, 0), difference(2, 1), difference(math.nan, 2)
    assert worse(small, large) is worse(large, small) is large
    assert worse(None, small) is worse(small, None) is small
    assert worse(lost, large) is worse(large, lost) is lost
    assert worse(None, None) is None
