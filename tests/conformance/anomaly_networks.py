"""A small anomaly network as ONNX bytes, built by hand: quick, without torch, with the operators of real exports."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgekd import geometry

from .detectors import OPSET, Graph

SIGMA = 1.0


def anomaly_network(height: int = 64, width: int = 96, seed: int = 0, channels: int = 16) -> bytes:
    """Return images (B, 3, H, W) to map (B, 1, H / 4, W / 4) and score (B,): two teachers, and a student that guesses.

    Both sides are multiples of 16. The weights are random, so the student is wrong by a lot; more so in some places.
    """
    g = Graph(seed)
    stem = g.op("Relu", g.conv("images", 3, channels, stride=2))
    fine = _fused(g, *(g.op("Relu", g.conv(stem, channels, channels, stride=2)) for _ in range(2)), channels)
    coarse = g.op("Relu", g.conv(fine, channels, 2 * channels, stride=2))
    code = g.op("Relu", g.conv(coarse, 2 * channels, 2 * channels, stride=2))
    wide = g.op("Relu", g.conv(_twice(g, code), 2 * channels, 2 * channels))
    narrow = g.op("Relu", g.conv(_twice(g, wide), 2 * channels, channels))
    maps = [
        _distance(g, fine, g.conv(narrow, channels, channels, kernel=1)),
        _distance(g, coarse, g.conv(wide, 2 * channels, 2 * channels, kernel=1)),
    ]
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    enlarged = g.op("Resize", maps[1], "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    g.op("Add", maps[0], enlarged, name="map")
    high, wide_ = height // 4, width // 4
    blurred = _blur(g, _blur(g, "map", 2, high), 3, wide_)
    peak = g.op("MaxPool", blurred, kernel_shape=[high, wide_], strides=[high, wide_])
    g.op("Reshape", peak, g.constant(np.array([-1], np.int64)), name="score")
    return _model(g, height, width)


def _twice(g: Graph, x: str) -> str:
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    return g.op(
        "Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def _fused(g: Graph, one: str, other: str, channels: int) -> str:
    """Append w * one + (1 - w) * other, with a learnt gate w, as two teachers are fused."""
    gate = g.op("Sigmoid", g.conv(g.op("Add", one, other), channels, channels, kernel=1))
    rest = g.op("Sub", g.constant(np.array(1, np.float32)), gate)
    return g.op("Add", g.op("Mul", gate, one), g.op("Mul", rest, other))


def _distance(g: Graph, one: str, other: str) -> str:
    """Append 1 - cosine over the channels, (B, 1, h, w)."""
    channel, least = g.constant(np.array([1], np.int64)), g.constant(np.array(1e-16, np.float32))
    dot = g.op("ReduceSum", g.op("Mul", one, other), channel, keepdims=1)
    for each in (one, other):
        square = g.op("ReduceSum", g.op("Mul", each, each), channel, keepdims=1)
        dot = g.op("Div", dot, g.op("Sqrt", g.op("Clip", square, least)))
    return g.op("Relu", g.op("Sub", g.constant(np.array(1, np.float32)), dot))


def _blur(g: Graph, x: str, axis: int, size: int) -> str:
    """Append a Gaussian blur along one axis, with reflected borders by slices, as exports have them."""
    half = geometry.gaussian(SIGMA)
    radius = len(half) - 1

    def line(place: int) -> str:
        return g.op("Slice", x, *(g.constant(np.array([v], np.int64)) for v in (place, place + 1, axis)))

    before = [line(place) for place in range(radius, 0, -1)]
    after = [line(size - 1 - place) for place in range(1, radius + 1)]
    padded = g.op("Concat", *before, x, *after, axis=axis)
    shape = [2 * radius + 1, 1] if axis == 2 else [1, 2 * radius + 1]
    kernel = g.constant(np.concatenate([half[::-1], half[1:]]).reshape(1, 1, *shape))
    return g.op("Conv", padded, kernel, kernel_shape=shape)


def _model(g: Graph, height: int, width: int) -> bytes:
    graph = helper.make_graph(
        g.nodes,
        "anomaly",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])],
        [
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", 1, height // 4, width // 4]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"]),
        ],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
