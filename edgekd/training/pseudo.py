"""Pseudo-labels: what a teacher finds in images that nobody annotated, written down once and kept as COCO JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, RecipeError
from .checkpoint import write_bytes
from .data.polygon import quads_to_xywhr
from .evaluate import detect
from .progress import announce
from .resume import data_fingerprint
from .teacher import Teacher
from .teacher_cache import CachedTeacher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from .data.sample import Dataset, Sample
    from .teacher import Guide

FILE = "pseudo-labels.json"


def pseudo_labels(images: Dataset, teacher: Guide, conf: float, file: Path, device: torch.device) -> Dataset:
    """Return the images with the teacher's detections from `conf` on as boxes.

    They are read from `file` if it holds the labels of the same images, teacher and threshold, and written to it
    otherwise; whoever corrects them there trains on what is corrected. A cached teacher is built only to write them.

    Raises:
        RecipeError: the teacher has no head, or its classes or kind of boxes are not those of the images.
        DataError: an image cannot be decoded, or `file` is damaged.
    """
    made_of = {"images": data_fingerprint(images), "teacher": teacher.source["state_sha256"], "conf": conf}
    if images.task == "obb":
        made_of["layout"] = "xywhr"  # COCO's reader takes the corners then
    if file.exists():
        held = _load(file)
        if held.get("info") == made_of:
            return _labelled(images, held, file)
    announce(f"pseudo-labels for {len(images)} images")
    held = {"info": made_of, **_detections(images, teacher, conf, device)}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, (json.dumps(held) + "\n").encode())
    return _labelled(images, held, file)


def _detections(images: Dataset, guide: Guide, conf: float, device: torch.device) -> dict[str, Any]:
    """Return COCO's images, annotations and categories; category ids are label numbers of `images.classes`."""
    teacher = guide.teacher if isinstance(guide, CachedTeacher) else guide
    assert isinstance(teacher, Teacher)
    if not teacher.has_head:
        raise RecipeError("unlabelled.pseudo_labels needs a teacher with a head; this one has none")
    theirs = teacher.classes or images.classes
    network: Any = teacher.network
    _check(network, theirs, images)
    number = {label: images.classes.index(name) for label, name in enumerate(theirs) if name in images.classes}
    seen = dataclasses.replace(images, classes=theirs)
    rows: list[dict[str, Any]] = []
    for index, found in enumerate(detect(network, seen, teacher.input, device)):
        sides = found.boxes[:, 2:4] if found.oriented else found.boxes[:, 2:] - found.boxes[:, :2]
        for row, area in zip(found.to_coco(index), sides.prod(axis=1).tolist(), strict=True):
            if row["score"] >= conf and row["category_id"] in number:
                own = {"id": len(rows) + 1, "category_id": number[row["category_id"]], "iscrowd": 0, "area": area}
                rows.append({**row, **own})
    return {
        "images": [
            {"id": index, "file_name": sample.path.name, "width": sample.size[0], "height": sample.size[1]}
            for index, sample in enumerate(images.samples)
        ],
        "annotations": rows,
        "categories": [{"id": label, "name": name} for label, name in enumerate(images.classes)],
    }


def _check(network: Any, theirs: Sequence[str], images: Dataset) -> None:
    """Raise RecipeError if what the teacher finds cannot be a label of these images."""
    oriented = getattr(network, "box_columns", 4) == 5
    if oriented != (images.task == "obb"):
        kinds = ("oriented", "upright") if oriented else ("upright", "oriented")
        raise RecipeError("unlabelled.pseudo_labels: the teacher's boxes are {}, the data's are {}".format(*kinds))
    if len(theirs) != network.num_classes or not set(theirs) & set(images.classes):
        raise RecipeError(
            f"unlabelled.pseudo_labels: the teacher's {network.num_classes} classes ({', '.join(theirs)}) have none in"
            f" common with the data's ({', '.join(images.classes)}), or their names are not known"
        )


def _labelled(images: Dataset, held: dict[str, Any], file: Path) -> Dataset:
    """Return the images with the annotations of the file."""
    boxes: list[list[list[float]]] = [[] for _ in images.samples]
    labels: list[list[int]] = [[] for _ in images.samples]
    try:
        for row in held["annotations"]:
            boxes[row["image_id"]].append(_box(row, oriented=images.task == "obb"))
            labels[row["image_id"]].append(range(len(images.classes))[row["category_id"]])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged ({error!r}); remove it, and it is made again") from error
    samples = (
        _with(sample, np.array(own, np.float32).reshape(-1, sample.boxes.shape[1]), np.array(names, np.int64))
        for sample, own, names in zip(images.samples, boxes, labels, strict=True)
    )
    return dataclasses.replace(images, samples=tuple(samples))


def _box(row: dict[str, Any], *, oriented: bool) -> list[float]:
    """Return xyxy, or xywhr of the corners."""
    if oriented:
        ((*corners,),) = row["segmentation"]
        return list(quads_to_xywhr(corners)[0].tolist())
    left, top, width, height = row["bbox"]
    return [left, top, left + width, top + height]


def _with(sample: Sample, boxes: np.ndarray, labels: np.ndarray) -> Sample:
    return dataclasses.replace(sample, boxes=boxes, labels=labels, difficult=np.zeros(len(labels), np.bool_))


def _load(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text())
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}); remove it, and it is made again") from error
    if not isinstance(held, dict):
        raise DataError(f"{file} is no COCO JSON; remove it, and it is made again")
    return held
