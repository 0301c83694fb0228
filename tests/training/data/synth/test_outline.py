"""Outlines that the generators draw with."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.training.data.synth.attenuation import COEFFICIENTS, EXTINCTION, Part, cast_shadow, colours, coverage
from edgekd.training.data.synth.outline import blob, curve, ellipse, hull, move, rectangle, stroke
from edgekd.training.data.synth.textures import fbm


def area(outline: np.ndarray) -> float:
    x, y = outline.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def test_rectangle_when_turned_clockwise_then_its_long_axis_points_down_right() -> None:
    outline = rectangle(10, 20, 8, 2, angle=np.pi / 4)
    tip = outline[np.argmax(outline.sum(1))]
    np.testing.assert_allclose(tip, np.array([10, 20]) + np.array([1, 1]) * np.sqrt(0.5) * 4, atol=1.01)
    assert area(outline) == pytest.approx(16)
    np.testing.assert_allclose(outline.mean(0), [10, 20])


def test_rectangle_when_rounded_then_it_still_touches_its_four_sides() -> None:
    outline = rectangle(0, 0, 6, 4, corner=1.0)
    np.testing.assert_allclose(np.abs(outline).max(0), [3, 2])
    assert area(outline) == pytest.approx(24 - (4 - np.pi), abs=0.1)


def test_stroke_when_straight_then_it_is_a_rectangle() -> None:
    assert area(stroke(np.array([[0.0, 0], [1, 0], [5, 0]]), 2.0)) == pytest.approx(10)


def test_curve_when_drawn_then_it_passes_through_its_ends() -> None:
    control = [(0, 0), (1, 2), (3, 1)]
    path = curve(control, 21)
    np.testing.assert_allclose(path[[0, 10, 20]], control, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_coverage_when_the_polygon_lies_between_pixels_then_the_sum_is_its_area(shift: float) -> None:
    outline = ellipse(20 + shift, 18, 9, 7, angle=0.4, count=60)
    assert float(coverage(outline, 40, 40).sum()) == pytest.approx(area(outline), rel=0.06)


def test_coverage_when_aligned_with_pixels_then_exactly_these_are_covered() -> None:
    mask = coverage(rectangle(8, 6, 8, 4), 12, 16) >= 0.5
    assert hull(mask) == (4.0, 4.0, 12.0, 8.0)
    assert mask.sum() == 32


def test_hull_when_nothing_is_true_then_none() -> None:
    assert hull(np.zeros((3, 3), bool)) is None


def test_blob_when_drawn_then_it_surrounds_its_origin() -> None:
    outline = blob(np.random.default_rng(0), 5.0, 0.6)
    assert np.linalg.norm(outline, axis=1).min() >= 1.2


def test_fbm_when_drawn_then_mean_is_0_deviation_1_and_neighbours_agree() -> None:
    field = fbm(np.random.default_rng(0), 96, 128, cells=4)
    assert field.shape == (96, 128)
    assert abs(float(field.mean())) < 1e-4
    assert float(field.std()) == pytest.approx(1, abs=1e-4)
    assert float(np.abs(np.diff(field, axis=0)).mean()) < 0.2


def shadow(*parts: Part) -> np.ndarray:
    drawn = cast_shadow(list(parts), 64, 64)
    assert drawn is not None
    whole = np.zeros((2, 64, 64), np.float32)
    whole[(slice(None), *drawn.window())] += drawn.attenuation
    return whole


def test_cast_shadow_when_parts_overlap_then_transmissions_multiply() -> None:
    plate, rod = Part(rectangle(32, 32, 30, 30), "metal", 0.3), Part(rectangle(32, 32, 10, 40), "organic", 2.0)
    both = shadow(plate, rod)
    np.testing.assert_allclose(np.exp(-both), np.exp(-shadow(plate)) * np.exp(-shadow(rod)), rtol=1e-5)
    expected = 0.3 * COEFFICIENTS["metal"][1] + 2.0 * COEFFICIENTS["organic"][1]
    assert both[1, 32, 32] == pytest.approx(expected, rel=1e-5)


def test_cast_shadow_when_a_part_cuts_then_there_is_a_hole_in_shadow_and_footprint() -> None:
    drawn = cast_shadow([Part(rectangle(20, 20, 20, 20)), Part(rectangle(20, 20, 6, 6), cut=True)], 40, 40)
    assert drawn is not None
    assert drawn.attenuation[:, 20 - drawn.top, 20 - drawn.left].max() == 0
    inner = drawn.footprint[18 - drawn.top : 22 - drawn.top, 18 - drawn.left : 22 - drawn.left]
    assert not inner.any()
    assert 330 < drawn.footprint.sum() < 450


def test_cast_shadow_when_outside_then_none() -> None:
    assert cast_shadow([Part(move(rectangle(0, 0, 4, 4), shift=(-20.0, 5.0)))], 32, 32) is None


@pytest.mark.parametrize(
    ("profile", "middle", "rim"), [("plate", 1.0, 1.0), ("round", 1.0, 0.6), ("shell", 0.22, 0.75)]
)
def test_cast_shadow_when_profiled_then_middle_and_rim_differ_as_in_the_solid(
    profile: str, middle: float, rim: float
) -> None:
    drawn = shadow(Part(rectangle(32, 32, 50, 41), "metal", 1.0, profile))[1] / COEFFICIENTS["metal"][1]
    assert drawn[32, 32] == pytest.approx(middle, abs=0.05)
    assert drawn[13, 32] == pytest.approx(rim, abs=0.2)


def shade(material: str, thickness: float) -> np.ndarray:
    attenuation = np.full((2, 16, 16), thickness, np.float32)
    attenuation *= np.array(COEFFICIENTS[material], np.float32)[:, None, None]
    return colours(attenuation, EXTINCTION, 1.0)[8, 8].astype(int)


def test_colours_when_materials_differ_then_hues_are_those_of_a_scanner() -> None:
    red, green, blue = shade("organic", 5.0)
    assert red > green > blue  # orange
    red, green, blue = shade("inorganic", 1.2)
    assert green > red
    assert green > blue
    red, green, blue = shade("metal", 0.25)
    assert blue > green > red
    assert shade("metal", 2.0).max() < 60
    assert shade("organic", 0.0).min() == 255
