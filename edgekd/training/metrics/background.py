"""False positives, above all on background: what a detector costs where there is nothing to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError
from .matches import match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..._detections import Detections
    from ..data.sample import Dataset

IOU = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """A detector at one confidence, all classes together.

    Attributes:
        confidence: detections that score at least this are reported.
        recall: share of the objects that are hit, difficult ones left out.
        false_positives: per image, over all images.
        background_false_positives: per image, over the images without any object; NaN if there is none.
    """

    confidence: float
    recall: float
    false_positives: float
    background_false_positives: float


def background_images(dataset: Dataset) -> NDArray[np.int64]:
    """Return the rows of the images without any object, difficult ones included."""
    return np.flatnonzero([not len(sample.labels) for sample in dataset.samples])


def background_false_positives(detections: Sequence[Detections], dataset: Dataset, confidence: float) -> float:
    """Return how many detections score at least `confidence`, per image without any object; NaN if there is none.

    Args:
        detections: one per sample.
        dataset: the annotated objects.
        confidence: in the detections' scores.
    """
    counts = [int((detections[row].scores >= np.float32(confidence)).sum()) for row in background_images(dataset)]
    return float(np.mean(counts)) if counts else float("nan")


def at_recall(detections: Sequence[Detections], dataset: Dataset, recall: float, iou: float = IOU) -> OperatingPoint:
    """Return the highest confidence at which a detector reaches a recall, and its false positives there.

    Args:
        detections: one per sample, found at a confidence low enough to reach the recall.
        dataset: the annotated objects.
        recall: in [0, 1], of all classes together.
        iou: what a hit overlaps its object by more than.

    Raises:
        UsageError: the recall is not reached, or there is no object.
    """
    return Ranked(detections, dataset, iou).at(recall)


def at_equal_recall(
    first: Sequence[Detections],
    second: Sequence[Detections],
    dataset: Dataset,
    *,
    recall: float | None = None,
    iou: float = IOU,
) -> tuple[OperatingPoint, OperatingPoint]:
    """Return the operating points of two detectors at one recall, so that their false positives can be compared.

    Args:
        first: one per sample.
        second: one per sample.
        dataset: the annotated objects.
        recall: in [0, 1]; None: the highest that both reach.
        iou: what a hit overlaps its object by more than.

    Raises:
        UsageError: one of them does not reach the recall, or there is no object.
    """
    ranked = [Ranked(detections, dataset, iou) for detections in (first, second)]
    common = min(each.highest for each in ranked) if recall is None else recall
    return ranked[0].at(common), ranked[1].at(common)


class Ranked:
    """The detections of all classes that count, best score first, and which of them are hits: matched once.

    Arguments and errors are those of `at_recall`.
    """

    def __init__(self, detections: Sequence[Detections], dataset: Dataset, iou: float = IOU) -> None:
        matches = match(detections, dataset)
        judged = [(each, *each.judge(iou)) for each in matches]
        self.positives = sum(each.positives for each in matches)
        if not self.positives:
            raise UsageError(f"{dataset.name} has no object that counts, so there is no recall")
        scores = np.concatenate([each.scores[counts] for each, _, counts in judged])
        order = np.argsort(-scores, kind="stable")
        self.scores = scores[order]
        self.hits = np.concatenate([hits[counts] for _, hits, counts in judged])[order]
        self.detections, self.dataset = detections, dataset

    @property
    def highest(self) -> float:
        """The recall of all detections together."""
        return float(self.hits.sum()) / self.positives

    def at(self, recall: float) -> OperatingPoint:
        """Return the operating point of the highest confidence that reaches a recall.

        Raises:
            UsageError: the recall is not reached.
        """
        if not 0 <= recall <= self.highest:
            raise UsageError(f"recall {recall:g} is not reached; possible here: 0 to {self.highest:g}")
        reached = np.flatnonzero(np.cumsum(self.hits) / self.positives >= recall)
        confidence = float(self.scores[reached[0]]) if recall > 0 else float("inf")
        taken = self.scores >= np.float32(confidence)
        hits = int(self.hits[taken].sum())
        return OperatingPoint(
            confidence=confidence,
            recall=hits / self.positives,
            false_positives=(int(taken.sum()) - hits) / len(self.dataset),
            background_false_positives=background_false_positives(self.detections, self.dataset, confidence),
        )
