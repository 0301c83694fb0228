"""Which tensors of a graph are int8: decided by what reads them, never by a name.

- A *layer* is a convolution or matrix product with constant weights and several output channels. It reads int8 and
  int8 weights; what it writes is quantized only where another layer reads it. So whatever follows the last layers,
  which is all decoding (sigmoids, exponentials, angles, distances of an anomaly map), stays in floating point, and
  boxes and scores never share a scale.
- Operators that only move values (`CARRIERS`) pass int8 on: a tensor is quantized before them, once, and a Concat's
  inputs share one scale, so that a runtime can move the dequantization past them.
- An Add on the way to a layer reads an operand in int8 if that operand is int8 for another reader anyway (the
  identity of a residual block); its other operand comes out of a convolution that runtimes fuse it into.
- Everything else reads floating point: two readers of one tensor may see it in two precisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .graph import attribute

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx

    from .graph import FloatGraph

HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CARRIERS = (
    *("Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose"),
    "Unsqueeze",
)


@dataclass(frozen=True)
class Layer:
    """A layer that can be int8; several nodes where levels share weights.

    Attributes:
        weight: the initializer that names it; `floating` sets hold these.
        nodes: indices.
        work: multiplications for one image.
        weights: how many it has.
    """

    weight: str
    nodes: tuple[int, ...]
    work: int
    weights: int

    @property
    def name(self) -> str:
        """Path of the module in the student, as far as the exporter kept it."""
        return self.weight.removesuffix(".weight")


@dataclass(frozen=True)
class Region:
    """What is int8.

    Attributes:
        layers: the int8 ones, in graph order.
        sources: tensors that are quantized -> the tensor whose scale they share (often themselves).
        reads: (node, position) of inputs that read the int8 form.
    """

    layers: tuple[Layer, ...]
    sources: dict[str, str]
    reads: frozenset[tuple[int, int]]


def layers_of(graph: FloatGraph) -> tuple[Layer, ...]:
    """Return every layer that can be int8, in graph order."""
    nodes: dict[str, list[int]] = {}
    for index, node in enumerate(graph.graph.node):
        if _can_be_int8(graph, node):
            nodes.setdefault(node.input[1], []).append(index)
    return tuple(
        Layer(weight, tuple(found), sum(graph.work(index) for index in found), int(graph.values(weight).size))
        for weight, found in nodes.items()
    )


def int8_region(graph: FloatGraph, floating: Collection[str] = ()) -> Region:
    """Return what is int8 if these layers stay in floating point.

    Args:
        graph: the float graph.
        floating: weights of layers that do not become int8.
    """
    layers = tuple(layer for layer in layers_of(graph) if layer.weight not in floating)
    growing = _Growing(graph)
    for layer in layers:
        for index in layer.nodes:
            growing.read(index, 0)
    growing.take_adds({index for layer in layers for index in layer.nodes})
    return Region(layers, growing.scales(), frozenset(growing.reads))


class _Growing:
    """Reads in int8 that are known so far, and which of their sources share a scale."""

    def __init__(self, graph: FloatGraph) -> None:
        self.graph = graph
        self.reads: set[tuple[int, int]] = set()
        self.carried: set[str] = set()  # outputs of carriers that already hold int8 values
        self.parent: dict[str, str] = {}

    def read(self, index: int, position: int) -> str | None:
        """Let a node read an input in int8; return the source, if it is a single one."""
        name = self.graph.graph.node[index].input[position]
        maker = self.graph.maker.get(name)
        if maker is None or not self._carries(maker):
            self.reads.add((index, position))
            self.parent.setdefault(name, name)
            return self._root(name)
        return self._carry(maker)

    def _carry(self, index: int) -> str | None:
        """Let a carrier read int8, and join the scales of what it reads."""
        node = self.graph.graph.node[index]
        sources = [self.read(index, position) for position in _data_inputs(node)]
        self.carried.update(node.output)
        known = [item for item in sources if item is not None]
        for item in known[1:]:
            self.parent[self._root(item)] = self._root(known[0])
        return known[0] if known else None

    def take_adds(self, layers: Collection[int]) -> None:
        """Let sums on the way to a layer read what is int8 anyway."""
        for index in sorted(_leading_to(self.graph, layers)):
            node = self.graph.graph.node[index]
            if node.op_type != "Add" or any(name in self.graph.weights for name in node.input):
                continue
            for position, name in enumerate(node.input):
                if name in self.parent:
                    self.reads.add((index, position))
                elif name not in self.carried and self._behind_carriers(name):
                    self.read(index, position)

    def _behind_carriers(self, name: str) -> bool:
        """Whether a tensor is moved values of sources that are int8 anyway, as what is enlarged in a pyramid."""
        maker = self.graph.maker.get(name)
        if maker is None or not self._carries(maker):
            return False
        node = self.graph.graph.node[maker]
        reads = [node.input[position] for position in _data_inputs(node)]
        return all(item in self.parent or item in self.carried or self._behind_carriers(item) for item in reads)

    def _carries(self, index: int) -> bool:
        node = self.graph.graph.node[index]
        if node.op_type not in CARRIERS:
            return False
        if node.op_type == "Resize":
            return bool(attribute(node, "mode", "nearest") == "nearest")
        return not any(node.input[position] in self.graph.weights for position in _data_inputs(node))

    def scales(self) -> dict[str, str]:
        return {name: self._root(name) for name in self.parent}

    def _root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name


def _can_be_int8(graph: FloatGraph, node: onnx.NodeProto) -> bool:
    if node.op_type not in HEAVY or len(node.input) < 2 or node.input[1] not in graph.weights:
        return False
    if node.input[0] in graph.weights or len(graph.weights[node.input[1]].dims) < 2:
        return False
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return False
    if _outputs(graph, node) < 2:
        return False
    # Grouped transposed convolutions lay their output channels over two axes: no axis holds one scale a channel.
    return node.op_type != "ConvTranspose" or attribute(node, "group", 1) == 1


def _outputs(graph: FloatGraph, node: onnx.NodeProto) -> int:
    """Return the output channels of a layer.

    With one of them it is no layer that learnt: an expectation over a distribution of box edges (Li et al., NeurIPS
    2020, eq. 3), or the enlargement of an anomaly map, whose range on normal images is not that on defects.
    """
    dims = graph.weights[node.input[1]].dims
    return int(dims[channel_axis(node, len(dims))])


def channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """Return the axis of a layer's weights that has one entry an output channel."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else rank - 1


def _data_inputs(node: onnx.NodeProto) -> Iterator[int]:
    """Yield the positions of a carrier's inputs whose values it moves."""
    yield from range(len(node.input)) if node.op_type == "Concat" else (0,)


def _leading_to(graph: FloatGraph, layers: Collection[int]) -> set[int]:
    """Return the nodes that some layer depends on."""
    found: set[int] = set()
    waiting = list(layers)
    while waiting:
        for name in graph.graph.node[waiting.pop()].input:
            maker = graph.maker.get(name)
            if maker is not None and maker not in found:
                found.add(maker)
                waiting.append(maker)
    return found
