"""Calibration: run the images through the float LiteRT model and find the range that int8 shall hold of each tensor."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgekd.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

BINS = 8192
LEVELS = 255  # steps of asymmetric int8
SAMPLED = 1 << 15  # values of a tensor and image that enter its histogram; the extremes are taken over all
CANDIDATES = 128  # largest magnitudes that are tried, evenly spaced

Range = tuple[float, float]


@dataclass
class Histogram:
    """Values of one tensor over the images seen so far.

    Attributes:
        low: smallest value, exactly.
        high: largest value, exactly.
        limit: the bins divide [-limit, limit) evenly.
        counts: `(BINS,)` float64.
    """

    low: float = 0.0
    high: float = 0.0
    limit: float = 2.0**-20
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape; the range doubles, bins in pairs, until it holds them.

        Raises:
            ValueError: a value is not finite.
        """
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("a tensor is not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-self.low, self.high) >= self.limit:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, BINS // 4)
            self.limit *= 2
        flat = values.reshape(-1)
        flat = flat[:: max(1, flat.size // SAMPLED)]
        bins = ((flat + np.float32(self.limit)) * np.float32(BINS / 2 / self.limit)).astype(np.int64)
        self.counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)

    def best(self) -> Range:
        """Return the range, with 0 in it, of the least mean squared error of rounding and clipping."""
        centres = np.asarray((np.arange(BINS) + 0.5) * (2 * self.limit / BINS) - self.limit, np.float64)
        seen = self.counts > 0
        centres, counts = centres[seen], self.counts[seen]
        limits = np.arange(CANDIDATES, 0, -1) / CANDIDATES * max(-self.low, self.high)
        ranges = [(max(self.low, -limit), min(self.high, limit)) for limit in limits]
        errors = [_error(centres, counts, low, high) for low, high in ranges]
        low, high = ranges[int(np.argmin(errors))]
        return float(low), float(high)


def _error(centres: NDArray[np.float64], counts: NDArray[np.float64], low: float, high: float) -> float:
    step = (high - low) / LEVELS
    if step <= 0:  # always 0
        return 0.0
    # Within a step, rounding costs step^2 / 12 however the values lie; bins may be as wide as a step.
    outside = np.maximum(centres - high, 0) + np.maximum(low - centres, 0)
    held = counts * (np.abs(centres) > step / 2)  # zeros are exact
    return float(held.sum() * step**2 / 12 + (counts * outside**2).sum())


def measure(model: bytes, images: NDArray[np.float32], tensors: Collection[int]) -> dict[int, Range]:
    """Return the range of each tensor over the images.

    Args:
        model: float LiteRT model of batch 1.
        images: `(K, 3, H, W)` float32, K >= 1, as the network sees them.
        tensors: indices in the main subgraph.

    Raises:
        BuildError: LiteRT cannot run the model, or a tensor is not finite.
    """
    found = {tensor: Histogram() for tensor in tensors}
    row = 0
    try:
        interpreter = Interpreter(
            model_content=model, num_threads=os.cpu_count(), experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
        (index,) = (item["index"] for item in interpreter.get_input_details())
        for row in range(len(images)):
            interpreter.set_tensor(index, images[row : row + 1])
            interpreter.invoke()
            for tensor, histogram in found.items():
                histogram.add(interpreter.get_tensor(tensor))
    except (RuntimeError, ValueError) as error:
        raise BuildError(f"calibration image {row}: {error}; the float model does not compute there") from error
    return {tensor: histogram.best() for tensor, histogram in found.items()}
