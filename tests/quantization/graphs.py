"""Small graphs to quantize, and ONNX Runtime with its optimisations off: what it computes is what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from edgekd.quantization import FloatGraph, int8_region, measure_ranges, quantized_graph

from ..conformance.detectors import OPSET, Graph

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

IMAGE = (3, 16, 16)


def model(g: Graph, *outputs: str, shape: Sequence[int] = IMAGE) -> bytes:
    """Return a graph of images (batch, *shape) to the named tensors."""
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    body = helper.make_graph(g.nodes, "small", [image], given, g.constants)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(made)
    for item, known in zip(made.graph.output, inferred.graph.output, strict=True):
        item.CopyFrom(known)
    return made.SerializeToString()


def flat(g: Graph, x: str, channels: int) -> str:
    """Append (B, C, H, W) -> (B, H * W, C), as heads do."""
    rows = g.op("Reshape", x, g.constant(np.array([0, channels, -1], np.int64)))
    return g.op("Transpose", rows, perm=[0, 2, 1])


def twice(g: Graph, x: str, mode: str = "nearest") -> str:
    """Append an enlargement by 2."""
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    options = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return g.op("Resize", x, "", scales, mode=mode, coordinate_transformation_mode="asymmetric", **options)


def weight(g: Graph, tensor: str) -> str:
    """Return the weight of the layer that makes a tensor."""
    (node,) = (node for node in g.nodes if tensor in node.output)
    return node.input[1]


def reads(graph: FloatGraph, floating: Collection[str] = ()) -> set[tuple[str, str]]:
    """Return what is read in int8: (operator's output, tensor)."""
    region = int8_region(graph, floating)
    nodes = graph.graph.node
    return {(nodes[index].output[0], nodes[index].input[position]) for index, position in region.reads}


def quantize(data: bytes, pixels: NDArray[np.float32], estimator: str = "minmax", **options: Any) -> bytes:
    """Return the int8 graph, calibrated on `pixels`."""
    graph = FloatGraph(data)
    ranges = measure_ranges(graph, int8_region(graph), pixels)
    region = int8_region(graph, **options)
    return quantized_graph(graph, region, ranges.scales(region, estimator))


def run(graph: bytes, pixels: NDArray[np.float32], names: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
    """Return outputs, every node computed as it is written."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return list(session.run(names, {session.get_inputs()[0].name: pixels}))


def noise(count: int, shape: Sequence[int] = IMAGE, seed: int = 0) -> NDArray[np.float32]:
    """Return images `(count, *shape)`."""
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
