"""Rectangles around quadrilaterals, and the long-edge rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.training.data.polygon import quads_to_xywhr, regularise

sides = st.floats(0.5, 500)
boxes = st.tuples(st.floats(-3e4, 3e4), st.floats(-3e4, 3e4), sides, sides, st.floats(-10, 10))


def corners(box: np.ndarray) -> np.ndarray:
    x, y, w, h, angle = box
    u = np.array([math.cos(angle), math.sin(angle)])
    v = np.array([-math.sin(angle), math.cos(angle)])
    return np.array([[x, y] + a * w / 2 * u + b * h / 2 * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def same_rectangle(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Each corner of one has a corner of the other: parameters of squares differ, rectangles do not."""
    distance = np.linalg.norm(corners(a)[:, None] - corners(b)[None], axis=-1)
    return bool(distance.min(axis=1).max() < tolerance and distance.min(axis=0).max() < tolerance)


@settings(deadline=None)
@given(boxes)
def test_regularise_any_box_keeps_the_rectangle_in_le90(box: tuple[float, ...]) -> None:
    ours = regularise(box)[0]
    assert ours[2] >= ours[3]
    assert -math.pi / 2 <= ours[4] < math.pi / 2
    assert np.float32(ours[4]) < np.float32(math.pi / 2)
    assert same_rectangle(np.array(box), ours, 1e-4)


@pytest.mark.parametrize("angle", [math.pi / 2, -math.pi / 2, 3 * math.pi / 2, math.pi / 2 - 1e-8])
def test_regularise_at_the_wrap_gives_minus_half_pi(angle: float) -> None:
    assert regularise([0, 0, 4, 2, angle])[0, 4] == pytest.approx(-math.pi / 2)


@settings(deadline=None)
@given(boxes, st.integers(0, 3), st.booleans())
def test_quads_of_a_rectangle_from_any_corner_give_it_back(box: tuple[float, ...], start: int, mirror: bool) -> None:
    points = np.roll(corners(np.array(box)), start, axis=0)
    found = quads_to_xywhr(points[::-1] if mirror else points)[0]
    assert same_rectangle(np.array(box), found, 1e-4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=4, max_size=4))
def test_quads_of_any_points_give_the_smallest_rectangle(points: list[tuple[float, float]]) -> None:
    quad = np.array(points)
    found = quads_to_xywhr(quad)[0]
    u = np.array([math.cos(found[4]), math.sin(found[4])])
    v = np.array([-u[1], u[0]])
    reach = np.abs((quad - found[:2]) @ np.stack([u, v], axis=1))
    assert (reach <= found[2:4] / 2 + 1e-6).all(), "a corner lies outside"
    for angle in np.linspace(0, math.pi / 2, 91):
        turned = quad @ np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        assert found[2] * found[3] <= np.prod(np.ptp(turned, axis=0)) + 1e-6


def test_quads_far_from_the_origin_keep_their_precision() -> None:
    box = np.array([20000.25, 19999.75, 31.5, 7.25, 0.3])
    assert same_rectangle(quads_to_xywhr(corners(box))[0], box, 1e-9)


def test_quads_of_one_point_have_no_area() -> None:
    assert quads_to_xywhr([[5, 6]] * 4)[0].tolist()[:4] == [5, 6, 0, 0]


def test_quads_without_rows_give_no_rows() -> None:
    assert quads_to_xywhr(np.empty((0, 4, 2))).shape == (0, 5)
