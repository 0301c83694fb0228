"""Simplex noise, beside a sum over the whole neighbourhood; and the pseudo-anomalies made of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekd.training.anomaly.pseudo_anomaly import pseudo_anomalies
from edgekd.training.anomaly.simplex import EDGES, fractal_noise, simplex_noise

TABLE = np.random.default_rng(0).permutation(256)


def brute(point: np.ndarray) -> float:
    """Sum over all lattice points near enough, found by trying: nothing is known of cells, ranks or corners."""
    total = 0.0
    around = np.round(point + point.sum() / 3).astype(int)
    for step in itertools.product(range(-3, 4), repeat=3):
        lattice = around + step
        way = point - (lattice - lattice.sum() / 6)
        weight = 0.5 - way @ way
        if weight > 0:
            x, y, z = (lattice % 256).tolist()
            drawn = TABLE[(x + TABLE[(y + TABLE[z]) % 256]) % 256] % 12
            total += 105 * weight**4 * float(EDGES[drawn] @ way)
    return total


def test_noise_is_the_sum_over_every_lattice_point_within_reach() -> None:
    points = np.random.default_rng(1).uniform(-300, 300, (300, 3))
    np.testing.assert_allclose(simplex_noise(points, TABLE), [brute(point) for point in points], atol=1e-10)


def test_noise_is_zero_on_the_lattice_and_fills_its_range() -> None:
    lattice = np.random.default_rng(2).integers(-20, 20, (100, 3))
    np.testing.assert_allclose(simplex_noise(lattice - lattice.sum(1, keepdims=True) / 6, TABLE), 0, atol=1e-12)
    drawn = simplex_noise(np.random.default_rng(3).uniform(0, 256, (100_000, 3)), TABLE)
    assert 0.9 < np.abs(drawn).max() <= 1
    assert abs(drawn.mean()) < 0.01


def test_noise_has_no_jump_where_simplices_meet() -> None:
    line = np.linspace(0, 9, 90_001)[:, None] * np.array([1.0, 0.7, 0.3]) + 0.123
    values = simplex_noise(line, TABLE)
    assert np.abs(np.diff(values)).max() < 1e-3
    assert np.abs(np.diff(values)).max() > 1e-5


def test_octaves_double_the_frequency_and_shrink() -> None:
    points = np.random.default_rng(4).uniform(0, 9, (50, 3))
    expected = simplex_noise(points, TABLE) + 0.6 * simplex_noise(2 * points, TABLE)
    np.testing.assert_allclose(fractal_noise(points, TABLE, octaves=2, persistence=0.6), expected)


@pytest.mark.parametrize(("height", "width", "sides"), [(256, 256, (10, 32)), (64, 128, (2, 16)), (32, 32, (1, 4))])
def test_pseudo_anomaly_is_one_box_an_image_and_its_own(height: int, width: int, sides: tuple[int, int]) -> None:
    added = pseudo_anomalies(40, height, width, np.random.default_rng(5))
    assert added.dtype == np.float32
    assert added.shape == (40, 3, height, width)
    boxes = []
    for image in added:
        rows, columns = (np.flatnonzero((image != 0).any(axis=(0, axis))) for axis in (2, 1))
        assert sides[0] <= max(len(rows), len(columns))
        assert max(len(rows), len(columns)) < max(sides[1], 2)
        assert len(rows) == np.ptp(rows) + 1
        assert len(columns) == np.ptp(columns) + 1
        boxes.append((rows[0], columns[0], len(rows), len(columns)))
    assert len(set(boxes)) > 20
    assert 0.05 < np.abs(added).max() <= 0.2 * 2.4
    again = pseudo_anomalies(40, height, width, np.random.default_rng(5))
    np.testing.assert_array_equal(added, again)


def test_colours_are_alike_and_not_the_same() -> None:
    image = pseudo_anomalies(1, 256, 256, np.random.default_rng(6))[0]
    inside = image[:, (image != 0).any(axis=0)]
    assert 0.3 < np.corrcoef(inside)[0, 1] < 0.999
