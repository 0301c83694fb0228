"""int8 weights as TensorRT 8's parser takes them: float32 constants in front of QuantizeLinear and DequantizeLinear.

It refuses int8 constants ("invalid weights type of Int8"); later versions take both forms. The float32 values are the
rounded ones, so that quantizing them gives the same int8 again, and the engine holds int8 either way.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def pair_weights(data: bytes) -> bytes:
    """Return the graph with every int8 constant behind a DequantizeLinear written as a float32 one before a pair."""
    model = onnx.load_from_string(data)
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        stored = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None:
            _, scale, zero = node.input
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
            name = f"{stored.name}_pair"
            nodes.append(helper.make_node("QuantizeLinear", [f"{name}_float", scale, zero], [name], name, axis=axis))
            graph.initializer.append(_rounded(stored, constants[scale], axis, f"{name}_float"))
            node.input[0] = name
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _rounded(stored: onnx.TensorProto, scale: onnx.TensorProto, axis: int, name: str) -> onnx.TensorProto:
    whole = numpy_helper.to_array(stored).astype(np.float32)
    scales = numpy_helper.to_array(scale)
    along = [-1 if item == axis else 1 for item in range(whole.ndim)]
    return numpy_helper.from_array((whole * scales.reshape(along)).astype(np.float32), name)
