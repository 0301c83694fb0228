"""Which annotated object each detection means, by the rule of DOTA's devkit.

A detection means the object of its class and image that it overlaps most, whoever else means it too: the best scored of
those that overlap it by more than the threshold is a hit, the others are false positives and try no second object. One
that means a difficult object counts neither for nor against. So no detection's fate depends on the order of equal
scores, and the overlaps are computed once for every threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ... import ops
from ...errors import UsageError
from ..data.polygon import as_xywhr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..._detections import Detections
    from ..data.sample import Dataset

    Mask = NDArray[np.bool_]

PAIRS = 1 << 20  # overlaps in memory at a time, 8 MiB


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of one class over all images, best score first.

    Attributes:
        scores: `(N,)` float32.
        images: `(N,)` int64, row of the data set.
        overlaps: `(N,)` float64, IoU with the object that is meant; 0 where the image has none of the class.
        objects: `(N,)` int64, that object's number among those of the class; -1 where there is none.
        hard: `(N,)` bool, whether that object is difficult.
        positives: how many objects of the class are not difficult.
    """

    scores: NDArray[np.float32]
    images: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    objects: NDArray[np.int64]
    hard: Mask
    positives: int

    def judge(self, iou: float) -> tuple[Mask, Mask]:
        """Return which detections are hits, `(N,)` bool, and which count (not those on difficult objects), likewise."""
        over = self.overlaps > iou
        claims = np.flatnonzero(over & ~self.hard)
        hits = np.zeros(len(over), np.bool_)
        hits[claims[np.unique(self.objects[claims], return_index=True)[1]]] = True  # the first, so the best scored
        return hits, ~(over & self.hard)


def match(detections: Sequence[Detections], dataset: Dataset) -> list[Matches]:
    """Return the matches of each class, with exact IoU of the (rotated) rectangles in float64.

    Args:
        detections: one per sample.
        dataset: the annotated objects; upright boxes are rectangles too.

    Raises:
        UsageError: the lengths or the classes differ.
    """
    if len(detections) != len(dataset):
        raise UsageError(f"{len(detections)} results for {len(dataset)} images of {dataset.name}; give one per image")
    strange = next((found.classes for found in detections if found.classes != dataset.classes), None)
    if strange is not None:
        raise UsageError(
            f"detections of the classes {', '.join(strange)}, but {dataset.name} was read with "
            f"{', '.join(dataset.classes)}: read it with the detector's classes"
        )
    return [_class_matches(detections, dataset, label) for label in range(len(dataset.classes))]


def _class_matches(detections: Sequence[Detections], dataset: Dataset, label: int) -> Matches:
    scores, images, overlaps, objects, hard = [], [], [], [], []
    known, positives = 0, 0
    for number, (found, sample) in enumerate(zip(detections, dataset.samples, strict=True)):
        rows, mine = found.labels == label, sample.labels == label
        difficult = sample.difficult[mine]
        if rows.any():
            overlap, meant = _most(as_xywhr(found.boxes[rows]), as_xywhr(sample.boxes[mine]))
            scores.append(found.scores[rows])
            images.append(np.full(len(meant), number))
            overlaps.append(overlap)
            objects.append(np.where(meant < 0, -1, known + meant))
            hard.append(np.append(difficult, False)[meant])
        known, positives = known + len(difficult), positives + int((~difficult).sum())
    best = np.concatenate([np.empty(0, np.float32), *scores])
    order = np.argsort(-best, kind="stable")
    return Matches(
        scores=best[order],
        images=np.concatenate([np.empty(0, np.int64), *images])[order],
        overlaps=np.concatenate([np.empty(0), *overlaps])[order],
        objects=np.concatenate([np.empty(0, np.int64), *objects])[order],
        hard=np.concatenate([np.empty(0, np.bool_), *hard])[order],
        positives=positives,
    )


def _most(boxes: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the IoU with, and the row of, the one of `(M, 5)` that each of `(N, 5)` overlaps most, `(N,)` each.

    A row of -1 where there is none; the first on a tie.
    """
    overlap, meant = np.zeros(len(boxes)), np.full(len(boxes), -1, np.int64)
    if not len(truth):
        return overlap, meant
    step = max(1, PAIRS // len(truth))
    for start in range(0, len(boxes), step):
        table = ops.iou_rotated(boxes[start : start + step], truth, dtype=np.float64)
        overlap[start : start + step], meant[start : start + step] = table.max(axis=1), table.argmax(axis=1)
    return overlap, meant
