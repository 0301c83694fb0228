"""Write the int8 graph: the float graph with explicit QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import BuildError
from .ranges import LEVELS
from .region import Region, channel_axis, layers_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .graph import FloatGraph


def quantized_graph(graph: FloatGraph, region: Region, scales: Mapping[str, float]) -> bytes:
    """Return the int8 graph: ONNX of the same inputs and outputs, float32 in and out.

    Activations: `DequantizeLinear(QuantizeLinear(x))`, one scale a tensor, zero point 0. Weights: int8 initializers
    behind a DequantizeLinear, one scale an output channel, its largest magnitude / 127.

    Args:
        graph: the float graph; it is left as it is.
        region: what is int8.
        scales: of each source.

    Raises:
        BuildError: a scale is not a positive number, or the graph does not check.
    """
    writing = _Writing(graph, region, scales)
    model = writing.write()
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(f"the int8 graph does not check: {error}") from error
    return bytes(model.SerializeToString(deterministic=True))


def weight_only_graph(graph: FloatGraph) -> bytes:
    """Return the graph with int8 weights and float32 arithmetic (w8a32): a quarter of the size, nothing to calibrate.

    Weights of every layer that could be int8 lie behind a DequantizeLinear, one scale an output channel; activations
    are as they were.
    """
    return quantized_graph(graph, Region(layers_of(graph), {}, frozenset()), {})


def weight_scales(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return one scale `(C,)` an output channel: its largest magnitude / 127; 1 / 127 for channels of zeros.

    Chips flush numbers below `tiny` to zero, and dividing by such a scale gives NaN.
    """
    others = tuple(item for item in range(values.ndim) if item != axis)
    largest = np.abs(values).max(axis=others)
    scales = (np.where(largest > 0, largest, 1.0) / LEVELS).astype(np.float32)
    return np.maximum(scales, np.finfo(np.float32).tiny)


def rounded_weights(values: NDArray[np.float32], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """Return the int8 weights: rounded half to even, in [-127, 127]."""
    spread = scales.reshape([-1 if item == axis else 1 for item in range(values.ndim)])
    whole: NDArray[np.int8] = np.clip(np.rint(values / spread), -LEVELS, LEVELS).astype(np.int8)
    return whole


class _Writing:
    def __init__(self, graph: FloatGraph, region: Region, scales: Mapping[str, float]) -> None:
        self.float, self.region, self.scales = graph, region, scales
        self.model = onnx.ModelProto()
        self.model.CopyFrom(graph.model)
        self.added: list[onnx.TensorProto] = []

    def write(self) -> onnx.ModelProto:
        body = self.model.graph
        nodes: list[onnx.NodeProto] = []
        for layer in self.region.layers:
            nodes += self._weight(layer.weight, self.float.graph.node[layer.nodes[0]])
        if self.float.image in self.region.sources:
            nodes += self._pair(self.float.image)
        quantized = {index for layer in self.region.layers for index in layer.nodes}
        for index, node in enumerate(body.node):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            for position, name in enumerate(node.input):
                if (index, position) in self.region.reads or (position == 1 and index in quantized):
                    copy.input[position] = f"{name}_dequantized"
            nodes.append(copy)
            for name in node.output:
                if name in self.region.sources:
                    nodes += self._pair(name)
        del body.node[:], body.value_info[:]
        body.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [item for item in (*body.initializer, *self.added) if item.name in used]
        del body.initializer[:]
        body.initializer.extend(kept)
        return self.model

    def _pair(self, name: str) -> list[onnx.NodeProto]:
        """Return the two nodes that round a tensor of activations."""
        scale = np.float32(self.scales[name])
        if not np.isfinite(scale) or scale <= 0:
            raise BuildError(f"the scale of {name!r} should be a positive number, got {scale}")
        return self._nodes(name, np.asarray(scale), np.zeros((), np.int8), None)

    def _weight(self, name: str, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        values = self.float.values(name).astype(np.float32)
        axis = channel_axis(node, values.ndim)
        scales = weight_scales(values, axis)
        self.added.append(numpy_helper.from_array(rounded_weights(values, scales, axis), f"{name}_quantized"))
        return self._nodes(name, scales, np.zeros(scales.shape, np.int8), axis)[1:]

    def _nodes(
        self, name: str, scale: NDArray[np.float32], zero: NDArray[np.int8], axis: int | None
    ) -> list[onnx.NodeProto]:
        self.added += [numpy_helper.from_array(scale, f"{name}_scale"), numpy_helper.from_array(zero, f"{name}_zero")]
        along: dict[str, Any] = {} if axis is None else {"axis": axis}
        inputs = [f"{name}_scale", f"{name}_zero"]
        return [
            helper.make_node(
                "QuantizeLinear", [name, *inputs], [f"{name}_quantized"], name=f"quantize_{name}", **along
            ),
            helper.make_node(
                "DequantizeLinear", [f"{name}_quantized", *inputs], [f"{name}_dequantized"],
                name=f"dequantize_{name}", **along,
            ),
        ]  # fmt: skip
