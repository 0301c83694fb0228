"""An ONNX graph as the quantizer looks at it: constants folded into initializers, makers, readers and shapes known."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import BuildError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FloatGraph:
    """A float32 graph, ready to be looked at and rewritten.

    Constant nodes and casts of stored weights (`storage = "fp16"`) become float32 initializers; nothing else changes.

    Args:
        data: ONNX.

    Raises:
        BuildError: no sound ONNX, or a shape that is not known but for the batch.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self.model = onnx.load_from_string(data)
            fold_constants(self.model.graph)
            _fold_casts(self.model.graph)
            onnx.checker.check_model(self.model, full_check=True)
        except Exception as error:  # protobuf's and ONNX's errors share no other base
            raise BuildError(f"the portable graph is no sound ONNX: {error}") from error
        self.graph = self.model.graph
        self.weights = {item.name: item for item in self.graph.initializer}
        self.image = next(item.name for item in self.graph.input if item.name not in self.weights)
        self.outputs = tuple(item.name for item in self.graph.output)

    @cached_property
    def maker(self) -> dict[str, int]:
        """Index of the node that makes a tensor."""
        return {name: index for index, node in enumerate(self.graph.node) for name in node.output if name}

    @cached_property
    def readers(self) -> dict[str, list[tuple[int, int]]]:
        """Nodes that read a tensor, each with the position of the input."""
        found: dict[str, list[tuple[int, int]]] = {}
        for index, node in enumerate(self.graph.node):
            for position, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((index, position))
        return found

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors for one image; those with unknown dimensions other than the batch are missing."""
        one = onnx.ModelProto()
        one.CopyFrom(self.model)
        for item in one.graph.input:
            if item.name == self.image:
                item.type.tensor_type.shape.dim[0].dim_value = 1
        for item in one.graph.output:
            item.type.tensor_type.ClearField("shape")
        del one.graph.value_info[:]
        inferred = onnx.shape_inference.infer_shapes(one, data_prop=True).graph
        found = {item.name: tuple(item.dims) for item in self.graph.initializer}
        for item in (*inferred.input, *inferred.value_info, *inferred.output):
            kind = item.type.tensor_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                found[item.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        return found

    @property
    def picks_rows(self) -> bool:
        """Whether the graph picks its rows itself, so that their order is an output too."""
        return any(node.op_type == "TopK" for node in self.graph.node)

    def values(self, name: str) -> NDArray[Any]:
        """Return an initializer as an array."""
        return np.asarray(numpy_helper.to_array(self.weights[name]))

    def work(self, index: int) -> int:
        """Return the multiplications of a layer for one image; 0 where its output's shape is not known."""
        node = self.graph.node[index]
        shape = self.shapes.get(node.output[0])
        if shape is None:
            return 0
        weight = tuple(self.weights[node.input[1]].dims)
        if node.op_type == "ConvTranspose":  # each input value meets each weight of its channel
            read = self.shapes.get(node.input[0], ())
            places = read[2:]
        else:
            places = shape[2:] if node.op_type == "Conv" else shape[1:-1]
        return int(math.prod(places) * math.prod(weight))


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return a node's attribute, or the default where it is not set."""
    found = next((item for item in node.attribute if item.name == name), None)
    value = default if found is None else helper.get_attribute_value(found)
    return value.decode() if isinstance(value, bytes) else value


def fold_constants(graph: onnx.GraphProto) -> None:
    """Turn the Constant nodes of a graph into initializers of the same names."""
    kept = []
    for node in graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            graph.initializer.append(value)
            graph.initializer[-1].name = node.output[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _fold_casts(graph: onnx.GraphProto) -> None:
    """Replace casts of initializers to float32 by float32 initializers of the casts' names."""
    stored = {item.name: item for item in graph.initializer}
    kept, folded = [], set()
    for node in graph.node:
        source = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if source is None or attribute(node, "to") != TensorProto.FLOAT:
            kept.append(node)
            continue
        values = np.asarray(numpy_helper.to_array(source)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        folded.add(source.name)
    read = {name for node in kept for name in node.input} | {item.name for item in graph.output}
    weights = [item for item in graph.initializer if item.name not in folded or item.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
