"""`read_foreign`: a foreign ONNX graph whose input is what a bundle's manifest promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import onnx
import onnx.compose
import onnx.version_converter
from onnx import TensorProto, helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from .._image_input import channels_come_last, image_size, inner_shape, suppresses
from ..errors import UsageError
from .batch import any_batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INPUT = "images"
OPSET = 17  # the newest that TensorRT 8.5 (JetPack 5) parses; a newer graph keeps its own
IR_VERSION = 8  # of opset 17
_SUPPRESSING = {"NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "EfficientNMSX_TRT"}


class Foreign(NamedTuple):
    """A graph with one input "images", `(batch, 3, height, width)` float32.

    Attributes:
        model: of opset 17 or later; names inside begin with "net/", those of its outputs too.
        height: of the input, pixels.
        width: of the input, pixels.
        outputs: name, as the file has it, -> shape without the batch.
        files: what was read: the file itself, and those beside it that hold weights.
    """

    model: onnx.ModelProto
    height: int
    width: int
    outputs: dict[str, tuple[int, ...]]
    files: tuple[Path, ...]


def read_foreign(path: Path, size: tuple[int, int] | None) -> Foreign:
    """Read a graph, fix its size, and lay its input out as `(batch, 3, height, width)` float32.

    Args:
        path: of the ONNX file; weights may be in files beside it.
        size: height and width; None: those that the graph names.

    Raises:
        UsageError: no ONNX file, not one input of images, another size than asked for, none at all, or operators that
            suppress boxes; says what was found.
    """
    model, files = _read(path)
    model = _modern(model, path)
    _refuse_suppression(model, path)
    channels_last = _image_axes(model.graph, path)
    height, width = image_size(_dims(model.graph.input[0]), channels_last, size, path)
    _fix(model.graph.input[0], channels_last, height, width)
    del model.graph.value_info[:]  # stale for a graph that took any size
    model = any_batch(model)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    outputs = {item.name: inner_shape(_dims(item), item.name, path) for item in model.graph.output}
    return Foreign(_laid_out(model, channels_last, height, width), height, width, outputs, files)


def _read(path: Path) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    """Return the graph with its weights, and the files that both are in."""
    try:
        model = onnx.load(str(path), load_external_data=False)
        beside = {_place(tensor) for tensor in _tensors(model.graph) if uses_external_data(tensor)}
        load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise UsageError(f"no file at {error.filename or path}") from error
    except Exception as error:  # protobuf's, onnx's and the file system's errors share no base
        raise UsageError(f"{path} is not a sound ONNX model: {error}") from error
    named = {item.name for item in model.graph.initializer}  # before IR 4, weights were inputs as well
    inputs = [item for item in model.graph.input if item.name not in named]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model, (path, *(path.parent / place for place in sorted(beside)))


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Return every constant of a graph, wherever it stands."""
    yield from graph.initializer
    for attribute in (item for node in graph.node for item in node.attribute):
        yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _tensors(inner)


def _place(tensor: onnx.TensorProto) -> str:
    """Return the file of an external constant, as the graph names it."""
    return next((item.value for item in tensor.external_data if item.key == "location"), "")


def _modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Return the graph in opset 17 or, of a newer one, in its own; both with the tables that merging compares."""
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), OPSET)
    model.ir_version = max(model.ir_version, IR_VERSION)
    if opset < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter is C++: RuntimeError and its relatives
            raise UsageError(
                f"{path} is of opset {opset}, and ONNX cannot convert it to {OPSET}: {error}; export it again with "
                f"opset_version={OPSET}"
            ) from error
    return model


def _refuse_suppression(model: onnx.ModelProto, path: Path) -> None:
    found = sorted({node.op_type for node in model.graph.node} & _SUPPRESSING)
    if found:
        raise suppresses(found, path)


def _image_axes(graph: onnx.GraphProto, path: Path) -> bool:
    """Return whether the channels of the one input come last."""
    listed = ", ".join(f"{item.name} {_dims(item)}" for item in graph.input)
    if len(graph.input) != 1:
        raise UsageError(f"{path} has {len(graph.input)} inputs ({listed}); a detector takes one, the image")
    value = graph.input[0]
    if value.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise UsageError(f"input {listed} of {path} is {kind}; possible: FLOAT, FLOAT16")
    return channels_come_last(_dims(value), value.name, path)


def _fix(value: onnx.ValueInfoProto, channels_last: bool, height: int, width: int) -> None:
    axes = (1, 2) if channels_last else (2, 3)
    for axis, side in zip(axes, (height, width), strict=True):
        value.type.tensor_type.shape.dim[axis].dim_value = side
    if _dims(value)[0] is None:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _laid_out(model: onnx.ModelProto, channels_last: bool, height: int, width: int) -> onnx.ModelProto:
    """Return the graph behind the new input; its own names now begin with "net/"."""
    value = model.graph.input[0]
    kind = value.type.tensor_type.elem_type
    first = value.type.tensor_type.shape.dim[0]
    batch = first.dim_value if first.HasField("dim_value") else first.dim_param
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [batch, 3, height, width])
    shape = [batch, height, width, 3] if channels_last else [batch, 3, height, width]
    placed = helper.make_tensor_value_info("placed", kind, shape)
    nodes = [
        helper.make_node("Cast", [INPUT], ["cast"], to=kind),
        helper.make_node("Transpose", ["cast"], ["placed"], perm=[0, 2, 3, 1] if channels_last else [0, 1, 2, 3]),
    ]
    front = helper.make_graph(nodes, "front", [images], [placed])
    net = onnx.compose.add_prefix(model, "net/")
    return onnx.compose.merge_models(like(front, net), net, io_map=[("placed", f"net/{value.name}")])


def like(graph: onnx.GraphProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph as a model of the same versions as another."""
    return helper.make_model(graph, ir_version=model.ir_version, opset_imports=model.opset_import)


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """Return the sides of a tensor; None where the graph leaves one open."""
    return [item.dim_value if item.HasField("dim_value") else None for item in value.type.tensor_type.shape.dim]
