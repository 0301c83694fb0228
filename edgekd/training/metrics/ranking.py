"""`Ranking`: how well scores tell anomalous items (images or pixels) from normal ones. Exact: nothing is binned.

Between two scores of anomalous items a falling threshold only adds false alarms, so every figure is decided at the
scores of anomalous items. Those are few among pixels: the many normal ones are sorted and counted, never indexed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

NAN = float("nan")


class BestF1(NamedTuple):
    """The greatest F1 over all thresholds.

    Attributes:
        value: in [0, 1].
        threshold: an item is called anomalous if it scores at least this. Chosen with the truth in hand: an oracle, to
            be reported and never deployed.
    """

    value: float
    threshold: float


class Ranking:
    """Scores of anomalous and of normal items, where a higher one means more anomalous.

    Args:
        anomalous: `(P,)` scores; integers, floats or infinities, no NaN.
        normal: `(N,)` scores, likewise.
        weights: `(P,)` of the anomalous items, for `covered`; None: each 1 / P.

    Attributes:
        scores: `(K,)` the distinct scores of anomalous items, descending.
        hits: `(K,)` int64, anomalous items that score at least this.
        covered: `(K,)` float64, the sum of their weights.
        above: `(K,)` int64, normal items that score more.
        reached: `(K,)` int64, normal items that score at least this.
        positives: P.
        negatives: N.

    Raises:
        UsageError: a score is NaN, or shapes are wrong.
    """

    def __init__(self, anomalous: ArrayLike, normal: ArrayLike, weights: ArrayLike | None = None) -> None:
        first, second = _scores(anomalous, "anomalous"), np.sort(_scores(normal, "normal"))
        self.positives, self.negatives = len(first), len(second)
        shares = np.full(len(first), 1 / max(1, len(first))) if weights is None else np.asarray(weights, np.float64)
        if shares.shape != first.shape:
            raise UsageError(f"weights: expected one of each of {len(first)} anomalous scores, got {shares.shape}")
        order = np.argsort(-first, kind="stable")
        first, shares = first[order], shares[order]
        last = np.ones(len(first), np.bool_)  # of each run of equal scores
        last[:-1] = first[1:] != first[:-1]
        self.scores = first[last]
        self.hits: NDArray[np.int64] = np.flatnonzero(last).astype(np.int64) + 1
        self.covered: NDArray[np.float64] = np.cumsum(shares)[last]
        self.above: NDArray[np.int64] = len(second) - np.searchsorted(second, self.scores, side="right")
        self.reached: NDArray[np.int64] = len(second) - np.searchsorted(second, self.scores, side="left")

    def auroc(self) -> float:
        """Return the share of pairs of an anomalous and a normal item in which the anomalous one scores more.

        Pairs of one score count half: the area under the ROC curve, or Mann and Whitney's U over P N (midranks). NaN
        where one of the two kinds is missing.
        """
        if not self.positives or not self.negatives:
            return NAN
        twice = np.diff(self.hits, prepend=0) * (2 * self.negatives - self.above - self.reached)  # whole numbers
        return int(twice.sum()) / (2 * self.positives * self.negatives)

    def average_precision(self) -> float:
        """Return the sum over thresholds of precision times the recall gained there; items of one score come together.

        NaN without an anomalous item.
        """
        if not self.positives:
            return NAN
        precision = self.hits / (self.hits + self.reached)
        return float((np.diff(self.hits, prepend=0) * precision).sum() / self.positives)

    def best_f1(self) -> BestF1:
        """Return the greatest 2 P R / (P + R) over all thresholds; of equals the highest threshold. NaN as above."""
        if not self.positives:
            return BestF1(NAN, NAN)
        f1 = 2 * self.hits / (self.hits + self.reached + self.positives)
        best = int(f1.argmax())
        return BestF1(float(f1[best]), float(self.scores[best]))

    def partial_area(self, limit: float) -> float:
        """Return the area under `covered` over the false-positive rate from 0 to `limit`, divided by `limit`.

        Equal scores are one straight segment, and the curve is cut at the limit by interpolation. NaN where one of the
        two kinds is missing.

        Raises:
            UsageError: the limit is not in (0, 1].
        """
        if not 0 < limit <= 1:
            raise UsageError(f"the limit of the false-positive rate should be above 0 and at most 1, got {limit}")
        if not self.positives or not self.negatives:
            return NAN
        rate = np.stack([self.above, self.reached], axis=1).ravel() / self.negatives
        share = np.stack([np.append(0.0, self.covered[:-1]), self.covered], axis=1).ravel()
        rate, share = np.concatenate([[0.0], rate, [1.0]]), np.concatenate([[0.0], share, self.covered[-1:]])
        end = int(np.searchsorted(rate, limit, side="right"))  # the first vertex beyond the limit
        if end < len(rate):
            part = (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
            share[end] = share[end - 1] + part * (share[end] - share[end - 1])
            rate[end] = limit
        rate, share = rate[: end + 1], share[: end + 1]
        return float((np.diff(rate) * (share[1:] + share[:-1])).sum() / (2 * limit))


def _scores(values: ArrayLike, which: str) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise UsageError(f"{which} scores: expected shape (N,), got {array.shape}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if np.isnan(array).any():
        raise UsageError(f"{int(np.isnan(array).sum())} of {len(array)} {which} scores are NaN: they have no rank")
    return array
