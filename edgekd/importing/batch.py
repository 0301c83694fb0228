"""`any_batch`: a graph that was exported for one image made to take several, where that is shown to change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

IMAGES = 2
TOLERANCE = 1e-4  # of the largest value: kernels of another batch add in another order


def any_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with an open batch, or as it is where that is not possible.

    What exporters fix is the batch of the input and that in the targets of Reshape and Resize. These are opened, and
    two noisy images are run together and one by one: only a graph that gives the same is taken.

    Args:
        model: with one input of floats; its first axis is the batch.
    """
    ends = [value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)]
    if not all(ends) or ends[0][0].dim_value != 1:  # a scalar has no batch
        return model
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    for value in (*opened.graph.input, *opened.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del opened.graph.value_info[:]
    _open_reshapes(opened.graph)
    _open_resizes(opened.graph, onnx.shape_inference.infer_shapes(model).graph)
    return opened if _same(model, opened) else model


def _open_reshapes(graph: onnx.GraphProto) -> None:
    """Let Reshape take its first side from what it reshapes, where it was 1."""
    constants = _constants(graph)
    for name in {node.input[1] for node in graph.node if node.op_type == "Reshape"} & set(constants):
        shape = numpy_helper.to_array(constants[name]).copy()
        if shape.size > 1 and shape[0] == 1:
            shape[0] = 0
            constants[name].CopyFrom(numpy_helper.from_array(shape, constants[name].name))


def _open_resizes(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    """Let Resize say by which factor and not to which size, which counts the images too."""
    constants = _constants(graph)
    sides = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in (*inferred.value_info, *inferred.input)
    }
    for node in graph.node:
        if node.op_type != "Resize" or len(node.input) < 4 or node.input[3] not in constants:
            continue
        old, new = sides.get(node.input[0], []), numpy_helper.to_array(constants[node.input[3]])
        if len(old) == len(new) and all(old):
            name = f"{node.output[0]}_scales"
            graph.initializer.append(numpy_helper.from_array((new / old).astype(np.float32), name))
            node.input[:] = [node.input[0], "", name]


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return the values that are in the graph, by name; changing one changes the graph."""
    found = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def _same(model: onnx.ModelProto, opened: onnx.ModelProto) -> bool:
    value = model.graph.input[0]
    sides = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    kind = np.float16 if value.type.tensor_type.elem_type == TensorProto.FLOAT16 else np.float32
    images = np.random.default_rng(0).uniform(0, 1, (IMAGES, *sides[1:])).astype(kind)
    try:
        together = _run(opened, value.name, images)
        alone = [_run(model, value.name, image[None]) for image in images]
    except Exception:  # whatever ONNX Runtime says of the opened graph: it is not taken
        return False
    expected = [np.concatenate(parts) for parts in zip(*alone, strict=True)]
    return all(
        got.shape == want.shape and np.allclose(got, want, rtol=0, atol=TOLERANCE * max(1.0, np.abs(want).max()))
        for got, want in zip(together, expected, strict=True)
    )


def _run(model: onnx.ModelProto, name: str, images: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails here is not the user's business
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: images}))
