"""A detector that works, written by hand: bright 8 x 8 cells of one colour are objects of that colour's class.

Its scores are near 1 or near 0, so an int8 form of it decides the same unless something is really wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd._manifest import OutputSpec

from ..conformance.detectors import OPSET, Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEIGHT, WIDTH, CELL = 64, 96, 8
CLASSES = ("red", "green", "blue")
CHANNELS = 8
ROWS = (HEIGHT // CELL) * (WIDTH // CELL)
FIRST = 24  # cells from one object to the next, at least: they never touch


def colours(*, oriented: bool = False, outlier: bool = False, top: int = 0, gain: float = 4.0) -> bytes:
    """Return images (B, 3, 64, 96) to boxes (B, 96, 4 | 5) and scores (B, 96, 3), one row a cell.

    Args:
        oriented: boxes are xywhr.
        outlier: the fourth layer writes its first channel 1000 times as large, and the fifth, which reads it, makes up
            for that: in one int8 tensor nothing is left of the other channels.
        top: rows that a TopK inside the graph leaves; 0: all.
        gain: of the logits.
    """
    g = Graph(0)
    x = "images"
    for into in (3, CHANNELS, CHANNELS):
        x = g.op("Relu", _patches(g, x, into))
    for index in range(4):
        before, after = np.ones(CHANNELS), np.ones(CHANNELS)
        if outlier and index == 0:
            after[0] = 1000
        if outlier and index == 1:
            before[0] = 1000
        x = g.op("Relu", _mix(g, x, before, after))
    logits = _rows(g, _head(g, x, gain), 3)
    boxes = _boxes(g, _rows(g, _sides(g, x, 5 if oriented else 4), 5 if oriented else 4), oriented=oriented)
    scores = g.op("Sigmoid", logits)
    if top:
        boxes, scores = _top(g, boxes, scores, top, 5 if oriented else 4)
    for name, made in (("boxes", boxes), ("scores", scores)):
        g.op("Identity", made, name=name)
    return _model(g, top or ROWS, 5 if oriented else 4)


def outputs(*, oriented: bool = False, rows: int = ROWS) -> tuple[OutputSpec, OutputSpec]:
    """Return what the manifest says of `colours`."""
    columns, layout = (5, "xywhr") if oriented else (4, "xyxy")
    return (
        OutputSpec(name="boxes", kind="boxes", shape=(rows, columns), layout=layout),
        OutputSpec(name="scores", kind="scores", shape=(rows, len(CLASSES)), activation="sigmoid"),
    )


def scene(seed: int, light: float = 1.0) -> NDArray[np.uint8]:
    """Return a dark picture (64, 96, 3) with some lit cells."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 30, (HEIGHT, WIDTH, 3))
    for row in range(0, HEIGHT, FIRST):
        for column in range(0, WIDTH, FIRST):
            if rng.random() < 0.7:
                y, x = row + 8 * int(rng.integers(0, 2)), column + 8 * int(rng.integers(0, 2))
                if y + CELL <= HEIGHT:
                    picture[y : y + CELL, x : x + CELL, rng.integers(0, 3)] = rng.integers(225, 256)
    return np.asarray(picture * light, np.uint8)


def _patches(g: Graph, x: str, into: int) -> str:
    """Append the mean of 2 x 2 places for the three colours, and other mixtures of them."""
    weights = g.rng.normal(0, 0.02, (CHANNELS, into, 2, 2)).astype(np.float32)
    weights[:3, :3] += np.eye(3, dtype=np.float32)[:, :, None, None] / 4
    bias = np.zeros(CHANNELS, np.float32)
    return g.op("Conv", x, g.constant(weights), g.constant(bias), kernel_shape=[2, 2], strides=[2, 2])


def _mix(g: Graph, x: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> str:
    weights = (np.eye(CHANNELS) + g.rng.normal(0, 0.02, (CHANNELS, CHANNELS))) * after[:, None] / before[None]
    bias = (g.rng.normal(0, 0.01, CHANNELS) * after).astype(np.float32)
    weight = g.constant(weights.astype(np.float32)[:, :, None, None])
    return g.op("Conv", x, weight, g.constant(bias), kernel_shape=[1, 1])


def _head(g: Graph, x: str, gain: float) -> str:
    weights = g.rng.normal(0, 0.02, (3, CHANNELS, 1, 1)).astype(np.float32)
    weights[:, :3, 0, 0] += gain * np.eye(3, dtype=np.float32)
    return g.op("Conv", x, g.constant(weights), g.constant(np.full(3, -5, np.float32)), kernel_shape=[1, 1])


def _sides(g: Graph, x: str, out: int) -> str:
    weights = g.rng.normal(0, 0.02, (out, CHANNELS, 1, 1)).astype(np.float32)
    bias = np.array([1.0, 1.2, 1.1, 0.9, 0.3][:out], np.float32)
    return g.op("Conv", x, g.constant(weights), g.constant(bias), kernel_shape=[1, 1])


def _rows(g: Graph, x: str, channels: int) -> str:
    flat = g.op("Reshape", x, g.constant(np.array([0, channels, -1], np.int64)))
    return g.op("Transpose", flat, perm=[0, 2, 1])


def _columns(g: Graph, x: str, start: int, stop: int) -> str:
    return g.op("Slice", x, *(g.constant(np.array([v], np.int64)) for v in (start, stop, 2)))


def _boxes(g: Graph, raw: str, *, oriented: bool) -> str:
    """Append centre -+ exp(raw) * 4; or centre, a long and a short side, and the angle."""
    y, x = np.mgrid[0 : HEIGHT // CELL, 0 : WIDTH // CELL].reshape(2, -1)
    centre = g.constant(((np.stack([x, y], axis=1) + 0.5) * CELL)[None].astype(np.float32))
    sides = g.op("Mul", g.op("Exp", _columns(g, raw, 0, 4)), g.constant(np.array(4, np.float32)))
    low, high = _columns(g, sides, 0, 2), _columns(g, sides, 2, 4)
    if not oriented:
        return g.op("Concat", g.op("Sub", centre, low), g.op("Add", centre, high), axis=2)
    long = g.op("Mul", high, g.constant(np.array([2.0, 1.0], np.float32)))
    along = g.op("Mul", g.op("Sub", low, high), g.constant(np.array(0, np.float32)))
    return g.op("Concat", g.op("Add", centre, along), long, _columns(g, raw, 4, 5), axis=2)


def _top(g: Graph, boxes: str, scores: str, top: int, columns: int) -> tuple[str, str]:
    """Append what detectors without suppression end in: the best rows, gathered."""
    best = g.op("ReduceMax", scores, axes=[2], keepdims=0)
    count = g.constant(np.array([top], np.int64))
    g.nodes.append(helper.make_node("TopK", [best, count], ["best", "rows"], name="top", axis=1))
    index = g.op("Unsqueeze", "rows", g.constant(np.array([2], np.int64)))
    picked = []
    for tensor, width in ((boxes, columns), (scores, 3)):
        spread = g.op("Tile", index, g.constant(np.array([1, 1, width], np.int64)))
        picked.append(g.op("GatherElements", tensor, spread, axis=1))
    return picked[0], picked[1]


def _model(g: Graph, rows: int, columns: int) -> bytes:
    body = helper.make_graph(
        g.nodes,
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, HEIGHT, WIDTH])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", rows, columns]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", rows, 3]),
        ],
        g.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def weights_of(graph: bytes) -> list[str]:
    """Return the names of the layers' weights, in order."""
    return [node.input[1] for node in onnx.load_from_string(graph).graph.node if node.op_type == "Conv"]


def on_one_scale(quantized: bytes, largest: float) -> bytes:
    """Return an int8 graph whose boxes and scores were joined, rounded on one scale, and taken apart again."""
    model = onnx.load_from_string(quantized)
    body = model.graph
    for node in body.node:
        if node.output[0] in ("boxes", "scores"):
            node.output[0] += "_alone"
    scale, zero = np.float32(largest / 127), np.int8(0)
    body.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in (("one_scale", scale), ("one_zero", zero), ("parts", np.array([4, 3], np.int64)))
    )
    body.node.extend([
        helper.make_node("Concat", ["boxes_alone", "scores_alone"], ["both"], axis=2),
        helper.make_node("QuantizeLinear", ["both", "one_scale", "one_zero"], ["both_int8"]),
        helper.make_node("DequantizeLinear", ["both_int8", "one_scale", "one_zero"], ["both_float"]),
        helper.make_node("Split", ["both_float", "parts"], ["boxes", "scores"], axis=2),
    ])  # fmt: skip
    return model.SerializeToString()
