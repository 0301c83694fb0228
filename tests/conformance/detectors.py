"""Small detectors as ONNX bytes, built by hand: quick, without torch, with the operators of real exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 17
STRIDES = (8, 16)


class Graph:
    """Nodes and initializers of one ONNX graph, appended in order."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def conv(
        self, x: str, into: int, out: int, kernel: int = 3, stride: int = 1, group: int = 1, bias: float = 0.0
    ) -> str:
        fan_in = into // group * kernel * kernel
        weight = self.rng.normal(0.0, np.sqrt(2.0 / fan_in), (out, into // group, kernel, kernel)).astype(np.float32)
        shift = (bias + self.rng.normal(0.0, 0.1, out)).astype(np.float32)
        return self.op(
            "Conv", x, self.constant(weight), self.constant(shift),
            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[kernel // 2] * 4, group=group,
        )  # fmt: skip

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))


def detector(
    height: int = 64,
    width: int = 96,
    classes: int = 3,
    seed: int = 0,
    channels: int = 8,
    *,
    oriented: bool = False,
) -> bytes:
    """Return a two-level anchor-free detector: images (B, 3, H, W) to boxes (B, N, 4) xyxy and scores (B, N, classes).

    Oriented ones give boxes (B, N, 5) xywhr: radians, clockwise, long edge first, in [-pi/2, pi/2).

    N is height * width * (1/64 + 1/256). The weights are random, the biases such that boxes of many sizes come with
    scores spread over [0, 1].
    """
    g = Graph(seed)
    x = g.silu(g.conv("images", 3, channels, stride=2))
    x = g.op("Relu", g.conv(g.conv(x, channels, channels, stride=2, group=channels), channels, 2 * channels, kernel=1))
    fine = g.silu(g.conv(x, 2 * channels, 2 * channels, stride=2))
    coarse = g.op("HardSwish", g.conv(fine, 2 * channels, 2 * channels, stride=2))
    pooled = g.op("MaxPool", coarse, kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
    coarse = g.silu(g.conv(g.op("Concat", coarse, pooled, axis=1), 4 * channels, 2 * channels, kernel=1))
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    up = g.op(
        "Resize", coarse, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    fine = g.op("Add", fine, up)
    branches = [(4, 0.5), (classes, -1.0), (1, 0.0)][: 3 if oriented else 2]  # sides, classes, angle
    levels = [_head(g, level, 2 * channels, branches) for level in (fine, coarse)]
    sides, logits, *angle = (g.op("Concat", *parts, axis=1) for parts in zip(*levels, strict=True))
    centre, distance = _distances(g, sides, height, width)
    if oriented:
        _decode_oriented(g, centre, distance, angle[0])
    else:
        _decode(g, centre, distance)
    g.op("Sigmoid", logits, name="scores")
    return _model(g, height, width, 5 if oriented else 4, classes)


def _head(g: Graph, level: str, channels: int, branches: list[tuple[int, float]]) -> list[str]:
    tower = g.silu(g.conv(level, channels, channels))
    flat = []
    for out, bias in branches:
        rows = g.op(
            "Reshape", g.conv(tower, channels, out, kernel=1, bias=bias), g.constant(np.array([0, out, -1], np.int64))
        )
        flat.append(g.op("Transpose", rows, perm=[0, 2, 1]))
    return flat


def _distances(g: Graph, sides: str, height: int, width: int) -> tuple[str, str]:
    """Append the points (1, N, 2) and the distances left, top, right, bottom (B, N, 4) from them, in pixels."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride].reshape(2, -1)
        points.append((np.stack([x, y], axis=1) + 0.5) * stride)
        strides.append(np.full((x.size, 1), stride))
    centre = g.constant(np.concatenate(points)[None].astype(np.float32))
    stride = g.constant(np.concatenate(strides)[None].astype(np.float32))
    return centre, g.op("Mul", g.op("Softplus", sides), stride)


def _columns(g: Graph, x: str, start: int, stop: int) -> str:
    return g.op("Slice", x, *(g.constant(np.array([v], np.int64)) for v in (start, stop, 2)))


def _decode(g: Graph, centre: str, distance: str) -> None:
    """Append point ± distance, as in FCOS (Tian et al., ICCV 2019, section 3.1)."""
    left_top, right_bottom = _columns(g, distance, 0, 2), _columns(g, distance, 2, 4)
    low, high = g.op("Sub", centre, left_top), g.op("Add", centre, right_bottom)
    g.op("Concat", low, high, axis=2, name="boxes")


def _decode_oriented(g: Graph, centre: str, distance: str, angle: str) -> None:
    """Append distances along turned axes, and the long-edge rule, which jumps at squares and at pi/2."""
    two, quarter, half = (g.constant(np.array(value, np.float32)) for value in (2.0, np.pi / 2, 0.5))
    whole, none = (g.constant(np.array(value, np.float32)) for value in (np.pi, 0.0))
    angle = g.op("Mul", angle, two)
    left, top, right, bottom = (_columns(g, distance, i, i + 1) for i in range(4))
    wide, high = g.op("Add", left, right), g.op("Add", top, bottom)
    along, across = (g.op("Mul", g.op("Sub", *pair), half) for pair in ((right, left), (bottom, top)))
    cosine, sine = g.op("Cos", angle), g.op("Sin", angle)
    shift_x = g.op("Sub", g.op("Mul", cosine, along), g.op("Mul", sine, across))
    shift_y = g.op("Add", g.op("Mul", sine, along), g.op("Mul", cosine, across))
    middle = g.op("Add", centre, g.op("Concat", shift_x, shift_y, axis=2))
    turned = g.op("Add", angle, g.op("Where", g.op("Less", wide, high), quarter, none))
    turns = g.op("Floor", g.op("Add", g.op("Div", turned, whole), half))
    wrapped = g.op("Sub", turned, g.op("Mul", turns, whole))
    g.op("Concat", middle, g.op("Max", wide, high), g.op("Min", wide, high), wrapped, axis=2, name="boxes")


def _model(g: Graph, height: int, width: int, columns: int, classes: int) -> bytes:
    rows = sum((height // s) * (width // s) for s in STRIDES)
    graph = helper.make_graph(
        g.nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", rows, columns]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", rows, classes]),
        ],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
