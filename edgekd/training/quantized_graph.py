"""An exported graph as a module that trains: its weights are parameters, and what becomes int8 is rounded on the way.

Working on the graph, and not on the modules it came from, is what makes the result exact: BatchNorm is folded already,
shared layers have their copy a level, `int8_region` says what is int8 as it does for `edgekd build`, and the weights go
back into the initializers they came from. See docs/decisions/0006-qat-on-the-graph.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..errors import BuildError
from ..quantization.operators import STATIC, SUPPORTED, Operator, bind
from ..quantization.region import HEAVY, Region, channel_axis
from .fake_quant import asymmetric, fake_quantize, fake_quantize_weight, symmetric
from .models.heads.head import mean_over_ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..quantization.graph import FloatGraph

SYMMETRIC, ASYMMETRIC = "int8-symmetric", "int8-asymmetric"
GRAMMARS = (SYMMETRIC, ASYMMETRIC)
"""How activations become int8: the first is `edgekd.quantization`'s, the second LiteRT's."""

PACE = 16.0
"""A scale is exp(PACE p), p the parameter. Adam moves every parameter by about the learning rate, and a usual folded
weight (0.06) thereby by PACE times that of itself: so a scale moves, relative to itself, as weights do, as LSQ asks."""
MOMENTUM = 0.05  # of a batch in the observed ranges of the asymmetric grammar


@dataclass(frozen=True)
class _Step:
    """One node: its function, its inputs (a tensor's name, an array, or None), and which of them are read in int8."""

    function: Operator
    inputs: tuple[str | NDArray[Any] | None, ...]
    outputs: tuple[str, ...]
    int8: frozenset[int]


class QuantizedGraph(nn.Module):
    """The nodes of a float graph, with int8 reads rounded.

    Args:
        graph: what was exported.
        region: what is int8 in it.
        ranges: of each source, as the grammar wants it: a scale, or (smallest, largest value).
        grammar: one of `GRAMMARS`.

    Attributes:
        rounding: False: the float graph.
        limits: `(sources, 2)`, smallest and largest value, of the asymmetric grammar alone.

    Raises:
        BuildError: an operator that has no translation.
    """

    limits: Tensor

    def __init__(self, graph: FloatGraph, region: Region, ranges: Mapping[str, Any], grammar: str) -> None:
        super().__init__()
        unknown = sorted({node.op_type for node in graph.graph.node} - set(SUPPORTED))
        if unknown:
            raise BuildError(
                f"cannot train through the operators {', '.join(unknown)}; possible: {', '.join(SUPPORTED)}"
            )
        self.image, self.grammar, self.rounding = graph.image, grammar, True
        self.region = region
        self._model = graph.model.SerializeToString(deterministic=True)
        self._axes = {
            layer.weight: channel_axis(node, len(graph.weights[layer.weight].dims))
            for layer in region.layers
            for node in [graph.graph.node[layer.nodes[0]]]
        }
        self._fields: dict[str, str] = {}
        trained = {name for node in graph.graph.node if node.op_type in HEAVY for name in node.input[1:] if name}
        for name in sorted(graph.weights):
            self._keep(name, graph.values(name), trained=name in trained)
        self._roots = {root: row for row, root in enumerate(sorted(set(region.sources.values())))}
        self._rows = {name: row for row, name in enumerate(sorted(region.sources))}
        self._start_ranges(ranges)
        self._steps = [self._step(graph, index, node) for index, node in enumerate(graph.graph.node)]
        self._makers = dict(graph.maker)
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}

    def _keep(self, name: str, values: NDArray[Any], *, trained: bool) -> None:
        """Register an initializer: a parameter, or a buffer that is no part of the state."""
        field = f"{'weight' if trained else 'constant'}:{name.replace('.', '/')}"
        held = torch.from_numpy(np.array(values))
        if trained and held.dtype == torch.float32:
            self.register_parameter(field, nn.Parameter(held))
        else:
            self.register_buffer(field, held, persistent=False)
        self._fields[name] = field

    def _start_ranges(self, ranges: Mapping[str, Any]) -> None:
        """Take over the first ranges; of a scale that is shared, the one that names it decides."""
        if self.grammar == SYMMETRIC:
            scales = torch.tensor([ranges[root] for root in self._roots], dtype=torch.float64)
            self.pace = nn.Parameter((scales.log() / PACE).float())
        else:
            limits = torch.tensor([ranges[name] for name in self._rows], dtype=torch.float32).reshape(-1, 2)
            self.register_buffer("limits", limits)

    def _step(self, graph: FloatGraph, index: int, node: onnx.NodeProto) -> _Step:
        inputs: list[str | NDArray[Any] | None] = []
        for position, name in enumerate(node.input):
            if position in STATIC.get(node.op_type, ()) and name:
                if name not in graph.weights:
                    raise BuildError(f"{node.op_type} {node.name!r}: its input {name!r} depends on the image's values")
                inputs.append(graph.values(name))
            else:
                inputs.append(name or None)
        int8 = frozenset(position for position in range(len(inputs)) if (index, position) in self.region.reads)
        return _Step(bind(node), tuple(inputs), tuple(node.output), int8)

    def scales(self) -> dict[str, float]:
        """Return the learned scale of every source, float32 numbers; of the symmetric grammar."""
        held = self._scales().detach().cpu().numpy()
        return {name: float(held[self._roots[root]]) for name, root in self.region.sources.items()}

    def _scales(self) -> Tensor:
        return (PACE * self.pace).exp()

    def portable(self, outputs: Sequence[str]) -> bytes:
        """Return the float graph with the weights as they stand, and these outputs alone."""
        model = onnx.load_from_string(self._model)
        for item in model.graph.initializer:
            field = self._fields[item.name]
            if field in self._parameters:
                values = self.get_parameter(field).detach().cpu().numpy()
                item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), item.name))
        kept = [item for item in model.graph.output if item.name in outputs]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        return bytes(model.SerializeToString(deterministic=True))

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Tensor]:
        """Return tensors of the graph by name, computed from others, float32 whatever autocast is on.

        Args:
            given: name -> tensor; nothing before these is computed.
            wanted: names.
        """
        device = next(iter(given.values())).device.type
        with torch.autocast(device, enabled=False):
            values = {name: getattr(self, field) for name, field in self._fields.items()}
            values.update({name: item.float() for name, item in given.items()})
            scales = self._scales() if self.grammar == SYMMETRIC else None
            rounded: dict[str, Tensor] = {}  # a tensor is rounded once, however many layers read it
            for index in self._needed(tuple(given), tuple(wanted)):
                step = self._steps[index]
                inputs: list[Tensor | NDArray[Any] | None] = []
                for position, item in enumerate(step.inputs):
                    if not isinstance(item, str):
                        inputs.append(item)
                    elif self.rounding and (item in self._axes or position in step.int8):
                        if item not in rounded:
                            rounded[item] = self._rounded(item, values[item], scales)
                        inputs.append(rounded[item])
                    else:
                        inputs.append(values[item])
                result = step.function(*inputs)
                values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False))
        return [values[name] for name in wanted]

    def _rounded(self, name: str, values: Tensor, scales: Tensor | None) -> Tensor:
        """Return weights or activations as int8 keeps them."""
        if name in self._axes:
            return fake_quantize_weight(values, self._axes[name])
        root = self.region.sources[name]
        if scales is not None:
            return fake_quantize(values, symmetric(scales[self._roots[root]]))
        if self.training:
            self._observe(self._rows[name], values)
        rows = [row for other, row in self._rows.items() if self.region.sources[other] == root]
        return fake_quantize(values, asymmetric(self.limits[rows, 0].amin(), self.limits[rows, 1].amax()))

    @torch.no_grad()
    def _observe(self, row: int, values: Tensor) -> None:
        """Move a range towards a batch's."""
        for column, extreme in enumerate((values.min(), values.max())):
            self.limits[row, column].lerp_(mean_over_ranks(extreme), MOMENTUM)

    def _needed(self, given: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
        """Return the nodes between two sets of tensors, in graph order."""
        if (given, wanted) not in self._plans:
            found: set[int] = set()
            waiting = [name for name in wanted if name not in given]
            while waiting:
                index = self._makers.get(waiting.pop())
                if index is not None and index not in found:
                    found.add(index)
                    names = (name for name in self._steps[index].inputs if isinstance(name, str))
                    waiting += [name for name in names if name not in given]
            self._plans[given, wanted] = sorted(found)
        return self._plans[given, wanted]
