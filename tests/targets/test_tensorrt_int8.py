"""TensorRT's int8: weights as pairs that are the same to the bit, a real builder's word, and TensorRT 8's flag."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import onnx
import pytest
from edgekd.targets.tensorrt import _ahead, _packed
from edgekd.targets.tensorrt._compile import Order, compile_engine
from edgekd.targets.tensorrt._packed import pack, unpack
from edgekd.targets.tensorrt._pairs import pair_weights
from onnx import TensorProto, numpy_helper

from edgekd._target import Quantization, load_target
from edgekd.errors import SessionError

from ..conformance import bundles
from ..conformance.anomaly_networks import anomaly_network
from ..conformance.detectors import Graph, detector
from ..quantization.graphs import flat, model, noise, quantize, run
from .tensorrt_fake import FakeTensorRT

needs_rtx = pytest.mark.skipif(
    not _ahead.available(), reason="TensorRT-RTX is not installed: pip install 'edgekd[tensorrt]'"
)
TASKS = {"boxes": {}, "turned": {"oriented": True}, "maps": {"anomaly": True}}


def products() -> bytes:
    """A Gemm with its weights turned, and a transposed convolution: scales on other axes."""
    g = Graph(0)
    weights = g.rng.normal(size=(3, 4, 2, 2)) * np.array([1e-6, 1, 1e3, 0]).reshape(1, 4, 1, 1)
    up = g.op("ConvTranspose", "images", g.constant(weights.astype(np.float32)), strides=[2, 2])
    rows = g.op("Reshape", flat(g, up, 4), g.constant(np.array([-1, 4], np.int64)))
    out = g.op("Gemm", rows, g.constant(g.rng.normal(size=(5, 4)).astype(np.float32)), transB=1)
    return model(g, out)


NETWORKS = {
    "boxes": (detector(), (3, 64, 96)),
    "turned": (detector(oriented=True), (3, 64, 96)),
    "maps": (anomaly_network(), (3, 64, 96)),
    "products": (products(), (3, 16, 16)),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_pairs_compute_the_same_to_the_bit(kind: str) -> None:
    data, shape = NETWORKS[kind]
    pixels = noise(2, shape)
    quantized = quantize(data, pixels)
    paired = pair_weights(quantized)
    for got, expected in zip(run(paired, pixels), run(quantized, pixels), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert pair_weights(quantized) == paired


@pytest.mark.parametrize("kind", NETWORKS)
def test_pairs_hold_no_int8_weights_and_the_same_numbers(kind: str) -> None:
    data, shape = NETWORKS[kind]
    quantized = quantize(data, noise(1, shape))
    before = {item.name: item for item in onnx.load_from_string(quantized).graph.initializer}
    after = onnx.load_from_string(pair_weights(quantized)).graph
    stored = {item.name: item for item in after.initializer}
    makers = {name: node for node in after.node for name in node.output}
    pairs = 0
    for node in after.node:
        if node.op_type != "DequantizeLinear":
            continue
        maker = makers[node.input[0]]
        assert maker.op_type == "QuantizeLinear", "TensorRT 8's parser takes no int8 constant"
        assert list(maker.input[1:]) == list(node.input[1:])
        assert list(maker.attribute) == list(node.attribute)
        weights = stored.get(maker.input[0])
        if weights is None:
            continue
        pairs += 1
        assert weights.data_type == TensorProto.FLOAT
        name = maker.input[0].removesuffix("_pair_float")
        whole = numpy_helper.to_array(before[name])
        axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
        scales = numpy_helper.to_array(stored[node.input[1]]).reshape(
            [-1 if item == axis else 1 for item in range(whole.ndim)]
        )
        again = np.clip(np.rint(numpy_helper.to_array(weights) / scales), -128, 127)
        np.testing.assert_array_equal(again.astype(np.int8), whole)
    assert pairs == sum(name.endswith("_quantized") for name in before)
    assert not [name for name, item in stored.items() if item.data_type == TensorProto.INT8 and len(item.dims) > 1]


@pytest.mark.parametrize("kind", TASKS)
def test_built_graph_is_the_pairs_of_the_quantization(kind: str) -> None:
    portable = bundles.portable(**TASKS[kind])
    quantized = quantize(portable.graph(), bundles.pixels(2))
    lines: list[str] = []
    built = load_target("tensorrt").build(portable, "int8", lines.append, Quantization(quantized, bundles.pixels(2)))
    assert unpack(built.files[_packed.NAME]) == pair_weights(quantized)
    assert len(built.files) == 1
    assert built.options["strongly_typed"] is True
    assert any("explicit int8" in line for line in lines)


@needs_rtx
@pytest.mark.parametrize("kind", TASKS)
def test_a_real_parser_and_builder_take_the_int8_graph(kind: str) -> None:
    portable = bundles.portable(**TASKS[kind])
    quantized = quantize(portable.graph(), bundles.pixels(2))
    built = load_target("tensorrt").build(portable, "int8", lambda _: None, Quantization(quantized, bundles.pixels(2)))
    proof: Any = built.options["ahead_of_time"]
    assert proof["layers"] > 100, "with the nodes that round"
    assert proof["engine_bytes"] > 10_000
    assert built.tools["tensorrt-rtx"].startswith("1.")


def compiled(version: str, precision: str) -> list[tuple[Any, ...]]:
    """Return what was set while an engine was made."""
    fake = FakeTensorRT(version)
    graph = detector()
    if precision == "int8":
        graph = pair_weights(quantize(graph, noise(1, (3, 64, 96))))
    compile_engine(fake.found(), Order(graph, "images", (3, 64, 96), precision), lambda _: None)
    return fake.calls


@pytest.mark.parametrize("version", ["8.5.2", "8.6.1"])
def test_tensorrt_8_is_told_to_look_at_quantize_linear(version: str) -> None:
    calls = compiled(version, "int8")
    assert ("set", "INT8") in calls
    assert ("set", "FP16") not in calls
    assert ("set", "INT8") not in compiled(version, "fp32")
    assert ("set", "INT8") not in compiled(version, "fp16")


def test_later_versions_read_the_types_from_the_graph() -> None:
    calls = compiled("10.3.0", "int8")
    assert not [call for call in calls if call[0] == "set"]
    assert ("flags", 2) in calls


@pytest.mark.parametrize("kind", NETWORKS)
def test_packed_graph_comes_back_byte_for_byte_and_its_weights_take_a_byte_each(kind: str) -> None:
    data, shape = NETWORKS[kind]
    paired = pair_weights(quantize(data, noise(1, shape)))
    packed = pack(paired)
    assert unpack(packed) == paired
    assert len(packed) < 0.5 * len(zlib.compress(paired, 9)) or len(paired) < 50_000


@pytest.mark.parametrize("damage", ["cut", "tail missing", "garbage", "offset", "shape", "axis", "no list"])
def test_damaged_packed_graph_says_so(damage: str) -> None:
    packed = pack(pair_weights(quantize(*(NETWORKS["boxes"][0], noise(1, (3, 64, 96))))))
    data = zlib.decompress(packed)
    length = int.from_bytes(data[:8], "little")
    places = json.loads(data[8 : 8 + length])
    wrong = {
        "offset": {"offset": len(data)}, "shape": {"shape": [10**6, 10**6]}, "axis": {"axis": 9},
    }.get(damage)  # fmt: skip
    if wrong is not None:
        head = json.dumps([{**places[0], **wrong}, *places[1:]]).encode()
        bad = zlib.compress(len(head).to_bytes(8, "little") + head + data[8 + length :])
    else:
        bad = {
            "cut": packed[: len(packed) // 2], "tail missing": zlib.compress(data[: len(data) // 4]),
            "garbage": b"\xff" * 99, "no list": zlib.compress((1).to_bytes(8, "little") + b"7" + data[8 + length :]),
        }[damage]  # fmt: skip
    with pytest.raises(SessionError, match=r"model\.onnx\.packed is damaged: .*Build it again"):
        unpack(bad)


def test_channel_of_zeros_and_weights_that_are_no_pair_come_back_too() -> None:
    g = Graph(0)
    weights = g.rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    scale = np.array([0.01, 0.0, 0.02, 0.03], np.float32)
    zero = g.constant(np.zeros(4, np.int8))
    kept = g.constant(weights)  # of no scale's grid
    q = g.op("QuantizeLinear", kept, g.constant(scale), zero, axis=0)
    out = g.op("Conv", "images", g.op("DequantizeLinear", q, g.constant(scale), zero, axis=0))
    graph = model(g, flat(g, out, 4))
    assert unpack(pack(graph)) == graph
