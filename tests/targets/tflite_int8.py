"""What the tests of int8 on LiteRT build and run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np
from edgekd.targets.tflite import _build
from onnx import TensorProto, helper

from edgekd._bundle import Bundle
from edgekd._manifest import Artifact
from edgekd._target import Quantization, load_target

from ..conformance import bundles
from ..conformance.detectors import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET = load_target("tflite")
PIXELS = bundles.pixels(8)
KINDS: dict[str, dict[str, bool]] = {"boxes": {}, "oriented": {"oriented": True}, "anomaly": {"anomaly": True}}


def build(bundle: Bundle, floating: tuple[str, ...] = (), pixels: NDArray[np.float32] = PIXELS) -> bytes:
    quantization = Quantization(b"", pixels, frozenset(floating))
    return bytes(TARGET.build(bundle, "int8", lambda _: None, quantization).files["model.tflite"])


@functools.cache
def int8(kind: str) -> bytes:
    return build(bundles.portable(**KINDS[kind]))


def kept(bundle: Bundle) -> _build.FloatModel:
    """Return what the converter made of a bundle."""
    return _build._float_model(bundle, lambda _: None)


def run(bundle: Bundle, precision: str, model: bytes, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    artifact = Artifact(target="tflite", precision=precision, files={"model.tflite": "m"})
    whole = bundle.replace(dataclasses.replace(bundle.manifest, artifacts=(artifact,)), {"m": model})
    with contextlib.closing(TARGET.load(whole, artifact, threads=1)) as session:
        assert session.info.compute == ("int8" if precision == "int8" else "fp32")
        return [np.copy(item) for item in session.infer(pixels)]


def both(bundle: Bundle, model: bytes) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return each output in floating point and of the int8 model, on the calibration pixels."""
    return list(zip(run(bundle, "fp32", kept(bundle).model, PIXELS), run(bundle, "int8", model, PIXELS), strict=True))


def zoo() -> bytes:
    """Return a network with a layer of every kind, one of them read on two levels, one with a scale to fold."""
    g = Graph(0)

    def values(*shape: int) -> str:
        return g.constant(g.rng.normal(size=shape).astype(np.float32))

    x = g.op("Relu", g.conv("images", 3, 8, stride=2))
    x = g.op("Relu", g.conv(x, 8, 8, group=2))
    x = g.op("Relu", g.conv(x, 8, 16, group=8))
    x = g.op("Conv", x, values(12, 16, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    positive = g.constant(np.abs(g.rng.normal(size=12)).astype(np.float32) + np.float32(0.1))
    x = g.op("Relu", g.op("BatchNormalization", x, values(12), values(12), values(12), positive))
    x = g.op("Relu", g.op("ConvTranspose", x, values(12, 6, 2, 2), values(6), kernel_shape=[2, 2], strides=[2, 2]))
    shared = values(6, 6, 3, 3)
    levels = [x, g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])]
    rows = []
    for level in levels:
        again = g.op("Relu", g.op("Conv", level, shared, kernel_shape=[3, 3], pads=[1] * 4))
        rows.append(g.op("Reshape", again, g.constant(np.array([0, 6, -1], np.int64))))
    line = g.op("Transpose", g.op("Concat", *rows, axis=2), perm=[0, 2, 1])
    g.op("MatMul", g.op("Relu", g.op("MatMul", line, values(6, 7))), values(7, 4), name="boxes")
    pooled = g.op("Flatten", g.op("GlobalAveragePool", x))
    g.op("Gemm", pooled, values(9, 6), values(9), transB=1, name="scores")
    graph = helper.make_graph(
        g.nodes,
        "zoo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, bundles.HEIGHT, bundles.WIDTH])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", None, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 9]),
        ],
        g.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def one_layer_for_all() -> bytes:
    """Return a detector whose last convolution makes sides of hundreds of pixels and scores side by side."""
    g = Graph(1)
    x = "images"
    for into, out in ((3, 8), (8, 16), (16, 16)):
        x = g.op("Relu", g.conv(x, into, out, stride=2))
    weight = g.rng.normal(0.0, 0.15, (7, 16, 1, 1)).astype(np.float32)
    weight[:4] *= 400
    both = g.op("Conv", x, g.constant(weight), kernel_shape=[1, 1])
    rows = (bundles.HEIGHT // 8) * (bundles.WIDTH // 8)
    line = g.op("Transpose", g.op("Reshape", both, g.constant(np.array([0, 7, -1], np.int64))), perm=[0, 2, 1])
    ends = [g.constant(np.array([value], np.int64)) for value in (0, 4, 7, 2)]
    g.op("Identity", g.op("Slice", line, ends[0], ends[1], ends[3]), name="boxes")
    g.op("Sigmoid", g.op("Slice", line, ends[1], ends[2], ends[3]), name="scores")
    graph = helper.make_graph(
        g.nodes,
        "one",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, bundles.HEIGHT, bundles.WIDTH])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", rows, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", rows, 3]),
        ],
        g.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def one_layer_bundle() -> Bundle:
    """Return a bundle of `one_layer_for_all`."""
    rows = (bundles.HEIGHT // 8) * (bundles.WIDTH // 8)
    manifest = bundles.manifest()
    outputs = tuple(dataclasses.replace(spec, shape=(rows, spec.shape[1])) for spec in manifest.outputs)
    return Bundle.create(dataclasses.replace(manifest, outputs=outputs), {"graph.onnx": one_layer_for_all()})
