"""Pseudo-anomalies of RD++: simplex noise in a random box of a normal image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .simplex import TABLE, fractal_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRENGTH = 0.2  # of pixels in [0, 1]
OCTAVES = 6
PERSISTENCE = 0.6
LEAST, MOST = 10 / 256, 1 / 8
"""Sides of the box, as shares of the image's: 10 to 32 pixels of 256, as published, whatever the input's size."""
COARSEST = 1 / 8
"""Size of the first octave's features, as a share of the image's height."""


def pseudo_anomalies(count: int, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return what turns normal images into pseudo-anomalous ones when added (RD++, Tien et al., CVPR 2023).

    Colours are neighbouring slices of one noise in three dimensions: alike where it is coarse, apart where it is fine.

    Args:
        count: of images.
        height: of each, in pixels.
        width: likewise.
        rng: draws boxes and noise.

    Returns:
        `(count, 3, height, width)` float32, for pixels in [0, 1]; zero but in one box an image.
    """
    added = np.zeros((count, 3, height, width), np.float32)
    for image in added:
        rows, columns = (_span(side, rng) for side in (height, width))
        table = rng.permutation(TABLE)
        grid = np.meshgrid(np.arange(3.0), np.arange(len(rows)), np.arange(len(columns)), indexing="ij")
        points = np.stack(grid, axis=-1).reshape(-1, 3) / (COARSEST * height)
        noise = fractal_noise(points, table, octaves=OCTAVES, persistence=PERSISTENCE)
        image[:, rows.start : rows.stop, columns.start : columns.stop] = STRENGTH * noise.reshape(grid[0].shape)
    return added


def _span(side: int, rng: np.random.Generator) -> range:
    """Return the rows, or columns, of a box."""
    least = max(1, round(LEAST * side))
    length = int(rng.integers(least, max(least + 1, int(MOST * side))))
    start = int(rng.integers(0, side - length + 1))
    return range(start, start + length)
