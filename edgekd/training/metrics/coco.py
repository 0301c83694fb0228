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
OUTSIDE_EVERY_AREA_RANGE = 1e12  # COCO ignores a box whose area is in no range (the largest ends at 1e10 px²)


def average_precision(detections: Sequence[Detections], dataset: Dataset) -> dict[str, Any]:
    """Compare one `Detections` per sample with the samples' boxes.

    Objects marked difficult are ignored as in VOC: a detection on one counts neither for nor against. Oriented boxes
    are compared by their axis-aligned hulls. Up to 100 detections per image count, as COCO has it.

    Returns:
        "AP" (mean over IoU 0.50:0.95), "AP50", "AP75", "AP_small" (< 32² px), "AP_medium", "AP_large" (> 96² px), each
        in [0, 1] or NaN where no object of that kind exists, and "per_class": class name -> AP.

    Raises:
        UsageError: the lengths differ.
    """
    from pycocotools.cocoeval import COCOeval

    if len(detections) != len(dataset):
        raise UsageError(f"{len(detections)} results for {len(dataset)} images of {dataset.name}; give one per image")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        truth = _indexed(_ground_truth(dataset))
        rows = [row for number, found in enumerate(detections) for row in found.to_coco(number)]
        run = COCOeval(truth, truth.loadRes(rows) if rows else _indexed(_empty(dataset)), "bbox")
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
        for box, label, difficult in zip(_hulls(sample.boxes), sample.labels, sample.difficult, strict=True):
            width, height = float(box[2] - box[0]), float(box[3] - box[1])
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": [float(box[0]), float(box[1]), width, height],
                    "area": OUTSIDE_EVERY_AREA_RANGE if difficult else width * height,
                    "iscrowd": 0,
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
