"""A strict translator from the ONNX operators of detectors to a PyTorch module, which is what LiteRT converts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import BuildError
from edgekd.quantization.operators import STATIC, SUPPORTED, Operator, bind

from ._static import constants, fix_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Step:
    """One node: its function with the attributes bound, and its inputs (a tensor's name, an array, or None)."""

    function: Operator
    inputs: tuple[str | NDArray[Any] | None, ...]
    outputs: tuple[str, ...]


class TranslatedGraph(nn.Module):
    """An ONNX graph of batch 1 as a module: its inputs, mostly one of images `(1, 3, H, W)`, to the outputs `names`.

    Weights become buffers, node order is kept.
    """

    def __init__(self, graph: onnx.ModelProto, names: Sequence[str]) -> None:
        """Translate a graph.

        Args:
            graph: the portable graph, the batch of whose input is fixed to 1 here; or another of batch 1.
            names: the outputs to return.

        Raises:
            BuildError: an operator, or a use of one, that cannot be translated; the message lists those that can.
        """
        super().__init__()
        fixed = fix_batch(graph).graph
        unknown = sorted({node.op_type for node in fixed.node if node.domain or node.op_type not in SUPPORTED})
        if unknown:
            raise BuildError(f"cannot translate the operators {', '.join(unknown)}; possible: {', '.join(SUPPORTED)}")
        self.names = tuple(names)
        self.buffer_names: dict[str, str] = {}
        known = constants(fixed)
        self.input_names = tuple(item.name for item in fixed.input if item.name not in known)  # old files list weights
        self.steps = tuple(self._step(node, known) for node in fixed.node)

    def _step(self, node: onnx.NodeProto, known: dict[str, NDArray[Any]]) -> Step:
        inputs: list[str | NDArray[Any] | None] = []
        for position, name in enumerate(node.input):
            if not name:
                inputs.append(None)
            elif position in STATIC.get(node.op_type, ()):
                if name not in known:
                    raise BuildError(f"{node.op_type} {node.name!r}: its input {name!r} depends on the image's values")
                inputs.append(known[name])
            else:
                if name in known:
                    self._keep(name, known[name])
                inputs.append(name)
        return Step(bind(node), tuple(inputs), tuple(node.output))

    def _keep(self, name: str, value: NDArray[Any]) -> None:
        """Register a constant as a buffer; ONNX names hold characters that PyTorch's may not."""
        if name not in self.buffer_names:
            self.buffer_names[name] = f"constant_{len(self.buffer_names)}"
            self.register_buffer(self.buffer_names[name], torch.from_numpy(np.array(value)))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the nodes in order and return the outputs by name, which become the names of the converted model."""
        values: dict[str, Tensor] = {name: getattr(self, buffer) for name, buffer in self.buffer_names.items()}
        values.update(zip(self.input_names, inputs, strict=True))
        for step in self.steps:
            result = step.function(*(values[item] if isinstance(item, str) else item for item in step.inputs))
            results = result if isinstance(result, tuple) else (result,)
            values.update(
                zip(step.outputs, results, strict=False)
            )  # outputs nobody reads (a Dropout's mask) are not made
        return {name: values[name] for name in self.names}
