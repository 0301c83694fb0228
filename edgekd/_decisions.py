"""Whether two runs of one network decide the same: which rows survive suppression, and as which class.

Row `i` of one run is row `i` of the other, so keep-lists are compared by row, not by matching boxes. A row that only
one run keeps, or that they keep as different classes, is a difference. It is *borderline*, and forgiven, if its scores
differ by at most the tolerance `t` and errors of that size explain it:

1. threshold: where it is kept, it scores at most `conf + t`;
2. class: its best class is another one in the other run (so the two lie within `2 t`);
3. suppression: a box that suppresses it in the other run scores within `2 t` of it (they may swap), or overlaps it by
   at most `iou` in the run that keeps it (the overlap straddles the threshold), or is itself a borderline difference;
4. limit: the other run is full (`max_det`, `max_candidates`), and it scores at most `2 t` above the last that got in.

So two runs whose scores differ by at most `t` never have a difference that is not forgiven: take the differing row of
the highest score; what suppressed it in the other run is either kept by both (3: straddles) or differs too and scores
within `2 t` (3: swaps); the other rows follow by induction.

An anomaly network decides about images: a verdict that differs is borderline if the scores differ by at most `t`, since
then both lie within `t` of the threshold between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import ops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._manifest import Suppression


@dataclass(frozen=True)
class Decisions:
    """How two keep-lists compare, in rows; or two verdicts of an anomaly network, in images.

    Attributes:
        reference: rows that the reference keeps; or all images.
        same: rows that both keep, as the same class; or images with the same verdict.
        borderline: differences that the tolerance explains.
        different: differences that it does not explain.
    """

    reference: int
    same: int
    borderline: int
    different: int

    def __add__(self, other: Decisions) -> Decisions:
        return Decisions(
            self.reference + other.reference,
            self.same + other.same,
            self.borderline + other.borderline,
            self.different + other.different,
        )


class _Run:
    """One run's outputs `(N, 4|5)`, `(N, C)` and what survives of them."""

    def __init__(self, boxes: NDArray[np.float32], scores: NDArray[np.float32], predict: Suppression) -> None:
        self.boxes = boxes
        self.scores = scores
        nms = ops.nms_rotated if boxes.shape[1] == 5 else ops.nms
        rows, labels, best = ops.candidates(scores, predict.conf, predict.max_candidates)
        keep = nms(boxes[rows], best, predict.iou, labels)[: predict.max_det]
        self.labels = dict(zip(rows[keep].tolist(), labels[keep].tolist(), strict=True))  # row -> class, kept rows only
        full = keep if len(keep) == predict.max_det else np.arange(len(rows))
        cut = len(keep) == predict.max_det or len(rows) == predict.max_candidates
        self.last = float(best[full].min()) if cut and len(full) else -np.inf  # what a row had to beat

    def score(self, row: int, label: int) -> float:
        return float(self.scores[row, label])

    def overlaps(self, row: int, others: list[int]) -> NDArray[np.float32]:
        """Return `(M,)` intersection over union of one row's box with others'."""
        first, second = self.boxes[[row]], self.boxes[others]
        table = ops.iou_rotated(first, second) if self.boxes.shape[1] == 5 else ops.iou(first, second)
        overlaps: NDArray[np.float32] = table[0].astype(np.float32, copy=False)
        return overlaps


def compare(
    reference: tuple[NDArray[np.float32], NDArray[np.float32]],
    other: tuple[NDArray[np.float32], NDArray[np.float32]],
    predict: Suppression,
    tolerance: float,
) -> Decisions:
    """Compare what two runs on one image decide.

    Args:
        reference: boxes `(N, 4)` xyxy or `(N, 5)` xywhr, and scores `(N, C)`.
        other: the same of the other run.
        predict: thresholds.
        tolerance: `t` above, in score.
    """
    first, second = _Run(*reference, predict), _Run(*other, predict)
    rows = first.labels.keys() | second.labels.keys()
    open_rows = {row for row in rows if first.labels.get(row) != second.labels.get(row)}
    same = len(rows) - len(open_rows)
    borderline: set[int] = set()
    while True:  # rule 3 may rest on another row's verdict
        found = {row for row in open_rows if _forgiven(row, first, second, borderline, predict, tolerance)}
        if not found:
            return Decisions(len(first.labels), same, len(borderline), len(open_rows))
        borderline |= found
        open_rows -= found


def compare_verdicts(reference: float, other: float, threshold: float, tolerance: float) -> Decisions:
    """Compare what two runs of an anomaly network decide about one image.

    Args:
        reference: its score.
        other: the score of the other run; NaN differs from everything.
        threshold: anomalous above.
        tolerance: `t` above, in score.
    """
    if not np.isnan(other) and (reference > threshold) == (other > threshold):
        return Decisions(1, 1, 0, 0)
    forgiven = abs(reference - other) <= tolerance
    return Decisions(1, 0, int(forgiven), int(not forgiven))


def _forgiven(
    row: int, first: _Run, second: _Run, borderline: set[int], predict: Suppression, tolerance: float
) -> bool:
    keeps, loses = (first, second) if row in first.labels else (second, first)
    label, other = keeps.labels[row], int(loses.scores[row].argmax())
    score = keeps.score(row, label)
    if not np.abs(keeps.scores[row].astype(np.float64) - loses.scores[row]).max() <= tolerance:
        return False
    if other != label or score <= predict.conf + tolerance or score <= loses.last + 2 * tolerance:
        return True
    rivals = [item for item, kept_as in loses.labels.items() if kept_as == label]
    if not rivals:
        return False
    beaten = loses.overlaps(row, rivals) > predict.iou
    straddles = keeps.overlaps(row, rivals) <= predict.iou
    return any(
        straddles[index] or rival in borderline or abs(score - keeps.score(rival, label)) <= 2 * tolerance
        for index, rival in enumerate(rivals)
        if beaten[index]
    )
