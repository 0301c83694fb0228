"""Average precision of oriented boxes, as DOTA counts it; see `matches` for the rules of matching.

Overlaps are exact IoUs of the rectangles (the devkit's are of the annotated quadrilaterals, which a reader has turned
into rectangles here). "More than the threshold" is strict. Detections of one score enter the curve together, so
that neither their order nor that of the files matters; the devkit takes them one by one in no defined order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from .matches import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..._detections import Detections
    from ..data.sample import Dataset
    from .matches import Matches

MODES = ("voc07", "area")
"""How the curve becomes one number.

- area: all of the area under it, each precision being the best at that recall or a higher one (VOC 2010 and later).
- voc07: the mean of that at the 11 recalls 0, 0.1 .. 1 (VOC 2007; the default of DOTA's devkit). It moves in steps of
  nine points, and differs from the area by up to six: never compare across modes.
"""
THRESHOLDS = tuple(step / 20 for step in range(10, 20))  # 0.50, 0.55 .. 0.95


def average_precision(detections: Sequence[Detections], dataset: Dataset, *, mode: str = "area") -> dict[str, Any]:
    """Compare one `Detections` per sample with the samples' boxes.

    AP over IoU 0.50:0.95 takes the same mode as the others (as DOTA's own figures do), not COCO's 101 recalls: a third
    way to sample one curve would put two modes into one row.

    Args:
        detections: in the order of the samples, with the classes of `dataset`.
        dataset: of oriented or upright boxes.
        mode: one of `MODES`.

    Returns:
        "AP" (mean over IoU 0.50:0.95), "AP50", "AP75": means in [0, 1] over the classes that have objects, NaN without
        any; "mode"; "per_class" and "per_class_AP50": class name -> AP and AP50, NaN for a class without objects.

    Raises:
        UsageError: the lengths or classes differ, or there is no such mode.
    """
    check_mode(mode)
    table = np.array([_class_precisions(each, mode) for each in match(detections, dataset)])
    known = table[~np.isnan(table[:, 0])]
    mean = known.mean(axis=0) if len(known) else np.full(len(THRESHOLDS), np.nan)
    return {
        "AP": float(mean.mean()),
        "AP50": float(mean[THRESHOLDS.index(0.5)]),
        "AP75": float(mean[THRESHOLDS.index(0.75)]),
        "mode": mode,
        "per_class": dict(zip(dataset.classes, table.mean(axis=1).tolist(), strict=True)),
        "per_class_AP50": dict(zip(dataset.classes, table[:, 0].tolist(), strict=True)),
    }


def check_mode(mode: str) -> None:
    """Raise UsageError unless there is such a mode."""
    if mode not in MODES:
        raise UsageError(f"no mode {mode!r} of average precision; possible: {', '.join(MODES)}")


def _class_precisions(matches: Matches, mode: str) -> list[float]:
    return [_precision_of(matches, iou, mode) for iou in THRESHOLDS]


def _precision_of(matches: Matches, iou: float, mode: str) -> float:
    if not matches.positives:
        return float("nan")
    hits, best = curve(matches, iou)
    if mode == "area":
        return float((np.diff(hits, prepend=0) * best).sum() / matches.positives)
    # In whole numbers: 3 objects of 10 are a recall of 0.3, which three times 0.1 in floating point exceeds.
    return float(np.mean([best[10 * hits >= tenth * matches.positives].max(initial=0.0) for tenth in range(11)]))


def curve(matches: Matches, iou: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, at each distinct score from the best on, the hits so far and the best precision there or further on."""
    hits, counts = matches.judge(iou)
    scores = matches.scores[counts]
    last = np.diff(scores, append=np.float32(-np.inf)) != 0  # of the detections of one score
    true = np.cumsum(hits[counts], dtype=np.int64)[last]
    seen = np.arange(1, len(scores) + 1)[last]
    return true, np.maximum.accumulate((true / seen)[::-1])[::-1]
