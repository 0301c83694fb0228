"""The graph that a board's TensorRT compiles, with the proofs that can be had without the board."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime

from edgekd._target import Built
from edgekd.errors import BuildError

from . import _packed
from ._ahead import available, check
from ._half import halve
from ._pairs import pair_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._manifest import InputSpec, OutputSpec
    from edgekd._target import Progress, Quantization


def prepare(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None) -> Built:
    """Make `model.onnx` (of int8 `model.onnx.packed`); ONNX Runtime checks it, and TensorRT-RTX where installed."""
    spec = bundle.manifest.input
    graph = bundle.graph() if quantization is None else quantization.graph
    try:
        onnx.checker.check_model(graph, full_check=True)
    except Exception as error:  # protobuf's and ONNX's errors share no other base
        raise BuildError(f"the portable graph is no sound ONNX: {error}") from error
    tools = {name: version(name) for name in ("onnx", "onnxruntime")}
    stand_in = None
    if precision == "fp16":
        progress("TensorRT: float16 up to the head's last convolutions")
        portable, graph = graph, halve(graph)
        stand_in = halve(portable, emulate=True)
        for half in (graph, stand_in):
            _check_finite(half, spec, bundle.manifest.outputs)
    if precision == "int8":
        progress("TensorRT: explicit int8, weights in float32 in front of QuantizeLinear")
        graph = pair_weights(graph)
    options: dict[str, object] = {"strongly_typed": True}
    if available():
        progress(f"TensorRT-RTX: parse and build ahead of time, {precision}")
        proof = check(graph, spec.name, (3, spec.height, spec.width), precision)
        tools["tensorrt-rtx"] = proof.pop("version")
        options["ahead_of_time"] = proof
    else:
        progress("TensorRT-RTX is not installed, so no parser has seen the graph: pip install 'edgekd[tensorrt]'")
    files = {_packed.NAME: _packed.pack(graph)} if precision == "int8" else {"model.onnx": graph}
    return Built(files=files, options=options, tools=tools, stand_in=stand_in)


def _check_finite(half: bytes, spec: InputSpec, outputs: Sequence[OutputSpec]) -> None:
    """Raise BuildError where the float16 graph runs out of its range on noise; what it loses the golden set says."""
    pixels = np.random.default_rng(0).normal(size=(1, 3, spec.height, spec.width)).astype(np.float32)
    for output, values in zip(outputs, _run(half, {spec.name: pixels}, [item.name for item in outputs]), strict=True):
        if not np.isfinite(values).all():
            raise BuildError(f"in float16 the output {output.name!r} is not finite: build --precision fp32")


def _run(graph: bytes, inputs: dict[str, NDArray[np.float32]], names: list[str]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return list(session.run(names, inputs))
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise BuildError(f"ONNX Runtime cannot run the prepared graph: {error}") from error
