"""From a histogram of magnitudes to the largest value that int8 shall hold: four estimators.

All are symmetric: int8 holds [-t, t] in 255 steps of t / 127, and larger magnitudes are clipped to t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BINS = 2048
LEVELS = 127  # positive steps of symmetric int8
PERCENTILE = 99.99  # of the magnitudes, for "percentile"
CANDIDATES = 128  # thresholds that "mse" and "entropy" try, evenly spaced
_TINY = 1e-12


@dataclass(frozen=True)
class Histogram:
    """Magnitudes of one tensor over the calibration images.

    Attributes:
        counts: `(BINS,)` float64; bin i holds magnitudes in [i, i + 1) * largest / BINS.
        largest: magnitude that was seen, exactly.
    """

    counts: NDArray[np.float64]
    largest: float

    @property
    def centres(self) -> NDArray[np.float64]:
        """Magnitude `(BINS,)` in the middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.largest / BINS), np.float64)


def threshold(histogram: Histogram, estimator: str) -> float:
    """Return the largest magnitude that int8 shall hold, above 0.

    Args:
        histogram: of the tensor.
        estimator: one of `ESTIMATORS`.

    Raises:
        UsageError: no such estimator.
    """
    if estimator not in ESTIMATORS:
        raise UsageError(f"no range estimator {estimator!r}; possible: {', '.join(ESTIMATORS)}")
    if histogram.largest <= 0 or not histogram.counts.any():  # a tensor that is always 0
        return 1.0
    return min(max(ESTIMATORS[estimator](histogram), _TINY), histogram.largest)


def _minmax(histogram: Histogram) -> float:
    """Return the largest magnitude: nothing is clipped."""
    return histogram.largest


def _percentile(histogram: Histogram) -> float:
    """Return the magnitude that `PERCENTILE` of the values do not exceed."""
    cumulated = np.cumsum(histogram.counts)
    index = int(np.searchsorted(cumulated, cumulated[-1] * PERCENTILE / 100))
    return (min(index, BINS - 1) + 1) * histogram.largest / BINS


def _mse(histogram: Histogram) -> float:
    """Return the threshold of the least mean squared error of rounding and clipping."""
    thresholds = np.arange(1, CANDIDATES + 1) / CANDIDATES * histogram.largest
    centres, counts = histogram.centres, histogram.counts
    # Rounding within a step s costs s^2 / 12 where a bin is narrower than a step, which all candidates but the
    # smallest satisfy; it is computed from the bins' centres, so that zeros, which cost nothing, do not count.
    errors = []
    for limit in thresholds:
        step = limit / LEVELS
        held = np.minimum(np.round(centres / step), LEVELS) * step
        errors.append(float((counts * (centres - held) ** 2).sum()))
    return float(thresholds[int(np.argmin(errors))])


def _entropy(histogram: Histogram) -> float:
    """Return the threshold whose 128 levels keep the distribution best, by Kullback-Leibler divergence.

    Migacz, 8-bit inference with TensorRT, GTC 2017: clip at each candidate, merge the bins below into 128 levels,
    spread each level over its non-empty bins, compare.
    """
    counts = histogram.counts.copy()
    counts[0] = counts[1]  # zeros, of which a ReLU makes most, are exact at any scale
    width = BINS // CANDIDATES
    scores = [_divergence(counts, stop) for stop in range(LEVELS + 1, BINS + 1, width)]
    best = LEVELS + 1 + int(np.argmin(scores)) * width
    return (best + 0.5) * histogram.largest / BINS


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    """Return KL(P || Q) of clipping at bin `stop` and merging into 128 levels."""
    reference = counts[:stop].copy()
    merged = np.zeros(stop)
    levels = (np.arange(stop) * (LEVELS + 1)) // stop
    sums = np.bincount(levels, weights=counts[:stop], minlength=LEVELS + 1)
    filled = np.bincount(levels, weights=(counts[:stop] > 0).astype(np.float64), minlength=LEVELS + 1)
    occupied = counts[:stop] > 0
    merged[occupied] = sums[levels[occupied]] / filled[levels[occupied]]
    reference[-1] += counts[stop:].sum()
    if not reference.sum() or not merged.sum():
        return np.inf
    p, q = reference / reference.sum(), merged / merged.sum()
    some = p > 0
    if (q[some] <= 0).any():
        q = (q + 1e-9) / (q + 1e-9).sum()
    return float((p[some] * np.log(p[some] / q[some])).sum())


ESTIMATORS: dict[str, Callable[[Histogram], float]] = {
    "mse": _mse,
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
}
