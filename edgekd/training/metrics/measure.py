"""`measure`: the figures of a detector on a set, by the metric that fits its boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import UsageError
from . import coco, oriented
from .background import background_false_positives, background_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._detections import Detections
    from ..data.sample import Dataset


class Limits(NamedTuple):
    """What is left of a detector's output before it is measured."""

    conf: float
    iou: float
    max_det: int


# Average precision integrates over all scores: a higher threshold would cut the curve off.
UPRIGHT = Limits(0.001, 0.6, 300)
ORIENTED = Limits(0.001, 0.1, 2000)  # as DOTA is evaluated: neighbours touch, they do not overlap

CONFIDENCE = 0.25  # of the false positives on background: what `predict` is often asked for


def check(mode: str | None, dataset: Dataset, *, oriented_boxes: bool = True) -> None:
    """Raise UsageError unless the mode is None, or one for boxes of that kind on that set."""
    if mode is None:
        return
    oriented.check_mode(mode)
    if dataset.task != "obb" or not oriented_boxes:
        raise UsageError(f"mode {mode!r} is for oriented boxes on an oriented set; others are measured as COCO does")


def limits(dataset: Dataset, *, oriented_boxes: bool) -> Limits:
    """Return what a detector's output on a set should be cut down to for `measure`."""
    return ORIENTED if oriented_boxes and dataset.task == "obb" else UPRIGHT


def measure(detections: Sequence[Detections], dataset: Dataset, *, mode: str | None = None) -> dict[str, Any]:
    """Return average precision: of rotated boxes on an oriented set by DOTA's rules, of everything else by COCO's.

    Upright boxes on an oriented set, or rotated ones on an upright set, are compared by their hulls, as before.

    Args:
        detections: one per sample.
        dataset: the annotated objects.
        mode: of the oriented metric, "voc07" or "area"; None: "area". COCO's has one way only.

    Returns:
        What `oriented.average_precision` or `coco.average_precision` returns. Where an oriented set has images without
        objects, also "background": {"images", "confidence", "false_positives" per such image at that confidence}.

    Raises:
        UsageError: the lengths differ, or a mode is given that there is not, or that COCO's metric does not have.
    """
    rotated = all(found.oriented for found in detections)
    check(mode, dataset, oriented_boxes=rotated)
    if dataset.task != "obb" or not rotated:
        return coco.average_precision(detections, dataset)
    figures = oriented.average_precision(detections, dataset, mode=mode or "area")
    count = len(background_images(dataset))
    if count:
        mean = background_false_positives(detections, dataset, CONFIDENCE)
        figures["background"] = {"images": count, "confidence": CONFIDENCE, "false_positives": mean}
    return figures
