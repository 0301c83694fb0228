"""COCO average precision by pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._detections import Detections
    from ..data.sample import Dataset

FIGURES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def average_precision(detections: Sequence[Detections], dataset: Dataset) -> dict[str, Any]:
    """Compare one `Detections` per sample with the samples' boxes.

    Objects marked difficult are ignored: detections on one, as many as there are, count neither for nor against. On one
    is what overlaps it as much as a hit would; on a crowd, as COCO has it, what lies in its box by that share. Oriented
    boxes are compared by their axis-aligned hulls. Up to 100 detections per image count, as COCO has it.

    Returns:
        "AP" (mean over IoU 0.50:0.95), "AP50", "AP75", "AP_small" (< 32² px), "AP_medium", "AP_large" (> 96² px), each
        in [0, 1] or NaN where no object of that kind exists, and "per_class": class name -> AP.

    Raises:
        UsageError: the lengths differ.
    """
    if len(detections) != len(dataset):
        raise UsageError(f"{len(detections)} results for {len(dataset)} images of {dataset.name}; give one per image")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        truth = _indexed(_ground_truth(dataset))
        rows = [row for number, found in enumerate(detections) for row in found.to_coco(number)]
        run = _evaluation(truth, truth.loadRes(rows) if rows else _indexed(_empty(dataset)))
        run.evaluate()
        run.accumulate()
        run.summarize()
    values = {key: _or_nan(value) for key, value in zip(FIGURES, run.stats[:6], strict=True)}
    precision = run.eval["precision"]  # (IoU, recall, class, area, max_det), -1 where there is no object
    per_class = {}
    for index, name in enumerate(dataset.classes):
        known = precision[:, :, index, 0, -1]
        per_class[name] = float(known[known > -1].mean()) if (known > -1).any() else float("nan")
    return {**values, "per_class": per_class}


def _evaluation(truth: Any, found: Any) -> Any:
    """Return pycocotools' evaluation, in which only what is a crowd is compared as one.

    It ignores any number of detections on an entry with `iscrowd`, and nothing else: so difficult objects have it too.
    """
    from pycocotools.cocoeval import COCOeval

    class Evaluation(COCOeval):  # type: ignore[misc]
        def computeIoU(self, image: int, category: int) -> Any:  # noqa: N802 - theirs
            objects = self._gts[image, category]
            for each in objects:
                each["iscrowd"] = each["crowd"]
            overlaps = super().computeIoU(image, category)
            for each in objects:
                each["iscrowd"] = each["ignore"]
            return overlaps

    return Evaluation(truth, found, "bbox")


def _or_nan(value: float) -> float:
    return float(value) if value >= 0 else float("nan")


def _indexed(content: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _empty(dataset: Dataset) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": i, "width": s.size[0], "height": s.size[1]} for i, s in enumerate(dataset.samples)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(dataset.classes)],
        "annotations": [],
    }


def _ground_truth(dataset: Dataset) -> dict[str, Any]:
    content = _empty(dataset)
    for number, sample in enumerate(dataset.samples):
        crowds = np.zeros(len(sample.labels), np.bool_) if sample.crowd is None else sample.crowd
        marks = zip(sample.labels, sample.difficult | crowds, crowds, strict=True)
        for box, (label, ignored, crowd) in zip(_hulls(sample.boxes), marks, strict=True):
            width, height = float(box[2] - box[0]), float(box[3] - box[1])
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [float(box[0]), float(box[1]), width, height],
                    "area": width * height,
                    "iscrowd": int(ignored),
                    "crowd": int(crowd),
                }
            )
    return content


def _hulls(boxes: np.ndarray) -> np.ndarray:
    """Return xyxy of xyxy or xywhr boxes."""
    if boxes.shape[1] == 4:
        return boxes
    from ...geometry import xywhr_to_corners

    corners = xywhr_to_corners(boxes)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
