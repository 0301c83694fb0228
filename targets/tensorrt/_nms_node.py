"""The typed graph with pixels in front and suppression behind: all that a single engine computes.

A board asks for these names and for whether an engine can be made, and seldom has onnx: it is imported when one is.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from ._jobs import workspace_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from edgekd._manifest import InputSpec, OutputSpec

FLOAT_BYTES = 4
NAMESPACE, NAME = "edgekd", "edgekd_suppress"
OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
"""Names and order that DeepStream's and Triton's parsers of NMS engines look for."""
WORKSPACE = "edgekd_workspace"  # an output that nobody reads: a plugin made ahead of time is given no other memory


@dataclass(frozen=True)
class Wish:
    """What is suppressed, written into the engine: it cannot be changed afterwards.

    Attributes:
        conf: least score, exclusive.
        iou: most overlap, inclusive.
        max_det: rows of the outputs of an image.
        max_candidates: boxes that reach the suppression, at most.
        batch: largest batch of the engine; 1 is what it is tuned for.
    """

    conf: float
    iou: float
    max_det: int
    max_candidates: int
    batch: int = 1


def missing() -> str | None:
    """Return what this machine lacks to write such a graph, or None."""
    if find_spec("onnx") is None:
        return "suppression is put into the graph with onnx, which is missing: pip install onnx"
    return None


def with_suppression(data: bytes, spec: InputSpec, outputs: Sequence[OutputSpec], wish: Wish, capability: int) -> bytes:
    """Return the graph that takes letterboxed pixels, 0 to 255, and gives detections in pixels of the network.

    Args:
        data: typed ONNX of a detector: normalised pixels to boxes and scores, all float32.
        spec: its input.
        outputs: its boxes and scores.
        wish: what to keep.
        capability: compute capability times ten, for which the kernel is compiled.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(data)
    graph = model.graph
    _normalise(graph, spec)
    boxes, scores = outputs
    rows, columns = boxes.shape
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    node = helper.make_node(
        NAME, [boxes.name, scores.name], [*OUTPUTS, WORKSPACE], NAME, domain=NAMESPACE,
        plugin_namespace=NAMESPACE, plugin_version="1", aot=1, conf=float(wish.conf), iou=float(wish.iou),
        max_det=wish.max_det, max_candidates=wish.max_candidates, columns=columns, capability=capability,
        workspace=workspace_bytes(1, rows, columns, wish.max_candidates) // FLOAT_BYTES,
    )  # fmt: skip
    graph.node.append(node)
    shapes: tuple[tuple[int, ...], ...] = ((1,), (wish.max_det, columns), (wish.max_det,), (wish.max_det,))
    known = {item.name for item in graph.value_info}
    graph.value_info.extend(item for item in graph.output if item.name not in known)
    del graph.output[:]
    for name, shape in zip(OUTPUTS, shapes, strict=True):
        whole = name in (OUTPUTS[0], OUTPUTS[3])
        kind = TensorProto.INT32 if whole else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(name, kind, [batch.dim_param or batch.dim_value, *shape]))
    model.opset_import.append(helper.make_opsetid(NAMESPACE, 1))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _normalise(graph: onnx.GraphProto, spec: InputSpec) -> None:
    """Let the graph subtract the mean and divide by the standard deviation, in float32."""
    from onnx import helper, numpy_helper

    source = spec.name
    for node in graph.node:
        node.input[:] = [f"{source}_normalised" if name == source else name for name in node.input]
    parts = {f"{source}_mean": spec.mean, f"{source}_std": spec.std}
    for name, values in parts.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32).reshape(1, 3, 1, 1), name))
    first = [
        helper.make_node("Sub", [source, f"{source}_mean"], [f"{source}_centred"], f"{source}_subtract"),
        helper.make_node("Div", [f"{source}_centred", f"{source}_std"], [f"{source}_normalised"], f"{source}_divide"),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
