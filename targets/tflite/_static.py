"""Fix an ONNX graph's batch to one and fold every shape computation, so that only arithmetic on images is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekd.errors import BuildError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OLDEST_OPSET = 11
ROUNDS = 8  # each round of inference can make more shapes known; real exports need one or two


def fix_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose first input has batch 1, whose shapes are inferred and whose constant nodes are folded.

    Raises:
        BuildError: a dimension of the input other than the batch is dynamic, or the opset is older than 11.
    """
    opset = next(item.version for item in model.opset_import if not item.domain)
    if opset < OLDEST_OPSET:
        raise BuildError(f"the graph is of opset {opset}; from {OLDEST_OPSET} on it can be translated: export it anew")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_value = 1
    if not all(dim.HasField("dim_value") for dim in dims):
        raise BuildError(
            f"the graph's input {fixed.graph.input[0].name!r} has a dynamic height or width; export it with fixed ones"
        )
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    for _ in range(ROUNDS):
        del fixed.graph.value_info[:]
        fixed = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
        if not _fold(fixed):
            break
    return fixed


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Return the initializers by name."""
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def _fold(model: onnx.ModelProto) -> bool:
    """Replace nodes with known results by initializers; return whether there were any."""
    graph = model.graph
    known = constants(graph)
    shapes = _shapes(graph)
    kept = []
    for node in graph.node:
        result = _evaluate(node, known, shapes, model)
        if result is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, result, strict=True):
            known[name] = value
            graph.initializer.append(numpy_helper.from_array(value, name))
    folded = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return folded


def _evaluate(
    node: onnx.NodeProto, known: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]], model: onnx.ModelProto
) -> list[NDArray[Any]] | None:
    """Return the node's outputs, or None when they depend on the image."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        shape = shapes[node.input[0]][attributes.get("start", 0) : attributes.get("end")]
        return [np.array(shape, np.int64)]
    if node.domain or any(
        item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute
    ):
        return None
    names = [name for name in node.input if name]
    if any(name not in known for name in names):
        return None
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(known[name].dtype), None) for name in names
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = helper.make_model(helper.make_graph([node], "fold", inputs, outputs), opset_imports=model.opset_import)
    alone.ir_version = model.ir_version
    return [np.asarray(value) for value in ReferenceEvaluator(alone).run(None, {name: known[name] for name in names})]


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are wholly known, by tensor name."""
    found = {item.name: tuple(item.dims) for item in graph.initializer}
    for item in (*graph.input, *graph.value_info, *graph.output):
        dims = item.type.tensor_type.shape.dim
        if item.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[item.name] = tuple(dim.dim_value for dim in dims)
    return found
