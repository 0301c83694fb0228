"""Annotated sets from what a float network itself finds: its AP there is 1, and what int8 has less is what it lost."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from edgekd import geometry, ops
from edgekd._bundle import Bundle
from edgekd._golden import add_golden
from edgekd._int8.data import placed
from edgekd._manifest import Artifact
from edgekd._target import load_target
from edgekd.training.data.read import read
from edgekd.training.resume import data_fingerprint

from ..conformance import bundles
from . import networks

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd._session import Session

TRAIN, VAL = 24, 12
PORTABLE = Artifact(target="reference", precision="fp32", files={})


def start(bundle: Bundle) -> contextlib.closing[Session]:
    """Start the portable graph."""
    return contextlib.closing(load_target("reference").load(bundle, PORTABLE, threads=1))


def coloured(graph: bytes | None = None, *, oriented: bool = False, rows: int = networks.ROWS) -> Bundle:
    """Return a bundle of `networks.colours`, or of a graph like it, with a golden set."""
    manifest = dataclasses.replace(
        bundles.manifest(oriented=oriented),
        classes=networks.CLASSES,
        outputs=networks.outputs(oriented=oriented, rows=rows),
    )
    bundle = Bundle.create(manifest, {"graph.onnx": graph or networks.colours(oriented=oriented)})
    with start(bundle) as session:
        return add_golden(bundle, [networks.scene(1000 + seed) for seed in range(4)], session.infer)


def found(bundle: Bundle, session: Session, image: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return boxes in the image and labels of what is found at the bundle's thresholds."""
    pixels, placement = placed(bundle.manifest, image)
    boxes, scores = session.infer(pixels)
    predict = bundle.manifest.predict
    kept, _, labels = ops.suppress(
        boxes[0], scores[0], conf=predict.conf, iou=predict.iou, max_det=predict.max_det,
        max_candidates=predict.max_candidates,
    )  # fmt: skip
    return placement.undo(kept), labels


def write_set(folder: Path, bundle: Bundle, train: int = TRAIN, val: int = VAL) -> Path:
    """Write a YOLO set with splits "train" and "val", annotated by the bundle's float network."""
    with start(bundle) as session:
        for index in range(train + val):
            picture = networks.scene(index)
            split = "train" if index < train else "val"
            image = folder / "images" / split / f"{index:03}.png"
            label = folder / "labels" / split / f"{index:03}.txt"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(image)
            label.write_text("".join(_lines(*found(bundle, session, picture), picture.shape)), encoding="utf-8")
    names = "\n".join(f"  {index}: {name}" for index, name in enumerate(bundle.manifest.classes))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}\n", encoding="utf-8")
    return folder


def _lines(boxes: NDArray[Any], labels: NDArray[Any], shape: tuple[int, ...]) -> list[str]:
    height, width = shape[:2]
    lines = []
    for box, label in zip(boxes.astype(np.float64), labels, strict=True):
        if len(box) == 5:
            points = geometry.xywhr_to_corners(box[None]).reshape(4, 2) / [width, height]
        else:
            x1, y1, x2, y2 = box / [width, height, width, height]
            points = np.array([[(x1 + x2) / 2, (y1 + y2) / 2], [x2 - x1, y2 - y1]])
        lines.append(" ".join([str(int(label)), *(f"{value:.9f}" for value in points.reshape(-1))]) + "\n")
    return lines


def with_origin(bundle: Bundle, folder: Path, *, recipe: bool = True, **others: Path) -> Bundle:
    """Return the bundle as a training run leaves it: it knows its sets, and where they were."""
    parts = {"train": (folder, "train"), "val": (folder, "val")} | {name: (path, name) for name, path in others.items()}
    data = {}
    for name, (path, split) in parts.items():
        dataset = read(path, "auto", split, bundle.manifest.classes)
        data[name] = {"images": len(dataset), "sha256": data_fingerprint(dataset)}
    known = {"data": {"train": str(folder), "val": str(folder), "format": "yolo"}} if recipe else None
    manifest = dataclasses.replace(bundle.manifest, provenance={"data": data}, recipe=known)
    return bundle.replace(manifest)
