"""A LiteRT model as the quantizer looks at it: operators by name, constants, makers and readers of tensors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.tools import flatbuffer_utils

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCHEMA: Any = flatbuffer_utils.schema_fb
OPERATORS = {code: name for name, code in vars(SCHEMA.BuiltinOperator).items() if isinstance(code, int)}
WEIGHT, DATA = 1, {"TRANSPOSE_CONV": 2}  # positions of a layer's inputs; data is the first but for the transposed


class LiteGraph:
    """The main subgraph of a LiteRT model; tensors and operators are known by their indices.

    Tensors are renamed to `t0`, `t1` ...: the quantizer selects operators and looks up ranges by the names of tensors,
    and the converter's are long and like each other. Inputs and outputs have their names in the signature, which stays.

    Args:
        data: the model; it is left as it is.
    """

    def __init__(self, data: bytes) -> None:
        self.model: Any = read_model(data)
        for number, subgraph in enumerate(self.model.subgraphs):
            for index, tensor in enumerate(subgraph.tensors):
                tensor.name = (f"s{number}_" if number else "") + tensor_name(index)
        self.subgraph = self.model.subgraphs[0]
        self.kinds: list[str] = [self._kind(operator) for operator in self.subgraph.operators]
        self.inputs: list[list[int]] = [
            [int(item) for item in operator.inputs if item >= 0] for operator in self.subgraph.operators
        ]
        self.outputs: list[list[int]] = [
            [int(item) for item in operator.outputs] for operator in self.subgraph.operators
        ]

    def _kind(self, operator: Any) -> str:
        return operator_name(self.model.operatorCodes[operator.opcodeIndex])

    def serialize(self) -> bytes:
        """Return the model with its tensors renamed."""
        return model_bytes(self.model)

    def share_constants(self) -> None:
        """Let tensors of equal contents read one buffer.

        Levels that share a convolution but for the scales of their norms have the same int8 weights.
        """
        first: dict[bytes, int] = {}
        for subgraph in self.model.subgraphs:
            for tensor in subgraph.tensors:
                data = self.model.buffers[tensor.buffer].data
                if data is not None:
                    tensor.buffer = first.setdefault(bytes(data), tensor.buffer)
        kept = {tensor.buffer for subgraph in self.model.subgraphs for tensor in subgraph.tensors}
        kept.update(item.buffer for item in self.model.metadata or ())
        for index, buffer in enumerate(self.model.buffers):
            if index not in kept:
                buffer.data = None

    @cached_property
    def readers(self) -> dict[int, list[int]]:
        """Operators that read a tensor."""
        found: dict[int, list[int]] = {}
        for index, inputs in enumerate(self.inputs):
            for tensor in dict.fromkeys(inputs):
                found.setdefault(tensor, []).append(index)
        return found

    @cached_property
    def maker(self) -> dict[int, int]:
        """The operator that makes a tensor."""
        return {tensor: index for index, outputs in enumerate(self.outputs) for tensor in outputs}

    @property
    def images(self) -> int:
        """The tensor of the image."""
        return int(self.subgraph.inputs[0])

    def constant(self, tensor: int) -> bool:
        """Whether a tensor is stored in the model."""
        return self.model.buffers[self.subgraph.tensors[tensor].buffer].data is not None

    def activations(self, index: int) -> list[int]:
        """Return the tensors of values that an operator reads: in floating point, and not stored."""
        return [item for item in self.inputs[index] if self.is_float(item) and not self.constant(item)]

    def is_float(self, tensor: int) -> bool:
        """Whether a tensor is float32."""
        return bool(self.subgraph.tensors[tensor].type == SCHEMA.TensorType.FLOAT32)

    def size(self, tensor: int) -> int:
        """Return the number of values of a tensor."""
        shape = self.subgraph.tensors[tensor].shape
        return int(np.prod(shape)) if shape is not None else 1

    def rank(self, tensor: int) -> int:
        """Return the number of axes of a tensor."""
        shape = self.subgraph.tensors[tensor].shape
        return len(shape) if shape is not None else 0

    def values(self, tensor: int) -> NDArray[np.float32]:
        """Return a stored float32 tensor."""
        item = self.subgraph.tensors[tensor]
        data = self.model.buffers[item.buffer].data
        return np.frombuffer(bytes(data), np.float32).reshape(item.shape)


def read_model(data: bytes) -> Any:
    """Return a LiteRT model as objects of its schema."""
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    for buffer in model.buffers:
        if buffer.data is not None:  # anything but an array is written byte by byte: a minute for 47 MB
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return model


def model_bytes(model: Any) -> bytes:
    """Return the file of a model that `read_model` gave."""
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def operator_name(code: Any) -> str:
    """Return the name of an operator code of the schema."""
    return str(OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)])


def tensor_name(index: int) -> str:
    """Return the name that `LiteGraph` gives to a tensor of the main subgraph."""
    return f"t{index}"
