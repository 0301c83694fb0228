"""What a head means, as ONNX: joined to a foreign graph (`decode`), or by itself (`decoder`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import onnxruntime
import onnxslim
from onnx import TensorProto, helper, numpy_helper

from ..errors import BuildError
from .foreign import IR_VERSION, OPSET, like

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .foreign import Foreign
    from .heads import Decoding, Shapes

RESULTS = ("boxes", "scores")


class Decoded(NamedTuple):
    """A graph with the outputs "boxes" and "scores", float32, and their shapes without the batch."""

    graph: bytes
    boxes: tuple[int, ...]
    scores: tuple[int, ...]


def decode(foreign: Foreign, decoding: Decoding) -> Decoded:
    """Join a graph and the decoding of its head to a portable graph; outputs that are not decoded are dropped.

    Raises:
        BuildError: ONNX cannot join or infer the two; a fault of the decoding, or of a graph that is not what it says.
    """
    try:
        kinds = {item.name.removeprefix("net/"): item.type.tensor_type.elem_type for item in foreign.model.graph.output}
        tail = like(_tail(kinds, foreign.outputs, decoding, None), foreign.model)
        io = [(f"net/{output}", name) for name, output in decoding.takes.items()]
        whole = onnx.compose.merge_models(foreign.model, tail, io_map=io, outputs=list(RESULTS))
        return _checked(onnx.shape_inference.infer_shapes(onnxslim.slim(whole)))
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise BuildError(f"the decoding of the head cannot be joined to the graph: {error}") from error


def decoder(outputs: Shapes, decoding: Decoding) -> Decoded:
    """Return the decoding by itself, for batch 1: its inputs have the names of `decoding.takes`.

    Args:
        outputs: of the network, float32.
        decoding: of its head.

    Raises:
        BuildError: ONNX cannot infer it; a fault of the decoding.
    """
    kinds = dict.fromkeys(outputs, int(TensorProto.FLOAT))
    try:
        graph = helper.make_model(
            _tail(kinds, outputs, decoding, 1), ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )
        return _checked(onnx.shape_inference.infer_shapes(graph))
    except (RuntimeError, ValueError, TypeError, onnx.checker.ValidationError) as error:
        raise BuildError(f"the decoding of the head cannot be written as a graph: {error}") from error


def run_decoder(graph: bytes, values: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return boxes and scores, as ONNX Runtime decodes the outputs of a network.

    Args:
        graph: of `decoder`.
        values: by the names of its inputs.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return list(session.run(["boxes", "scores"], dict(values)))


def _tail(kinds: Mapping[str, int], outputs: Shapes, decoding: Decoding, batch: int | None) -> onnx.GraphProto:
    """Return the decoding as a graph; half-precision outputs are widened first.

    Args:
        kinds: output of the network -> its type in ONNX.
        outputs: of the network.
        decoding: of its head.
        batch: None: any.
    """
    nodes = onnx.parser.parse_graph(f"tail (float raw) => (float boxes) {{ {decoding.steps} }}").node
    inputs, widened = [], []
    for name, output in decoding.takes.items():
        inputs.append(helper.make_tensor_value_info(name, kinds[output], [batch, *outputs[output]]))
        widened.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
    for node in nodes:
        node.input[:] = [f"{item}_float" if item in decoding.takes else item for item in node.input]
    read = {item for node in nodes for item in node.input}
    constants = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in decoding.constants.items() if name in read
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, None, None]) for name in RESULTS]
    return helper.make_graph([*widened, *nodes], "decoder", inputs, results, constants)


def _checked(graph: onnx.ModelProto) -> Decoded:
    _tidy(graph)
    onnx.checker.check_model(graph, full_check=True)
    boxes, scores = (
        tuple(side.dim_value for side in item.type.tensor_type.shape.dim[1:]) for item in graph.graph.output
    )
    return Decoded(bytes(graph.SerializeToString(deterministic=True)), boxes, scores)


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
