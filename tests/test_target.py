"""What targets share when they compare one graph with another."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd._target import relative_error

BOXES = np.float32([[[40, 50, 30, 10, 1.57], [400, 300, 20, 20, -0.7]]])


def test_rectangles_written_another_way_are_no_error() -> None:
    other = np.float32([[[40, 50, 30, 10, 1.57 - np.pi], [400, 300, 20, 20, -0.7 + np.pi / 2]]])
    assert np.abs(other - BOXES).max() > 3
    assert relative_error(BOXES, other, "xywhr") < 1e-6
    assert relative_error(BOXES, other, None) == pytest.approx(np.pi / 400)


def test_turned_rectangle_is_an_error_by_its_corners() -> None:
    other = BOXES.copy()
    other[0, 0, 4] += 0.2  # a corner 15.8 px away goes about 3 px, and 0.2 of 400 would be nothing
    assert 2 / 400 < relative_error(BOXES, other, "xywhr") < 3.2 / 400


@pytest.mark.parametrize("layout", ["xyxy", "xywhr", None])
def test_error_is_relative_to_the_largest_value_but_at_least_one(layout: str | None) -> None:
    columns = {"xyxy": 4, "xywhr": 5, None: 3}[layout]
    small = np.full((2, 7, columns), 0.25, np.float32)
    moved = small.copy()
    moved[1, 3, 0] += 0.5
    assert relative_error(small, moved, layout) == pytest.approx(0.5)
    assert relative_error(100 * small, 100 * moved, layout) == pytest.approx(2.0)
    moved[0, 0, 1] = np.nan
    assert np.isnan(relative_error(small, moved, layout))
