"""From the portable ONNX graph to OpenVINO IR."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.numpy_helper
import openvino

from edgekd._target import Built
from edgekd.errors import BuildError

if TYPE_CHECKING:
    from edgekd._bundle import Bundle
    from edgekd._target import Progress, Quantization


def lower(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None) -> Built:
    """Read ONNX, fix the batch to 1 and serialise; "fp16" stores the weights as float16, "int8" as int8."""
    spec = bundle.manifest.input
    progress(f"OpenVINO: ONNX to IR, batch 1, {precision} weights")
    graph = bundle.graph() if quantization is None else unsigned(quantization.graph)
    try:
        model = openvino.Core().read_model(io.BytesIO(graph))
        model.reshape({spec.name: [1, 3, spec.height, spec.width]})
        with tempfile.TemporaryDirectory(prefix="edgekd-openvino-") as folder:  # save_model writes to files only
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
            files = {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}
    except RuntimeError as error:
        raise BuildError(f"OpenVINO {openvino.__version__} refused the graph: {error}") from error
    return Built(files=files, tools={"openvino": openvino.__version__})


def unsigned(graph: bytes) -> bytes:
    """Return the int8 graph with its activations as uint8 around 128: the same numbers, named otherwise.

    OpenVINO 2026.4 keeps activations as uint8, whatever they are in the graph. Where signed ones pass a Concat on the
    way to a convolution its shift goes wrong: sums were off by a tenth of the largest; said in its own terms, it is exact.
    """
    model = onnx.load_from_string(graph)
    zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for item in model.graph.initializer:
        if item.name in zeros:
            item.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(item.dims), 128, np.uint8), item.name))
    return bytes(model.SerializeToString(deterministic=True))
