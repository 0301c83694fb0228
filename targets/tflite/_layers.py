"""Find the layers of a portable graph in the LiteRT model that was made of it, by the values of their weights.

The converter names nothing as the graph did. It lays weights out anew (OIHW as OHWI), turns those of transposed
convolutions around, folds a following scale into them, shares them or copies them; what it keeps is the order of the
output channels, and the values of each, in some order, up to a factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from ._graph import LiteGraph

SAME = 1e-4  # between two weights of a channel, relative to its largest: a folded scale costs a rounding or two
CHANNEL_AXIS = {"BATCH_MATMUL": -1, "DEPTHWISE_CONV_2D": 3}  # of LiteRT's weights; 0 of all others


def find_layers(
    portable: onnx.GraphProto, constants: Mapping[str, NDArray[Any]], graph: LiteGraph
) -> dict[str, list[int]]:
    """Return the LiteRT operators that read the weights of each layer of the portable graph.

    Args:
        portable: the ONNX graph, constants folded.
        constants: its initializers.
        graph: the float LiteRT model.

    Returns:
        Weight of each layer -> operators; several where levels share weights, or two layers have the same; none where
        the converter made something else of it.
    """
    made = _stored(graph)
    found: dict[str, list[int]] = {}
    for node in portable.node:
        axis = _channel_axis(node, constants)
        if axis is None or node.input[1] in found:
            continue
        channels = Channels.of(constants[node.input[1]], axis)
        alike = [(index, stored) for index, stored in made.get(channels.rows.shape, ()) if stored.alike(channels)]
        same = [index for index, stored in alike if stored.same(channels)]
        found[node.input[1]] = same or [index for index, _ in alike]  # levels may share all but their scales
    return found


@dataclass(frozen=True)
class Channels:
    """The weights of a layer, whatever their layout.

    Attributes:
        rows: `(channels, weights of one)` float32: each channel sorted, its weight of largest magnitude made 1.
        factors: `(channels, 1)` float32: those weights.
    """

    rows: NDArray[np.float32]
    factors: NDArray[np.float32]

    @classmethod
    def of(cls, weights: NDArray[Any], axis: int) -> Channels:
        """Return the channels along an axis."""
        rows = np.moveaxis(weights.astype(np.float32), axis, 0)
        rows = rows.reshape(1, -1) if rows[0].size == 1 else rows.reshape(len(rows), -1)  # one weight is always 1
        factors = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
        return cls(np.sort(rows / np.where(factors == 0, 1, factors), axis=1), factors)

    def alike(self, other: Channels) -> bool:
        """Whether these are the same weights up to a factor for each channel."""
        return bool(np.abs(self.rows - other.rows).max() <= SAME)

    def same(self, other: Channels) -> bool:
        """Whether these are the same weights, if they are alike."""
        return bool(np.allclose(self.factors, other.factors, rtol=SAME, atol=0))


def _stored(graph: LiteGraph) -> dict[tuple[int, ...], list[tuple[int, Channels]]]:
    """Return the model's weights by shape, each with an operator that reads it."""
    found: dict[tuple[int, ...], list[tuple[int, Channels]]] = {}
    for index, kind in enumerate(graph.kinds):
        for tensor in graph.inputs[index]:
            if graph.constant(tensor) and graph.is_float(tensor) and graph.rank(tensor) > 1:
                channels = Channels.of(graph.values(tensor), CHANNEL_AXIS.get(kind, 0))
                found.setdefault(channels.rows.shape, []).append((index, channels))
    return found


def _channel_axis(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> int | None:
    """Return the axis of the output channels of a layer's weights, None for nodes that are no layers."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.input[1] not in constants:
        return None
    if constants[node.input[1]].ndim < 2:
        return None
    flags = {item.name: item.i for item in node.attribute}
    if node.op_type == "Conv" or (node.op_type == "Gemm" and flags.get("transB", 0)):
        return 0
    return 1 if node.op_type == "ConvTranspose" else -1
