"""Bundles to try targets on: made once a process, in memory or as a file, from the small detectors beside this file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import tempfile
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from onnx import numpy_helper

from edgekd._bundle import Bundle
from edgekd._golden import add_golden
from edgekd._manifest import ANGLE, Artifact, InputSpec, Manifest, OutputSpec, Thresholds
from edgekd._receipts import QUANTIZED
from edgekd._target import Quantization, load_target, target_names
from edgekd._verify import golden_samples, measure_artifact

from .anomaly_networks import SIGMA, anomaly_network
from .detectors import STRIDES, detector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

HEIGHT, WIDTH = 64, 96
CLASSES = ("bolt", "nut", "washer")
IMAGE_THRESHOLD, PIXEL_THRESHOLD, LOW = 2.53, 2.4, 2.3  # amid what the random network gives for `pictures`
MEAN, STD = (120.0, 115.0, 105.0), (58.0, 57.0, 59.0)


def manifest(height: int = HEIGHT, width: int = WIDTH, *, oriented: bool = False) -> Manifest:
    """Return what `detectors.detector(height, width)` needs to be told about."""
    boxes, layout = (5, "xywhr") if oriented else (4, "xyxy")
    rows = sum((height // stride) * (width // stride) for stride in STRIDES)
    return Manifest(
        name="conformance",
        task="detect",
        classes=CLASSES,
        input=InputSpec(height=height, width=width, mean=MEAN, std=STD),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(rows, boxes), layout=layout),
            OutputSpec(name="scores", kind="scores", shape=(rows, len(CLASSES)), activation="sigmoid"),
        ),
        angle=ANGLE if oriented else None,
    )


def anomaly_manifest(height: int = HEIGHT, width: int = WIDTH) -> Manifest:
    """Return what `anomaly_network(height, width)` needs to be told about; some of `pictures` are anomalous to it."""
    return Manifest(
        name="conformance",
        task="anomaly",
        classes=("defect",),
        input=InputSpec(height=height, width=width, mean=MEAN, std=STD),
        outputs=(
            OutputSpec(name="map", kind="map", shape=(1, height // 4, width // 4)),
            OutputSpec(name="score", kind="score", shape=()),
        ),
        thresholds=Thresholds(
            image=IMAGE_THRESHOLD, pixel=PIXEL_THRESHOLD, low=LOW, alpha=0.05, pixel_alpha=1e-3, images=20, sigma=SIGMA
        ),
    )


def pictures(count: int = 3, height: int = 90, width: int = 120) -> list[NDArray[np.uint8]]:
    """Return pictures `(height, width, 3)` of blobs and noise."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, height // 10, width // 10, 3))
    noise = rng.integers(-20, 21, (count, height, width, 3))
    return list(np.clip(coarse.repeat(10, axis=1).repeat(10, axis=2) + noise, 0, 255).astype(np.uint8))


def pixels(batch: int, seed: int = 0) -> NDArray[np.float32]:
    """Return network input `(batch, 3, HEIGHT, WIDTH)`."""
    return np.random.default_rng(seed).normal(size=(batch, 3, HEIGHT, WIDTH)).astype(np.float32)


@cache
def portable(*, oriented: bool = False, anomaly: bool = False, on_grid: bool = False) -> Bundle:
    """Return a bundle with a graph and a golden set, and no artifact.

    `on_grid`: with weights that are int8 already. Those of a random network lose more than one that was trained.
    """
    graph = anomaly_network(HEIGHT, WIDTH) if anomaly else detector(HEIGHT, WIDTH, len(CLASSES), oriented=oriented)
    about = anomaly_manifest() if anomaly else manifest(oriented=oriented)
    bundle = Bundle.create(about, {"graph.onnx": _rounded(graph) if on_grid else graph})
    reference = load_target("reference").load(bundle, Artifact(target="reference", precision="fp32", files={}))
    return add_golden(bundle, pictures(), reference.infer)


def _rounded(data: bytes) -> bytes:
    """Return a graph with the weights of its layers on int8's grid, in float32."""
    from edgekd.quantization import FloatGraph, layers_of
    from edgekd.quantization.region import channel_axis
    from edgekd.quantization.write import rounded_weights, weight_scales

    graph = FloatGraph(data)
    stored = {item.name: item for item in graph.model.graph.initializer}
    for layer in layers_of(graph):
        values = graph.values(layer.weight).astype(np.float32)
        axis = channel_axis(graph.graph.node[layer.nodes[0]], values.ndim)
        scales = weight_scales(values, axis)
        along = scales.reshape([-1 if item == axis else 1 for item in range(values.ndim)])
        exact = (rounded_weights(values, scales, axis) * along).astype(np.float32)
        stored[layer.weight].CopyFrom(numpy_helper.from_array(exact, layer.weight))
    return bytes(graph.model.SerializeToString())


class Build(NamedTuple):
    """A bundle with one artifact, the artifact, and what its target said and printed while it built."""

    bundle: Bundle
    artifact: Artifact
    progress: tuple[str, ...]
    printed: bytes


@cache
def quantization(*, oriented: bool = False, anomaly: bool = False) -> Quantization:
    """Return int8 of the portable bundle's graph, every layer, calibrated on its golden pictures."""
    from edgekd.quantization import FloatGraph, int8_region, measure_ranges, quantized_graph

    bundle = portable(oriented=oriented, anomaly=anomaly)
    seen = np.concatenate([image for image, _ in golden_samples(bundle)])
    graph = FloatGraph(bundle.graph())
    region = int8_region(graph)
    scales = measure_ranges(graph, region, seen).scales(region, "minmax")
    return Quantization(quantized_graph(graph, region, scales), seen)


@cache
def oracle(precision: str, *, oriented: bool = False, anomaly: bool = False) -> Bundle:
    """Return what an artifact is compared with: the portable bundle, or of int8 the one whose graph is int8."""
    bundle = portable(oriented=oriented, anomaly=anomaly, on_grid=precision == "w8a32")
    if precision not in QUANTIZED:
        return bundle
    return bundle.replace(add={bundle.manifest.graph: quantization(oriented=oriented, anomaly=anomaly).graph})


def receipt(target: str, *, oriented: bool = False, anomaly: bool = False) -> dict[str, object]:
    """Return an int8 receipt that says what the int8 graph gives on the golden set, and that everything held."""
    stand_in = oracle("int8", oriented=oriented, anomaly=anomaly)
    artifact = Artifact(target="reference", precision="int8", files={})
    report = measure_artifact(stand_in, artifact, golden_samples(stand_in))
    golden = {
        "score": report.score_difference, "box_px": report.box_difference_px, "map": report.map_difference,
    }  # fmt: skip
    gate = {"name": "AP drop", "value": 0.1, "bound": 0.5, "unit": "points", "passed": True}
    images = {"name": "pictures", "images": 3}
    return {
        "what": "int8 AP drop", "value": 0.1, "unit": "points", "target": target, "precision": "int8",
        "quantization": {
            "passed": True, "golden": golden, "gates": [gate], "layers": [{"name": "all", "int8": True}],
            "calibration": images, "validation": images, "ranges": {"estimator": "minmax"},
            "race": {"rival": "fp32", "speed_up": 2.0, "faster": True, "times_ms": {"fp32": [2.0], "int8": [1.0]}},
        },
    }  # fmt: skip


@cache
def built(target: str, precision: str, *, oriented: bool = False, anomaly: bool = False) -> Build:
    """Build one artifact of the portable bundle; of int8 with a receipt."""
    bundle = portable(oriented=oriented, anomaly=anomaly, on_grid=precision == "w8a32")
    lines: list[str] = []
    how = quantization(oriented=oriented, anomaly=anomaly) if precision in QUANTIZED else None
    with _printed() as printed:
        result = load_target(target).build(bundle, precision, lines.append, how)
    files = {name: f"artifacts/{target}/{precision}/{name}" for name in result.files}
    artifact = Artifact(
        target=target, precision=precision, files=files, options=dict(result.options), tools=dict(result.tools)
    )
    chunks = {files[name]: content for name, content in result.files.items()}
    whole = bundle.replace(dataclasses.replace(bundle.manifest, artifacts=(artifact,)), chunks)
    if how is not None:
        row = receipt(target, oriented=oriented, anomaly=anomaly)
        whole = whole.replace(dataclasses.replace(whole.manifest, receipts=(row,)))
    return Build(whole, artifact, tuple(lines), bytes(printed))


@contextlib.contextmanager
def _printed() -> Iterator[bytearray]:
    """Collect what this process and its children write to stdout and stderr, C++ included."""
    collected = bytearray()
    python = io.StringIO()
    real = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 1)
        os.dup2(held.fileno(), 2)
        try:
            with contextlib.redirect_stdout(python), contextlib.redirect_stderr(python):
                yield collected
        finally:
            for number, saved in enumerate(real, 1):
                os.dup2(saved, number)
                os.close(saved)
            held.seek(0)
            collected += held.read() + python.getvalue().encode()


def written(target: str, precision: str, folder: Path, *, oriented: bool = False, anomaly: bool = False) -> Path:
    """Return a `model.bin` with one artifact."""
    path = folder / f"{target}-{precision}.bin"
    built(target, precision, oriented=oriented, anomaly=anomaly).bundle.write(path)
    return path


def with_contents(bundle: Bundle, artifact: Artifact, contents: bytes) -> Bundle:
    """Return the bundle with other bytes in every file that the artifact's target reads."""
    names = list(artifact.files.values()) or [bundle.manifest.graph]
    return bundle.replace(add=dict.fromkeys(names, contents))


def foreign_contents(target: str) -> dict[str, bytes]:
    """Return what other targets run on, by "target file"; for those without files that is the portable graph."""
    found: dict[str, bytes] = {}
    for name in target_names():
        if name != target and load_target(name).probe_build() is None:
            bundle, artifact = built(name, "fp32")[:2]
            chunks = artifact.files or {"graph": bundle.manifest.graph}
            found |= {f"{name} {file}": bytes(bundle.chunk(chunk)) for file, chunk in chunks.items()}
    return found
