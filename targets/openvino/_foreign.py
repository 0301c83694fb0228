"""Somebody else's OpenVINO IR: what is in it, and its head decoded behind it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
from openvino import opset13 as ops

from edgekd._image_input import channels_come_last, image_size, inner_shape, suppresses
from edgekd.errors import BuildError, UsageError

from ._build import packed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd._target import Built, HeadDecoder

FLOATS = {"f32": "fp32", "f16": "fp16"}
QUANTIZING = {"FakeQuantize", "FakeConvert"}


class ForeignIR:
    """An IR with one image in, read and checked; see `edgekd._target.ForeignNetwork`."""

    def __init__(self, path: Path, size: tuple[int, int] | None) -> None:
        """Read and check; see `edgekd.targets.openvino.read_foreign`."""
        self.files = (path, path.with_suffix(".bin"))
        self.runtime = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self._model = _read(*self.files)
        image = _image(self._model, path)
        sides = _sides(image)
        self._channels_last = channels_come_last(sides, _name(image), path)
        self.height, self.width = image_size(sides, self._channels_last, size, path)
        inner = (self.height, self.width, 3) if self._channels_last else (3, self.height, self.width)
        try:
            self._model.reshape({image: [1, *inner]})
        except RuntimeError as error:
            raise UsageError(f"{path} cannot take one image of {self.width}x{self.height} px: {error}") from error
        self.outputs = {_name(item): inner_shape(_sides(item), _name(item), path) for item in self._model.outputs}
        _check_operators(self._model, path)
        self.precision = _precision(self._model, path)

    def infer(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the IR on the CPU; see `edgekd._target.ForeignNetwork.infer`."""
        image = self._model.inputs[0]
        placed = pixels.transpose(0, 2, 3, 1) if self._channels_last else pixels
        placed = np.ascontiguousarray(placed, np.float16 if _kind(image) == "f16" else np.float32)
        try:  # left alone, the CPU plugin computes in bfloat16 where it can
            compiled = openvino.Core().compile_model(self._model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            found = compiled([placed])
        except RuntimeError as error:
            raise UsageError(f"{self.runtime} cannot run {self.files[0]}: {error}") from error
        return {name: np.array(found[index], np.float32) for index, name in enumerate(self.outputs)}

    def join(self, decoder: HeadDecoder) -> Built:
        """Return an IR that ends in boxes and scores; constants stay as the file holds them."""
        try:
            model = self._model.clone()
            tail = openvino.Core().read_model(io.BytesIO(decoder.graph))
            made = {
                name: item.get_node().input_value(0) for name, item in zip(self.outputs, model.outputs, strict=True)
            }
            for operator in model.get_ops():  # its names would meet those of the decoder
                for output in operator.outputs():
                    output.set_names(set())
            for parameter in tail.get_parameters():
                source = made[decoder.takes[_name(parameter.output(0))]]
                parameter.output(0).replace(source if _kind(source) == "f32" else ops.convert(source, "f32").output(0))
            front = self._front(model.get_parameters()[0])
            return packed(openvino.Model(tail.get_results(), [front], "detector"), compress_to_fp16=False)
        except RuntimeError as error:
            raise BuildError(f"{self.runtime} cannot join the decoding of the head to the network: {error}") from error

    def _front(self, image: Any) -> Any:
        """Put a float32 input `(1, 3, H, W)` before a network's own, and return it."""
        front = ops.parameter([1, 3, self.height, self.width], np.float32, "images")
        front.output(0).set_names({"images"})
        value = front if _kind(image.output(0)) == "f32" else ops.convert(front, "f16")
        if self._channels_last:
            value = ops.transpose(value, ops.constant(np.array([0, 2, 3, 1])))
        image.output(0).replace(value.output(0))
        return front


def _read(path: Path, weights: Path) -> Any:
    for file in (path, weights):
        if not file.is_file():
            raise UsageError(f"no file at {file}; an OpenVINO model is two files, model.xml and model.bin beside it")
    try:
        return openvino.Core().read_model(path, weights)
    except RuntimeError as error:
        raise UsageError(f"{path} is not a sound OpenVINO model: {error}") from error


def _image(model: Any, path: Path) -> Any:
    """Return the one input."""
    listed = ", ".join(f"{_name(item)} {_sides(item)}" for item in model.inputs)
    if len(model.inputs) != 1:
        raise UsageError(f"{path} has {len(model.inputs)} inputs ({listed}); a detector takes one, the image")
    if _kind(model.inputs[0]) not in FLOATS:
        raise UsageError(f"input {listed} of {path} is {_kind(model.inputs[0])}; possible: {', '.join(FLOATS)}")
    return model.inputs[0]


def _check_operators(model: Any, path: Path) -> None:
    kinds = sorted({item.get_type_name() for item in model.get_ops()})
    found = [kind for kind in kinds if kind.endswith(("NonMaxSuppression", "Nms", "DetectionOutput"))]
    if found:
        raise suppresses(found, path)
    for item in model.outputs:
        if _kind(item) not in FLOATS:
            raise UsageError(f"output {_name(item)} of {path} is {_kind(item)}; possible: {', '.join(FLOATS)}")


def _precision(model: Any, path: Path) -> str:
    """Return how the weights are held.

    Raises:
        UsageError: in less than 16 bits, or in another type of float.
    """
    weights = {_kind(item.output(0)) for item in model.get_ops() if _is_weight(item)}
    quantizing = {item.get_type_name() for item in model.get_ops()} & QUANTIZING
    others = sorted((weights - {"i32", "i64", "boolean"} - set(FLOATS)) | quantizing)
    if others:
        raise UsageError(
            f"{path} is quantized ({', '.join(others)}): edgekd runs int8 only with a receipt of what it lost against "
            "the float network, which this file does not hold. Import the float model (as ONNX: then edgekd build "
            "--precision int8)"
        )
    return "fp16" if "f16" in weights else "fp32"


def _is_weight(item: Any) -> bool:
    return bool(item.get_type_name() == "Constant" and len(item.output(0).get_shape()) > 1)


def _name(value: Any) -> str:
    """Return the name of a tensor, or where it has none of the operator that makes it."""
    made = value.get_node().input_value(0).get_node() if value.get_node().get_type_name() == "Result" else None
    names = value.get_names()
    return str(min(names) if names else (made or value.get_node()).get_friendly_name())


def _kind(value: Any) -> str:
    return str(value.get_element_type().get_type_name())


def _sides(value: Any) -> list[int | None]:
    """Return the sides of a tensor; None where it leaves one open."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic:
        return []
    return [None if side.is_dynamic else side.get_length() for side in shape]
