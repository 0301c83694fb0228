"""Somebody else's LiteRT model: what is in it, and its head decoded behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd._image_input import channels_come_last, image_size, inner_shape, suppresses
from edgekd._target import Built
from edgekd.errors import BuildError, UsageError

from . import _join
from ._build import convert_graph
from ._graph import SCHEMA, model_bytes, operator_name, read_model
from ._session import RUNTIME, started

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd._target import HeadDecoder

TYPES = {code: name for name, code in vars(SCHEMA.TensorType).items() if isinstance(code, int)}
WHOLE = {"BOOL", "INT32", "INT64", "UINT32", "UINT64"}  # shapes, indices and masks
FLOATS = {"FLOAT32", "FLOAT16"}
MESSAGE = 300  # characters of LiteRT's own words: it can say the same of every tensor


class ForeignTFLite:
    """A model with one image in, read and checked; see `edgekd._target.ForeignNetwork`."""

    def __init__(self, path: Path, size: tuple[int, int] | None) -> None:
        """Read and check; see `edgekd.targets.tflite.read_foreign`."""
        self.files = (path,)
        self.runtime = RUNTIME
        self._data = _read(path)
        self._model = read_model(self._data)
        self._main = self._model.subgraphs[0]
        _check_operators(self._model, path)
        self.precision = _precision(self._model, path)
        image = self._tensor(self._image(path))
        sides = _sides(image)
        self._channels_last = channels_come_last(sides, _text(image.name), path)
        self.height, self.width = image_size(sides, self._channels_last, size, path)
        self._names = self._output_names()
        self.outputs = {name: self._shape(index, name, path) for name, index in self._names.items()}

    def infer(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the model on the CPU; see `edgekd._target.ForeignNetwork.infer`."""
        try:
            interpreter = started(self._data, 1)
            placed = pixels.transpose(0, 2, 3, 1) if self._channels_last else pixels
            interpreter.set_tensor(int(self._main.inputs[0]), np.ascontiguousarray(placed))
            interpreter.invoke()
            return {name: np.array(interpreter.get_tensor(index)) for name, index in self._names.items()}
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"{self.runtime} cannot run {self.files[0]}: {error}") from error

    def join(self, decoder: HeadDecoder) -> Built:
        """Return a model that ends in boxes and scores; weights stay as the file holds them."""
        converted = convert_graph(decoder.graph, json.dumps({"boxes": decoder.layout, "scores": None}))
        model, tail = read_model(self._data), read_model(converted.model)
        (signature,) = tail.signatureDefs
        places = {int(item.tensorIndex): _text(item.name) for item in signature.inputs}
        order = list(decoder.takes.values())  # inputs are args_0, args_1, ... in the order of the graph's
        sources = [self._names[order[int(places[int(item)].rpartition("_")[2])]] for item in tail.subgraphs[0].inputs]
        named = {int(item.tensorIndex): bytes(item.name) for item in signature.outputs}
        outputs = [named[int(item)] for item in tail.subgraphs[0].outputs]
        try:
            _join.append(model, tail, sources)
            if self._channels_last:
                _join.put_channels_first(model)
            _join.name_ends(model, outputs)
            data = model_bytes(model)
            started(data, 1)
        except (RuntimeError, ValueError) as error:
            raise BuildError(f"{self.runtime} cannot start the network with its decoding: {error}") from error
        return Built(files={"model.tflite": data}, tools=converted.tools)

    def _tensor(self, index: int) -> Any:
        return self._main.tensors[index]

    def _image(self, path: Path) -> int:
        """Return the tensor of the one input."""
        found = [self._tensor(int(item)) for item in self._main.inputs]
        listed = ", ".join(f"{_text(item.name)} {_sides(item)}" for item in found)
        if len(found) != 1:
            raise UsageError(f"{path} has {len(found)} inputs ({listed}); a detector takes one, the image")
        if TYPES[found[0].type] != "FLOAT32":
            raise UsageError(f"input {listed} of {path} is {TYPES[found[0].type]}; possible: FLOAT32")
        return int(self._main.inputs[0])

    def _output_names(self) -> dict[str, int]:
        """Return the tensor of each output, in the file's order: by the name in its signature, if it has one."""
        signatures = [item for item in self._model.signatureDefs or () if item.subgraphIndex == 0]
        said = signatures[0].outputs if len(signatures) == 1 else ()
        names = {int(item.tensorIndex): _text(item.name) for item in said}
        return {names.get(index, _text(self._tensor(index).name)): index for index in map(int, self._main.outputs)}

    def _shape(self, index: int, name: str, path: Path) -> tuple[int, ...]:
        tensor = self._tensor(index)
        if TYPES[tensor.type] != "FLOAT32":
            raise UsageError(f"output {name} of {path} is {TYPES[tensor.type]}; possible: FLOAT32")
        return inner_shape(_sides(tensor), name, path)


def _read(path: Path) -> bytes:
    """Return the file, once LiteRT has checked that it is a model and can be planned."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if data[4:8] != b"TFL3":
        raise UsageError(f"{path} is not a LiteRT model: it lacks the mark TFL3")
    try:
        started(data, 1)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{RUNTIME} cannot start {path}: {str(error)[:MESSAGE]}") from error
    return data


def _check_operators(model: Any, path: Path) -> None:
    kinds = {operator_name(code) for code in model.operatorCodes}
    kinds |= {_text(code.customCode) for code in model.operatorCodes if code.customCode}
    found = sorted(kind for kind in kinds if "NON_MAX_SUPPRESSION" in kind or "Detection_PostProcess" in kind)
    if found:
        raise suppresses(found, path)


def _precision(model: Any, path: Path) -> str:
    """Return how the weights are held.

    Raises:
        UsageError: in less than 16 bits, or in another type of float.
    """
    kinds = {TYPES[tensor.type] for subgraph in model.subgraphs for tensor in subgraph.tensors}
    others = sorted(kinds - FLOATS - WHOLE)
    if others:
        raise UsageError(
            f"{path} is quantized ({', '.join(others)}): edgekd runs int8 only with a receipt of what it lost against "
            "the float network, which this file does not hold. Import the float model (as ONNX: then edgekd build "
            "--precision int8)"
        )
    return "fp16" if "FLOAT16" in kinds else "fp32"


def _sides(tensor: Any) -> list[int | None]:
    """Return the sides of a tensor; None where the model leaves one open."""
    said = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return [None if side < 0 else int(side) for side in (() if said is None else said)]


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
