"""Export to the portable graph: ONNX, opset 17, plain operators, BatchNorm folded, decoding inside."""

from __future__ import annotations

import copy
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.version_converter
import onnxslim
import torch
from torch import nn

from ..errors import BuildError
from ._node_names import name_by_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._recipe import InputConfig

OPSET = 17  # the newest that TensorRT 8.5 (JetPack 5) parses
_TRACED_OPSET = 18  # the oldest that torch's exporter writes
_IR_VERSION = 8  # of opset 17

OPERATORS = frozenset(
    {
        *("Add", "Clip", "Concat", "Conv", "Div", "Exp", "GlobalAveragePool", "HardSigmoid", "HardSwish", "LeakyRelu"),
        *("Max", "MaxPool", "Min", "Mul", "Pad", "ReduceSum", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Sub"),
        "Transpose",
    }
)
"""All that an exported graph may consist of: what TensorRT, OpenVINO and the TFLite builder all translate."""


ANOMALY_OPERATORS = OPERATORS | {"ConvTranspose", "Sqrt"}
"""Those of an anomaly network, whose norms and mirror student no detector has; the same three translate them."""


STORAGES = ("fp32", "fp16")
"""What the weights of an exported graph may be stored in."""

_FEW = 1024  # values; smaller tensors, biases among them, stay as they are


def export_onnx(
    model: nn.Module,
    size: InputConfig,
    *,
    outputs: tuple[str, ...] = ("boxes", "scores"),
    operators: frozenset[str] = OPERATORS,
    storage: str = "fp32",
) -> bytes:
    """Export a network as it is deployed.

    The same weights give the same bytes. The model itself is left as it is.

    Args:
        model: a detector, or an anomaly network; any mode, device and dtype. Exported in evaluation mode and float32.
        size: network input; only height and width are looked at.
        outputs: names of what the network returns.
        operators: all that the graph may consist of.
        storage: of weights: "fp32", or "fp16" with a Cast to fp32 behind each large one, which runtimes do at loading.

    Returns:
        A serialized ONNX model, weights inside. Input "images" `(batch, 3, height, width)` float32, normalised.
        Outputs of a detector: "boxes" `(batch, N, 4)` xyxy or, of an oriented head, `(batch, N, 5)` xywhr (le90), in
        network pixels, and "scores" `(batch, N, C)` in [0, 1]. The batch is dynamic.

    Raises:
        BuildError: torch or ONNX cannot express the model in opset 17 with those operators.
    """
    network = copy.deepcopy(model).cpu().float().eval()
    # Training lays weights out channels last; around a pooled map of these the exporter asks for shapes at run time.
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # Two images: torch.export takes a dimension of size one for a constant.
    images = torch.zeros(2, 3, size.height, size.width)
    try:
        traced = _trace(network, images, outputs)
        name_by_module(traced.graph)
        _pool_globally(traced.graph)
        graph = onnx.version_converter.convert_version(onnxslim.slim(traced), OPSET)
        _tidy(graph)
        onnx.checker.check_model(graph, full_check=True)
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise BuildError(f"the model cannot be exported as ONNX opset {OPSET}: {error}") from error
    foreign = sorted({node.op_type for node in graph.graph.node} - operators)
    if foreign:
        raise BuildError(
            f"the graph needs {', '.join(foreign)}; targets translate only: {', '.join(sorted(operators))}"
        )
    if storage == "fp16":
        _store_halves(graph.graph)
    return bytes(graph.SerializeToString(deterministic=True))


def _store_halves(graph: onnx.GraphProto) -> None:
    """Store large float32 weights in half the bytes; the graph goes on computing in float32.

    Weights beyond 65504, the greatest half, stay as they are.
    """
    casts = []
    for item in graph.initializer:
        values = onnx.numpy_helper.to_array(item)
        if values.dtype != np.float32 or values.size < _FEW or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = item.name
        item.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.fp16"))
        casts.append(onnx.helper.make_node("Cast", [item.name], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _trace(network: nn.Module, images: torch.Tensor, outputs: tuple[str, ...]) -> onnx.ModelProto:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            opset_version=_TRACED_OPSET,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own internals (torchvision, tree specs) from the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _pool_globally(graph: onnx.GraphProto) -> None:
    """Write means over height and width as GlobalAveragePool, which quantizers know; ReduceMean changed in opset 18."""
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "ReduceMean" and len(node.input) == 2:
            axes = sorted(int(axis) % 4 for axis in constants.get(node.input[1], ()))
            kept = all(item.i == 1 for item in node.attribute if item.name == "keepdims")
            if axes == [2, 3] and kept:
                node.op_type = "GlobalAveragePool"
                del node.input[1:]
                del node.attribute[:]


def _tidy(graph: onnx.ModelProto) -> None:
    """Drop what differs between machines: stack traces, paths, versions of the exporter."""
    graph.ir_version = _IR_VERSION
    graph.producer_name = "edgekd"
    graph.producer_version = ""
    graph.ClearField("doc_string")
    del graph.metadata_props[:]
    body = graph.graph
    body.name = "detector"
    body.ClearField("doc_string")
    del body.metadata_props[:]
    for items in (body.node, body.input, body.output, body.value_info, body.initializer):
        for item in items:
            item.ClearField("doc_string")
            del item.metadata_props[:]
