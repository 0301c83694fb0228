"""Random fields that more than one generator draws on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def fbm(
    rng: np.random.Generator, height: int, width: int, *, cells: float = 4.0, octaves: int = 5, gain: float = 0.5
) -> Field:
    """Return fractional Brownian motion `(height, width)` float32 of mean 0 and standard deviation 1.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        cells: lattice cells along the longer side in the first octave; each further octave has twice as many.
        octaves: number of octaves.
        gain: amplitude of an octave relative to the one before.
    """
    total = np.zeros((height, width), np.float32)
    side = max(height, width)
    for octave in range(octaves):
        step = side / (cells * 2**octave)
        if step < 1:
            break
        rows, columns = int(height / step) + 3, int(width / step) + 3
        lattice = rng.standard_normal((rows, columns), dtype=np.float32)
        # A random phase, so that lattice lines of the octaves do not coincide.
        dx, dy = rng.uniform(0, 1, 2)
        matrix = np.array([[1 / step, 0, dx + 0.5], [0, 1 / step, dy + 0.5]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        layer = cv2.warpAffine(lattice, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        total += np.float32(gain**octave) * layer
    total -= total.mean()
    return total / max(float(total.std()), 1e-6)
