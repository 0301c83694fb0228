"""The end of a run: average weights evaluated, saved as a detector, exported, and written as a portable bundle."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnxruntime
import torch

from .._bundle import Bundle
from .._golden import add_golden
from .._manifest import ANGLE, GRAPH, InputSpec, Manifest, OutputSpec, Suppression
from ..errors import BuildError
from .export import export_onnx
from .resume import data_fingerprint
from .teacher import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from .._comparison import Comparison
    from .._recipe import InputConfig, PredictConfig, Recipe
    from .._session import Outputs
    from .data.sample import Dataset
    from .models import Detector
    from .teacher import Guide

OVERLAP, OVERLAP_ORIENTED = 0.5, 0.1  # IoU above which `predict` drops the worse of two boxes
GOLDEN_IMAGES = 4
GOLDEN_SIDE = 640  # pixels, the longer side at most
TOOLS = ("edgekd", "torch", "onnx", "onnxruntime", "onnxslim", "numpy", "opencv-python-headless", "pycocotools")


@dataclass(frozen=True)
class Exported:
    """What a bundle holds of a network.

    Attributes:
        graph: the portable graph.
        chunks: what else belongs to it.
        provenance: said of it, beside what is said of every student.
        precision: in which it was evaluated.
    """

    graph: bytes
    chunks: Mapping[str, bytes] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"


def write_bundle(
    path: Path,
    model: Detector,
    recipe: Recipe,
    splits: Mapping[str, Dataset],
    metrics: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    teachers: Mapping[str, Guide],
    exported: Exported | None = None,
) -> None:
    """Write `model.bin`: portable graph, golden set, receipts, recipe and provenance.

    Args:
        path: file to write, atomically.
        model: the trained detector.
        recipe: of the run.
        splits: "train", "val" and perhaps "test" and "unlabelled".
        metrics: split name -> what `evaluate` found.
        comparisons: with runs that were not distilled, if there were any.
        teachers: for the provenance.
        exported: the network; None: the model's own export.

    Raises:
        BuildError: the model cannot be exported, or ONNX Runtime cannot run the graph.
    """
    held = exported or Exported(export_onnx(model, recipe.input))
    infer = Portable(held.graph)
    shapes = infer.shapes(recipe.input.height, recipe.input.width)
    oriented = model.box_columns == 5
    manifest = Manifest(
        name=recipe.name,
        task=recipe.task,
        classes=splits["train"].classes,
        input=input_spec(recipe.input),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=shapes[0], layout="xywhr" if oriented else "xyxy"),
            OutputSpec(name="scores", kind="scores", shape=shapes[1], activation="sigmoid"),
        ),
        predict=_suppression(recipe.predict, oriented),
        angle=ANGLE if oriented else None,
        created=now(),
        edgekd=metadata.version("edgekd"),
        receipts=receipts(splits, metrics, comparisons, held.precision),
        recipe=recipe.to_dict(),
        provenance={**_provenance(model, recipe, splits, teachers), **held.provenance},
    )
    bundle = Bundle.create(manifest, {GRAPH: held.graph, **held.chunks})
    add_golden(bundle, golden_images(splits["val"]), infer).write(path)


def _suppression(asked: PredictConfig, oriented: bool) -> Suppression:
    """Return the defaults of `predict`; without a wish, the overlap that suits the boxes."""
    usual = OVERLAP_ORIENTED if oriented else OVERLAP
    return Suppression(conf=asked.conf, iou=usual if asked.iou is None else asked.iou, max_det=asked.max_det)


def add_comparisons(path: Path, splits: Mapping[str, Dataset], comparisons: Sequence[Comparison]) -> None:
    """Put comparisons into a bundle in place of those it has, atomically; everything else stays, but a signature.

    Raises:
        BundleError: the bundle cannot be read or written.
    """
    with Bundle.read(path) as held:
        kept = [row for row in held.manifest.receipts if "comparison" not in row]
        rows = (*kept, *receipts(splits, {}, comparisons))
        changed = held.replace(dataclasses.replace(held.manifest, receipts=rows))
        changed.write(path)


class Portable:
    """The portable graph on ONNX Runtime, fp32, one thread: the reference that every target is compared with."""

    def __init__(self, graph: bytes, outputs: tuple[str, str] = ("boxes", "scores")) -> None:
        self._names = list(outputs)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has no common class of its own
            raise BuildError(f"ONNX Runtime cannot load the exported graph: {error}") from error

    def __call__(self, pixels: NDArray[np.float32]) -> Outputs:
        """Return the two outputs for `(B, 3, H, W)`, as `Session.infer` does."""
        first, second = self._session.run(self._names, {"images": pixels})
        return first, second

    def shapes(self, height: int, width: int) -> tuple[tuple[int, ...], ...]:
        """Return the outputs' shapes without the batch."""
        return tuple(output.shape[1:] for output in self(np.zeros((1, 3, height, width), np.float32)))


def input_spec(size: InputConfig) -> InputSpec:
    """Return what a manifest says of a recipe's [input]."""
    return InputSpec(height=size.height, width=size.width, color=size.color, mean=size.mean, std=size.std, pad=size.pad)


def golden_images(dataset: Dataset, side: int = GOLDEN_SIDE) -> list[NDArray[np.uint8]]:
    """Return up to four images spread over the set, RGB, at most `side` pixels on the longer side."""
    chosen = np.linspace(0, len(dataset) - 1, min(GOLDEN_IMAGES, len(dataset))).round().astype(int)
    images = []
    for index in chosen:
        image = dataset.samples[index].load()
        shrink = side / max(image.shape[:2])
        if shrink < 1:
            size = max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        images.append(np.ascontiguousarray(image))
    return images


def receipts(
    splits: Mapping[str, Dataset],
    metrics: Mapping[str, Mapping[str, Any]],
    comparisons: Sequence[Comparison],
    precision: str = "fp32",
) -> tuple[dict[str, Any], ...]:
    """Return one row a finite figure, and one a comparison."""
    conditions = {
        "unit": "fraction",
        "runtime": f"torch {torch.__version__}",
        "precision": precision,
        "machine": f"{platform.machine()} {platform.system()}",
        "date": now(),
    }
    figures = [
        {"what": name, "value": value, "split": split}
        for split, found in metrics.items()
        for name, value in found.items()
        if isinstance(value, float) and np.isfinite(value)
    ]
    rows = [*figures, *(each.to_dict() for each in comparisons)]
    return tuple({**row, "images": len(splits[row["split"]]), **conditions} for row in rows)


def _provenance(
    model: Detector, recipe: Recipe, splits: Mapping[str, Dataset], teachers: Mapping[str, Guide]
) -> dict[str, Any]:
    start = dataclasses.asdict(model.weights) if model.weights is not None else None
    return {
        "student": {
            "state_sha256": fingerprint(model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "pretrained": {"file": model.weights.path.name, "sha256": start["sha256"]}
            if start and model.weights
            else None,
        },
        "teachers": {name: each.source for name, each in teachers.items()},
        "data": {name: {"images": len(each), "sha256": data_fingerprint(each)} for name, each in splits.items()},
        "seed": recipe.train.seed,
        "tools": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and the distributions that are installed; OpenCV, say, has several."""
    found = {name: each[0].version for name in TOOLS if (each := [*metadata.distributions(name=name)][:1])}
    return {"python": platform.python_version(), **found}


def now() -> str:
    """Return the time in UTC, as manifests write it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
