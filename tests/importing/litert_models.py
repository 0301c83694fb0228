"""Small LiteRT models, written operator by operator: no converter has to be installed, or waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW = 20  # of the image, the one that is looked at


class Writer:
    """Writes a model whose outputs are given arrays, plus `weight` times the mean of a row of the first channel."""

    def __init__(self, shape: tuple[int, ...] = (1, 64, 64, 3)) -> None:
        pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils")
        from edgekd.targets.tflite._graph import SCHEMA

        self.schema: Any = SCHEMA
        self.model = SCHEMA.ModelT()
        self.model.version = 3
        self.model.buffers = [SCHEMA.BufferT()]
        self.model.operatorCodes, self.model.metadata = [], None
        self.main = SCHEMA.SubGraphT()
        self.main.tensors, self.main.operators = [], []
        self.model.subgraphs = [self.main]
        self.main.inputs = [self.tensor("image", shape)]
        self.main.outputs = []

    def tensor(self, name: str, shape: tuple[int, ...], values: NDArray[Any] | None = None, kind: str = "") -> int:
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.hasRank = name.encode(), list(shape), 0, True
        tensor.type = getattr(self.schema.TensorType, kind or ("INT32" if name == "axes" else "FLOAT32"))
        if values is not None:
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(self.schema.BufferT())
            self.model.buffers[-1].data = np.ascontiguousarray(values).view(np.uint8).ravel()
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def operator(self, name: str, inputs: list[int], output: int, options: str | None = None) -> None:
        code, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = inputs, [output]
        if options is not None:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
        self.model.operatorCodes.append(code)
        self.main.operators.append(operator)

    def outputs(self, arrays: dict[str, NDArray[np.float32]], weight: float) -> Writer:
        """Add the operators of all outputs."""
        shape = self.main.tensors[0].shape
        channels_last = shape[1] != 3
        height, channels = (shape[1], shape[3]) if channels_last else (shape[2], shape[1])
        first = np.zeros((1, channels, height, 1), np.float32)
        first[0, 0, ROW] = weight * channels * height  # the mean is over all channels and rows
        first = first.transpose(0, 2, 3, 1) if channels_last else first
        mask = self.tensor("mask", first.shape, first)
        axes = self.tensor("axes", (3,), np.array([1, 2, 3], np.int32))
        masked, light = self.tensor("masked", tuple(shape)), self.tensor("light", (1,))
        self.operator("MUL", [0, mask], masked, "MulOptions")
        self.operator("MEAN", [masked, axes], light, "ReducerOptions")
        for name, array in arrays.items():
            held = self.tensor(f"{name}_value", array.shape, array.astype(np.float32))
            self.main.outputs.append(self.tensor(name, array.shape))
            self.operator("ADD", [held, light], self.main.outputs[-1], "AddOptions")
        return self

    def data(self) -> bytes:
        from edgekd.targets.tflite._graph import model_bytes

        return model_bytes(self.model)


def written(
    outputs: dict[str, NDArray[np.float32]], shape: tuple[int, ...] = (1, 64, 64, 3), weight: float = 0.0
) -> bytes:
    """Return a model."""
    return Writer(shape).outputs(outputs, weight).data()
