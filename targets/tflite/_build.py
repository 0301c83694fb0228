"""From the portable ONNX graph to a LiteRT model, in processes of their own.

The converter and the quantizer print hundreds of lines from C++ and Python, keep over a gigabyte, and abort the process
on an MLIR assertion. Child processes keep all that away from the caller; what they printed is shown when they fail.

What is slow is done once: the float model of a graph, and the ranges of a graph on calibration images, are kept in
memory, so that a search which puts layer after layer back to floating point waits for the quantizer alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd._target import Built
from edgekd.errors import BuildError
from edgekd.quantization import FloatGraph, layers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._target import Progress, Quantization

QUIET = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
LAST_LINES = 20  # of a child's output, shown when it dies
KEPT_BYTES = 512 << 20  # of float models; the latest is kept whatever its size
WEIGHTS_ONLY = {"fp16": "float16", "w8a32": "int8"}
KEPT_RANGES = 4  # sets of calibration images that each kept model remembers

Ranges = dict[str, list[float]]


@dataclass(frozen=True)
class FloatModel:
    """What the converter made of a graph.

    Attributes:
        model: float32 LiteRT model.
        layers: weight of each layer in the portable graph -> LiteRT operators.
        tools: their versions.
        ranges: by digest of the calibration images.
    """

    model: bytes
    layers: Mapping[str, list[int]]
    tools: Mapping[str, str]
    ranges: OrderedDict[bytes, Ranges] = field(default_factory=OrderedDict)


_kept: OrderedDict[bytes, FloatModel] = OrderedDict()
"""Float models by digest of the graph and its outputs, the latest used last."""


def convert(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None) -> Built:
    """Make `model.tflite` of the portable graph; see `edgekd.targets.tflite.build`."""
    made = _float_model(bundle, progress)
    if precision == "fp32":
        return Built(files={"model.tflite": made.model}, tools=made.tools)
    if precision in WEIGHTS_ONLY:
        progress(f"LiteRT: weights to {WEIGHTS_ONLY[precision]}")
        request: dict[str, Any] = {"precision": precision}
        if precision == "w8a32":
            several = {layer.weight for layer in layers_of(FloatGraph(bundle.graph()))}
            request["operators"] = sorted({index for name in several for index in made.layers.get(name, ())})
        model, _ = _run_quantizer(made.model, request)
        return Built(files={"model.tflite": model}, tools=made.tools)
    if quantization is None or not len(quantization.pixels):
        raise BuildError(
            "an int8 model needs calibration images: edgekd build model.bin --precision int8 --calib FOLDER"
        )
    return Built(files={"model.tflite": _quantized(made, quantization, progress)}, tools=made.tools)


def _float_model(bundle: Bundle, progress: Progress) -> FloatModel:
    """Return the float model of a bundle's graph, converted at the first call."""
    graph = bundle.graph()
    outputs = json.dumps({spec.name: spec.layout for spec in bundle.manifest.outputs})
    key = hashlib.sha256(outputs.encode() + graph).digest()
    if key in _kept:
        progress("LiteRT: the float model of an earlier build")
        _kept.move_to_end(key)
        return _kept[key]
    progress("LiteRT: ONNX to PyTorch to LiteRT, batch 1")
    _kept[key] = made = convert_graph(graph, outputs)
    while len(_kept) > 1 and sum(len(item.model) for item in _kept.values()) > KEPT_BYTES:
        _kept.popitem(last=False)
    return made


def convert_graph(graph: bytes, outputs: str) -> FloatModel:
    """Convert an ONNX graph in a process of its own.

    Args:
        graph: ONNX.
        outputs: JSON: name of each output -> its `OutputSpec.layout`.

    Raises:
        BuildError: an operator cannot be translated, or the converter failed.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-tflite-") as name:
        folder = Path(name)
        (folder / "graph.onnx").write_bytes(graph)
        (folder / "request.json").write_text(outputs, encoding="utf-8")
        result = _run_child("_convert", folder)
        return FloatModel((folder / "float.tflite").read_bytes(), result["layers"], result["tools"])


def _quantized(made: FloatModel, quantization: Quantization, progress: Progress) -> bytes:
    floating = _operators(made.layers, quantization.floating)
    pixels = np.ascontiguousarray(quantization.pixels, np.float32)
    key = hashlib.sha256(repr(pixels.shape).encode() + pixels.data).digest()
    known = made.ranges.get(key)
    if known is None:
        progress(f"LiteRT: calibration on {len(pixels)} images")
    progress(f"LiteRT: int8, {len(quantization.floating)} of {len(made.layers)} layers in floating point")
    request = {"precision": "int8", "floating": floating, "ranges": known}
    model, result = _run_quantizer(made.model, request, pixels if known is None else None)
    made.ranges[key] = result["ranges"]
    while len(made.ranges) > KEPT_RANGES:
        made.ranges.popitem(last=False)
    return model


def _operators(layers: Mapping[str, list[int]], floating: frozenset[str]) -> list[int]:
    """Return the LiteRT operators of the layers that stay in floating point.

    Raises:
        BuildError: a name that is no layer, or whose weights the converter changed beyond recognition.
    """
    unknown = sorted(floating.difference(layers))
    if unknown:
        raise BuildError(
            f"no layer of the portable graph has weights named {', '.join(unknown)}; possible: {', '.join(layers)}"
        )
    lost = sorted(name for name in floating if not layers[name])
    if lost:
        raise BuildError(
            f"the LiteRT model has no operator with the weights {', '.join(lost)}, so these layers cannot be kept in "
            "floating point; leave them out of `floating`"
        )
    return sorted({operator for name in floating for operator in layers[name]})


def _run_quantizer(
    model: bytes, request: dict[str, Any], pixels: NDArray[np.float32] | None = None
) -> tuple[bytes, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="edgekd-tflite-") as name:
        folder = Path(name)
        (folder / "float.tflite").write_bytes(model)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        if pixels is not None:
            np.save(folder / "pixels.npy", pixels)
        result = _run_child("_quantize", folder)
        return (folder / "model.tflite").read_bytes(), result


def _run_child(module: str, folder: Path) -> dict[str, Any]:
    """Run a module of this target on a folder in a child process and return its `answer.json`.

    The child works in that folder: `-m` imports from the working directory first, and the user's may hold any
    `inspect.py`.

    Raises:
        BuildError: it says why it cannot, or it died.
    """
    command = [sys.executable, "-m", f"edgekd.targets.tflite.{module}", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env={**os.environ, **QUIET}, check=False, cwd=folder
    )
    answer = folder / "answer.json"
    if not answer.exists():
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise BuildError(f"the LiteRT converter ended with code {done.returncode}; its last lines:\n{tail}")
    result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in result:
        raise BuildError(result["error"])
    return result
