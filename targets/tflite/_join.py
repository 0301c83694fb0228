"""Two LiteRT models as one: a network, and behind it what its head means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import BuildError

from ._graph import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

NEWEST_RUNTIME = b"min_runtime_version"  # the one note of a model that stays true when it is joined
SIGNATURE = b"serving_default"


def append(model: Any, tail: Any, sources: Sequence[int]) -> None:
    """Append a model to another's main subgraph, whose outputs are then those of the appended one.

    Args:
        model: changed in place; objects of the schema.
        tail: with one subgraph; its objects become `model`'s.
        sources: for each input of `tail`, the tensor of `model` that it reads.

    Raises:
        BuildError: the tail has several subgraphs.
    """
    if len(tail.subgraphs) != 1:
        raise BuildError(f"the converted decoding has {len(tail.subgraphs)} subgraphs instead of one")
    main, last = model.subgraphs[0], tail.subgraphs[0]
    buffers, codes = len(model.buffers), len(model.operatorCodes)
    places = dict(zip(map(int, last.inputs), sources, strict=True))
    for index, tensor in enumerate(last.tensors):
        if index not in places:
            tensor.buffer = int(tensor.buffer) + buffers if tensor.buffer else 0  # buffer 0 is the empty one
            tensor.name = b"decoder/%d" % index
            places[index] = len(main.tensors)
            main.tensors.append(tensor)
    for operator in last.operators:
        operator.opcodeIndex += codes
        for field in ("inputs", "outputs", "intermediates"):
            tensors = getattr(operator, field)
            if tensors is not None:
                setattr(operator, field, [places[int(item)] if item >= 0 else -1 for item in tensors])  # -1: left out
        main.operators.append(operator)
    model.buffers.extend(tail.buffers)
    model.operatorCodes.extend(tail.operatorCodes)
    main.outputs = [places[int(item)] for item in last.outputs]


def put_channels_first(model: Any) -> None:
    """Let a model of images `(1, H, W, 3)` take `(1, 3, H, W)`; changed in place."""
    main = model.subgraphs[0]
    (inner,) = (int(item) for item in main.inputs)
    _, height, width, channels = (int(side) for side in main.tensors[inner].shape)
    order = _tensor(model, b"decoder/channels_last", [4], SCHEMA.TensorType.INT32)
    order.buffer = len(model.buffers)
    model.buffers.append(SCHEMA.BufferT())
    model.buffers[-1].data = np.array([0, 2, 3, 1], "<i4").view(np.uint8)
    image = _tensor(model, b"images", [1, channels, height, width], SCHEMA.TensorType.FLOAT32)
    operator = SCHEMA.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes)
    operator.inputs, operator.outputs = [len(main.tensors) - 1, len(main.tensors) - 2], [inner]
    operator.builtinOptionsType = SCHEMA.BuiltinOptions.TransposeOptions
    operator.builtinOptions = SCHEMA.TransposeOptionsT()
    code = SCHEMA.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = SCHEMA.BuiltinOperator.TRANSPOSE
    code.version = 1
    model.operatorCodes.append(code)
    main.operators.insert(0, operator)
    main.inputs = [main.tensors.index(image)]


def name_ends(model: Any, outputs: Sequence[bytes]) -> None:
    """Give a model one signature, of input "images" and these outputs, and drop the notes that spoke of others."""
    main = model.subgraphs[0]
    signature = SCHEMA.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [_named(b"images", main.inputs[0])]
    signature.outputs = [_named(name, item) for name, item in zip(outputs, main.outputs, strict=True)]
    model.signatureDefs = [signature]
    model.metadata = [item for item in model.metadata or () if item.name == NEWEST_RUNTIME]
    for tensor in main.tensors:
        tensor.shapeSignature = None  # one image: no side is open


def _tensor(model: Any, name: bytes, shape: list[int], kind: int) -> Any:
    """Return a new tensor of the main subgraph, without a buffer of its own."""
    tensor = SCHEMA.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer, tensor.hasRank = name, shape, kind, 0, True
    model.subgraphs[0].tensors.append(tensor)
    return tensor


def _named(name: bytes, tensor: int) -> Any:
    item = SCHEMA.TensorMapT()
    item.name, item.tensorIndex = name, int(tensor)
    return item
