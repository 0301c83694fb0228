"""Simplex noise in three dimensions (Perlin, SIGGRAPH 2002 course "Noise Hardware", in the form of Gustavson 2005)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE = 256  # the noise repeats after so many lattice points along an axis
RADIUS = 0.5  # squared, of a corner's influence: the height of a simplex, so that none reaches beyond its own simplices
SCALE = 105.0  # brings the sum of the corners to [-1, 1]
EDGES = np.array(
    [(x, y, 0) for x in (1, -1) for y in (1, -1)]
    + [(x, 0, z) for x in (1, -1) for z in (1, -1)]
    + [(0, y, z) for y in (1, -1) for z in (1, -1)]
) / np.sqrt(2)
"""The gradients: unit vectors to the middles of a cube's edges, `(12, 3)`."""


def simplex_noise(points: NDArray[np.float64], table: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the noise at points of space: continuous, zero on the lattice, with features of about one unit.

    The lattice of skewed cubes splits space into tetrahedra; a value is the sum over the four corners of the one that
    a point lies in of (1/2 - d^2)^4 times the corner's gradient times the way d from it.

    Args:
        points: `(N, 3)`.
        table: a permutation of 0 to 255, which draws the gradients.

    Returns:
        `(N,)`, in [-1, 1].
    """
    cell = np.floor(points + points.sum(1, keepdims=True) / 3)
    within = points - cell + cell.sum(1, keepdims=True) / 6
    # From the first corner along the greatest coordinate, then the next, then the last.
    ranks = np.argsort(np.argsort(-within, axis=1, kind="stable"), axis=1)
    steps = ranks[:, None, :] < np.arange(4)[:, None]  # (N, 4, 3)
    ways = within[:, None] - steps + steps.sum(2, keepdims=True) / 6
    weights = np.maximum(0, RADIUS - np.square(ways).sum(2)) ** 4
    gradients = EDGES[_drawn(cell[:, None].astype(np.int64) + steps, table)]
    noise: NDArray[np.float64] = SCALE * (weights * (gradients * ways).sum(2)).sum(1)
    return noise


def fractal_noise(
    points: NDArray[np.float64], table: NDArray[np.integer], *, octaves: int, persistence: float
) -> NDArray[np.float64]:
    """Return the sum of octaves, `(N,)`: each of twice the frequency of the one before and `persistence` its height."""
    return np.asarray(sum(persistence**each * simplex_noise(2.0**each * points, table) for each in range(octaves)))


def _drawn(lattice: NDArray[np.int64], table: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the number of the gradient at each lattice point `(..., 3)`."""
    number: NDArray[np.integer] = table[lattice[..., 2] % TABLE]
    for axis in (1, 0):
        number = table[(lattice[..., axis] + number) % TABLE]
    return number % len(EDGES)
