"""Figures of raw samples. Nothing is thrown away: the slowest call is what a user waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


class Figures(NamedTuple):
    """Of one stage, ms. `mad`: median distance from the median. `jitter`: mean change from one call to the next."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    mad: float
    jitter: float


def figures(samples: Sequence[float]) -> Figures:
    """Return the figures of at least one sample, in its unit; percentiles are interpolated between samples."""
    values = np.asarray(samples, np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    jitter = np.abs(np.diff(values)).mean() if len(values) > 1 else 0.0
    mad = np.median(np.abs(values - p50))
    return Figures(*(float(item) for item in (values.mean(), p50, p90, p99, values.max(), mad, jitter)))


class Change(NamedTuple):
    """How a percentile moved: before and after in ms, and the 95 % interval of after / before - 1."""

    before: float
    after: float
    low: float
    high: float


def change(before: Sequence[float], after: Sequence[float], percentile: float) -> Change:
    """Compare a percentile of two runs by the bootstrap.

    Latencies of neighbouring calls are alike, so blocks of them are drawn, of the square root of the number of samples.
    The generator is seeded: the same files give the same interval.
    """
    rng = np.random.default_rng(0)
    pair = [np.asarray(samples, np.float64) for samples in (before, after)]
    drawn = [np.percentile(_resampled(samples, rng), percentile, axis=1) for samples in pair]
    low, high = np.percentile(drawn[1] / drawn[0] - 1, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    old, new = (float(np.percentile(samples, percentile)) for samples in pair)
    return Change(old, new, float(low), float(high))


def interval(samples: Sequence[float], figure: str) -> tuple[float, float] | None:
    """Return the 95 % interval of "mean", "p50", "p90" or "p99" by the same bootstrap; None of "max", which has none.

    Of p99 it means little below a few hundred samples: the slowest calls are then hardly sampled.
    """
    if figure == "max":
        return None
    drawn = _resampled(np.asarray(samples, np.float64), np.random.default_rng(0))
    found = drawn.mean(axis=1) if figure == "mean" else np.percentile(drawn, float(figure[1:]), axis=1)
    low, high = np.percentile(found, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _resampled(samples: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return `(RESAMPLES, about N)`: rows of random blocks, which wrap around at the end."""
    block = max(1, round(len(samples) ** 0.5))
    count = -(-len(samples) // block)
    starts = rng.integers(0, len(samples), (RESAMPLES, count, 1))
    picked: NDArray[np.float64] = samples[(starts + np.arange(block)) % len(samples)]
    return picked.reshape(RESAMPLES, -1)
