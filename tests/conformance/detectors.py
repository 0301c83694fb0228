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


def detector(height: int = 64, width: int = 96, classes: int = 3, seed: int = 0, channels: int = 8) -> bytes:
    """Return a two-level anchor-free detector: images (B, 3, H, W) to boxes (B, N, 4) xyxy and scores (B, N, classes).

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
    sides, logits = zip(*(_head(g, level, 2 * channels, classes) for level in (fine, coarse)), strict=True)
    _decode(g, g.op("Concat", *sides, axis=1), height, width)
    g.op("Sigmoid", g.op("Concat", *logits, axis=1), name="scores")
    return _model(g, height, width, classes)


def _head(g: Graph, level: str, channels: int, classes: int) -> tuple[str, str]:
    tower = g.silu(g.conv(level, channels, channels))
    flat = []
    for out, bias in ((4, 0.5), (classes, -1.0)):
        rows = g.op(
            "Reshape", g.conv(tower, channels, out, kernel=1, bias=bias), g.constant(np.array([0, out, -1], np.int64))
        )
        flat.append(g.op("Transpose", rows, perm=[0, 2, 1]))
    return flat[0], flat[1]


def _decode(g: Graph, sides: str, height: int, width: int) -> None:
    """Append point ± distance times stride, as in FCOS (Tian et al., ICCV 2019, section 3.1)."""
    points, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride].reshape(2, -1)
        points.append((np.stack([x, y], axis=1) + 0.5) * stride)
        strides.append(np.full((x.size, 1), stride))
    centre = g.constant(np.concatenate(points)[None].astype(np.float32))
    stride = g.constant(np.concatenate(strides)[None].astype(np.float32))
    distance = g.op("Mul", g.op("Softplus", sides), stride)
    left_top, right_bottom = (
        g.op("Slice", distance, *(g.constant(np.array([v], np.int64)) for v in (start, start + 2, 2)))
        for start in (0, 2)
    )
    low, high = g.op("Sub", centre, left_top), g.op("Add", centre, right_bottom)
    g.op("Concat", low, high, axis=2, name="boxes")


def _model(g: Graph, height: int, width: int, classes: int) -> bytes:
    rows = sum((height // s) * (width // s) for s in STRIDES)
    graph = helper.make_graph(
        g.nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, height, width])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", rows, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", rows, classes]),
        ],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
