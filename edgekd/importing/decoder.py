"""`decode`: a foreign graph and what its head means, joined to one graph with boxes and scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import onnxslim
from onnx import TensorProto, helper, numpy_helper

from ..errors import BuildError
from .foreign import like

if TYPE_CHECKING:
    from .foreign import Foreign
    from .heads import Decoding


class Decoded(NamedTuple):
    """The portable graph, input "images", outputs "boxes" and "scores", float32; and their shapes without the batch."""

    graph: bytes
    boxes: tuple[int, ...]
    scores: tuple[int, ...]


def decode(foreign: Foreign, decoding: Decoding) -> Decoded:
    """Join a graph and the decoding of its head; outputs that are not decoded are dropped.

    Raises:
        BuildError: ONNX cannot join or infer the two; a fault of the decoding, or of a graph that is not what it says.
    """
    try:
        tail = like(_tail(foreign, decoding), foreign.model)
        io = [(f"net/{output}", name) for name, output in decoding.takes.items()]
        whole = onnx.compose.merge_models(foreign.model, tail, io_map=io, outputs=["boxes", "scores"])
        graph = onnx.shape_inference.infer_shapes(onnxslim.slim(whole))
        _tidy(graph)
        onnx.checker.check_model(graph, full_check=True)
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise BuildError(f"the decoding of the head cannot be joined to the graph: {error}") from error
    boxes, scores = (
        tuple(side.dim_value for side in item.type.tensor_type.shape.dim[1:]) for item in graph.graph.output
    )
    return Decoded(bytes(graph.SerializeToString(deterministic=True)), boxes, scores)


def _tail(foreign: Foreign, decoding: Decoding) -> onnx.GraphProto:
    """Return the decoding as a graph; half-precision outputs are widened first."""
    kinds = {item.name: item.type.tensor_type.elem_type for item in foreign.model.graph.output}
    nodes = onnx.parser.parse_graph(f"tail (float raw) => (float boxes) {{ {decoding.steps} }}").node
    inputs, widened = [], []
    for name, output in decoding.takes.items():
        kind = kinds[f"net/{output}"]
        inputs.append(helper.make_tensor_value_info(name, kind, [None, *foreign.outputs[output]]))
        widened.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
    for node in nodes:
        node.input[:] = [f"{item}_float" if item in decoding.takes else item for item in node.input]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in decoding.constants.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in ("boxes", "scores")]
    return helper.make_graph([*widened, *nodes], "decoder", inputs, outputs, constants)


def _tidy(model: onnx.ModelProto) -> None:
    """Drop what differs between machines and names their folders."""
    model.producer_name = "edgekd"
    model.producer_version = ""
    model.ClearField("doc_string")
    del model.metadata_props[:]
    model.graph.name = "detector"
    model.graph.ClearField("doc_string")
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
