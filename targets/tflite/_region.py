"""Which operators of a LiteRT model are int8: decided by what they read and what reads them, never by a name.

A LiteRT operator is int8 as a whole, its output too. So:

- A *layer* is a convolution or fully connected operator with stored weights that the image reaches through operators of
  a network: behind a quotient, root, exponential or softmax begins decoding, with all that follows (the blur of an
  anomaly map, the integral of a distribution of sides).
- Operators that only move values, and sums, products and activations with int8 kernels, are int8 on the way to an int8
  layer; the latter where at least half of the values they read are int8 already.
- A layer that no int8 layer depends on is the last of its branch. Its output would share one scale among all its
  channels, those of boxes and of scores alike, so it writes float32: int8 weights meet input that the kernel rounds.
- Everything else is float32, first of all what follows the last layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._graph import DATA, WEIGHT

if TYPE_CHECKING:
    from collections.abc import Collection

    from ._graph import LiteGraph

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
CARRIERS = (
    *("CONCATENATION", "MAX_POOL_2D", "MIRROR_PAD", "PACK", "PAD", "PADV2", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR"),
    *("SLICE", "SPACE_TO_DEPTH", "SPLIT", "STRIDED_SLICE", "TRANSPOSE", "UNPACK"),
)
MIXERS = ("ADD", "AVERAGE_POOL_2D", "LOGISTIC", "MEAN", "MUL", "RESIZE_BILINEAR", "SUB")
"""Those of which XNNPACK has int8 kernels. Of HARD_SWISH, and of a RELU that is fused with nothing, it has none:
MobileNetV3-small took 10.3 ms with int8 ones, 4.7 ms with float ones between a DEQUANTIZE and a QUANTIZE, 11.4 ms in
fp32 (EPYC, one thread)."""
DECODING = ("ATAN2", "COS", "DIV", "EXP", "FLOOR", "LOG", "POW", "RSQRT", "SIN", "SOFTMAX", "SQRT")
HYBRID = ("CONV_2D", "FULLY_CONNECTED")  # XNNPACK has kernels for int8 weights and float32 output of these alone
FIXED = ("LOGISTIC",)  # whose output has a scale of its own in every kernel


@dataclass(frozen=True)
class Region:
    """What is int8.

    Attributes:
        static: operators that read and write int8.
        last: layers with int8 weights that write float32.
        groups: tensors of activations that are int8, by the one that stands for all that share a scale; the ranges of
            `sources` decide the scale.
        sources: tensors of each group whose values are measured; the others are moved from them.
    """

    static: tuple[int, ...]
    last: tuple[int, ...]
    groups: dict[int, tuple[int, ...]]
    sources: dict[int, tuple[int, ...]]


def layers_of(graph: LiteGraph) -> list[int]:
    """Return the operators that can be int8 layers."""
    reached = _reached(graph)
    return [index for index in range(len(graph.kinds)) if is_layer(graph, index) and _data(graph, index) in reached]


def is_layer(graph: LiteGraph, index: int) -> bool:
    """Whether an operator is a convolution or fully connected, with stored weights and other input."""
    if graph.kinds[index] not in LAYERS:
        return False
    weight = graph.inputs[index][WEIGHT]
    return graph.constant(weight) and graph.is_float(weight) and not graph.constant(_data(graph, index))


def int8_region(graph: LiteGraph, floating: Collection[int] = ()) -> Region:
    """Return what is int8 if these layers stay in floating point.

    Args:
        graph: the float model.
        floating: operators.
    """
    layers = [index for index in layers_of(graph) if index not in floating]
    ends = [index for index in layers if not _leads_to(graph, index, layers)]
    layers = [index for index in layers if index not in ends or graph.kinds[index] in HYBRID]
    chosen = _on_the_way(graph, layers)
    last = tuple(index for index in layers if index in ends)
    static = tuple(sorted(chosen - set(last)))
    groups, sources = _scales(graph, static)
    return Region(static, last, groups, sources)


def _data(graph: LiteGraph, index: int) -> int:
    return graph.inputs[index][DATA.get(graph.kinds[index], 0)]


def _reached(graph: LiteGraph) -> set[int]:
    """Return the tensors that the image reaches through operators of a network; operators are in order."""
    reached = {graph.images}
    for index, kind in enumerate(graph.kinds):
        read = graph.activations(index)
        decodes = kind in DECODING and not (kind == "DIV" and graph.constant(graph.inputs[index][1]))  # but for a scale
        if not decodes and reached.intersection(read):
            reached.update(graph.outputs[index])
    return reached


def _on_the_way(graph: LiteGraph, layers: Collection[int]) -> set[int]:
    """Return the layers and what is int8 between them: the largest set that holds the rules above."""
    chosen = set(layers)
    for index in reversed(range(len(graph.kinds))):
        if graph.kinds[index] in (*CARRIERS, *MIXERS) and graph.activations(index) and _read_by(graph, index, chosen):
            chosen.add(index)
    while True:
        wrong = {index for index in chosen.difference(layers) if not _pays(graph, index, chosen)}
        if not wrong:
            return chosen
        chosen -= wrong


def _read_by(graph: LiteGraph, index: int, chosen: Collection[int]) -> bool:
    return any(reader in chosen for tensor in graph.outputs[index] for reader in graph.readers.get(tensor, ()))


def _leads_to(graph: LiteGraph, index: int, layers: Collection[int]) -> bool:
    """Whether a layer depends on what an operator writes."""
    reached, waiting = {index}, [index]
    while waiting:
        for tensor in graph.outputs[waiting.pop()]:
            for reader in graph.readers.get(tensor, ()):
                if reader in layers:
                    return True
                if reader not in reached:
                    reached.add(reader)
                    waiting.append(reader)
    return False


def _pays(graph: LiteGraph, index: int, chosen: Collection[int]) -> bool:
    """Whether an operator between layers is better int8, if these are."""
    if not _read_by(graph, index, chosen):
        return False
    read = graph.activations(index)
    held = sum(graph.size(tensor) for tensor in read if graph.maker.get(tensor) in chosen)
    return graph.kinds[index] in CARRIERS or 2 * held >= sum(graph.size(tensor) for tensor in read)


def _scales(graph: LiteGraph, static: Collection[int]) -> tuple[dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]]:
    """Return the tensors that share a scale, and those of them that are measured."""
    parent: dict[int, int] = {}

    def root(tensor: int) -> int:
        parent.setdefault(tensor, tensor)
        while parent[tensor] != tensor:
            tensor = parent[tensor]
        return tensor

    moved: set[int] = set()
    for index in static:
        tensors = [*graph.activations(index), *graph.outputs[index]]
        for tensor in tensors:
            root(tensor)
        if graph.kinds[index] in CARRIERS:
            moved.update(graph.outputs[index])
            first, *rest = (tensor for tensor in tensors if not _fixed(graph, tensor))
            for tensor in rest:
                parent[root(tensor)] = root(first)
    groups: dict[int, list[int]] = {}
    for tensor in parent:
        groups.setdefault(root(tensor), []).append(tensor)
    sources = {name: tuple(item for item in held if item not in moved) for name, held in groups.items()}
    return {name: tuple(held) for name, held in groups.items()}, sources


def _fixed(graph: LiteGraph, tensor: int) -> bool:
    maker = graph.maker.get(tensor)
    return maker is not None and graph.kinds[maker] in FIXED
