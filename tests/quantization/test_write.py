"""The int8 graph: explicit, equal to fake quantization in NumPy, and the same bytes every time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from edgekd.errors import BuildError
from edgekd.quantization import FloatGraph, int8_region, quantized_graph
from edgekd.quantization.ranges import LEVELS
from edgekd.quantization.write import rounded_weights, weight_scales

from ..conformance.anomaly_networks import anomaly_network
from ..conformance.detectors import Graph, detector
from .graphs import IMAGE, flat, model, noise, quantize, run, twice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

CLOSE = 1e-5


def rounded(values: Array, scale: float) -> Array:
    """Return what int8 makes of activations, as ONNX defines QuantizeLinear: half to even, saturating."""
    whole = np.clip(np.rint(values / np.float32(scale)), -128, 127)
    return (whole * np.float32(scale)).astype(np.float32)


def rounded_by_channel(weights: Array, axis: int = 0) -> Array:
    """Return int8 weights as floats, written as a loop over channels."""
    held = np.moveaxis(weights, axis, 0).copy()
    for channel in held:
        scale = np.float32(np.abs(channel).max() / np.float32(127)) if channel.any() else np.float32(1)
        channel[...] = np.rint(channel / scale) * scale
    return np.moveaxis(held, 0, axis)


def conv(x: Array, weights: Array, bias: Array | float = 0.0, stride: int = 1, group: int = 1) -> Array:
    """Return a convolution with borders of half a kernel, by the definition."""
    out, into, height, width = weights.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (height // 2,) * 2, (width // 2,) * 2))
    views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))[:, :, ::stride, ::stride]
    per = out // group
    parts = [
        np.einsum("bcyxhw,ochw->boyx", views[:, i * into : (i + 1) * into], weights[i * per : (i + 1) * per])
        for i in range(group)
    ]
    return (np.concatenate(parts, axis=1) + np.reshape(bias, (1, -1, 1, 1))).astype(np.float32)


class Known:
    """A graph's constants by name, and the scales that its int8 form holds."""

    def __init__(self, g: Graph, quantized: bytes) -> None:
        self.values: dict[str, Any] = {item.name: numpy_helper.to_array(item) for item in g.constants}
        stored = {item.name: item for item in onnx.load_from_string(quantized).graph.initializer}
        self.scales = {
            name.removesuffix("_scale"): float(numpy_helper.to_array(item))
            for name, item in stored.items()
            if name.endswith("_scale") and not item.dims
        }

    def layer(self, g: Graph, output: str) -> tuple[Any, ...]:
        (node,) = (node for node in g.nodes if output in node.output)
        return tuple(self.values[name] for name in node.input[1:])


def test_chain_of_convolutions_equals_numpy() -> None:
    g = Graph(1)
    first = g.conv("images", 3, 6)
    x = g.op("Relu", first)
    deep = g.conv(x, 6, 6, stride=2, group=6)
    out = g.conv(deep, 6, 5, kernel=1)
    pixels = noise(3)
    quantized = quantize(model(g, out), pixels[:1])
    known = Known(g, quantized)
    assert set(known.scales) == {"images", x, deep}
    held = rounded(pixels, known.scales["images"])
    for name, options in ((first, {}), (deep, {"stride": 2, "group": 6}), (out, {})):
        weights, bias = known.layer(g, name)
        result = conv(held, rounded_by_channel(weights), bias, **options)
        held = rounded(np.maximum(result, 0), known.scales[x]) if name == first else result
        held = rounded(held, known.scales[deep]) if name == deep else held
    np.testing.assert_allclose(run(quantized, pixels)[0], held, atol=CLOSE, rtol=CLOSE)


def test_concat_of_two_scales_equals_numpy_with_one() -> None:
    g = Graph(2)
    one, two = g.op("Relu", g.conv("images", 3, 4)), g.conv("images", 3, 4)
    out = g.conv(g.op("Concat", one, twice(g, g.op("MaxPool", two, kernel_shape=[2, 2], strides=[2, 2])), axis=1), 8, 2)
    pixels = noise(2)
    quantized = quantize(model(g, out), pixels)
    known = Known(g, quantized)
    assert known.scales[one] == known.scales[two]
    image = rounded(pixels, known.scales["images"])
    first = np.maximum(conv(image, *_int8(known.layer(g, g.nodes[0].output[0]))), 0)
    second = rounded(conv(image, *_int8(known.layer(g, two))), known.scales[two])
    pooled = second.reshape(2, 4, 8, 2, 8, 2).max(axis=(3, 5)).repeat(2, axis=2).repeat(2, axis=3)
    joined = np.concatenate([rounded(first, known.scales[one]), pooled], axis=1)
    np.testing.assert_allclose(
        run(quantized, pixels)[0], conv(joined, *_int8(known.layer(g, out))), atol=CLOSE, rtol=CLOSE
    )


def _int8(layer: tuple[Any, ...]) -> tuple[Array, Array]:
    return rounded_by_channel(layer[0]), layer[1]


def test_residual_sum_equals_numpy() -> None:
    g = Graph(3)
    x = g.op("Relu", g.conv("images", 3, 4))
    branch = g.conv(x, 4, 4)
    total = g.op("Add", branch, x)
    out = g.conv(total, 4, 3)
    pixels = noise(2)
    quantized = quantize(model(g, out), pixels)
    known = Known(g, quantized)
    image = rounded(pixels, known.scales["images"])
    stem = rounded(np.maximum(conv(image, *_int8(known.layer(g, g.nodes[0].output[0]))), 0), known.scales[x])
    summed = rounded(conv(stem, *_int8(known.layer(g, branch))) + stem, known.scales[total])
    np.testing.assert_allclose(
        run(quantized, pixels)[0], conv(summed, *_int8(known.layer(g, out))), atol=CLOSE, rtol=CLOSE
    )


@pytest.mark.parametrize(("op", "options", "axis"), [("MatMul", {}, 1), ("Gemm", {}, 1), ("Gemm", {"transB": 1}, 0)])
def test_products_equal_numpy(op: str, options: dict[str, int], axis: int) -> None:
    g = Graph(4)
    weights = g.rng.normal(size=(3, 7) if axis else (7, 3)).astype(np.float32)
    weights *= np.float32(10) ** g.rng.integers(-2, 3, 7).astype(np.float32).reshape((1, -1) if axis else (-1, 1))
    rows = flat(g, "images", 3)
    if op == "Gemm":
        rows = g.op("Reshape", rows, g.constant(np.array([-1, 3], np.int64)))
    out = g.op(op, rows, g.constant(weights), **options)
    pixels = noise(2)
    quantized = quantize(model(g, out), pixels)
    held = rounded(pixels, Known(g, quantized).scales["images"]).reshape(2, 3, -1).transpose(0, 2, 1)
    whole = rounded_by_channel(weights, axis)
    expected = held @ (whole if axis else whole.T)
    got = run(quantized, pixels)[0].reshape(expected.shape)
    np.testing.assert_allclose(got, expected, atol=CLOSE, rtol=CLOSE)


def test_transposed_convolution_has_a_scale_an_output_channel() -> None:
    g = Graph(5)
    weights = (g.rng.normal(size=(3, 2, 2, 2)) * [[[[1]], [[100]]]]).astype(np.float32)
    out = g.op("ConvTranspose", "images", g.constant(weights), strides=[2, 2])
    pixels = noise(1)
    quantized = quantize(model(g, out), pixels)
    held = rounded(pixels, Known(g, quantized).scales["images"])
    expected = np.einsum("bcyx,cohw->boyhxw", held, rounded_by_channel(weights, 1)).reshape(1, 2, 32, 32)
    np.testing.assert_allclose(run(quantized, pixels)[0], expected, atol=1e-3, rtol=CLOSE)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    axis=st.integers(0, 3),
    spread=st.floats(1e-46, 1e30),
    dead=st.booleans(),
)
def test_weights_round_half_to_even_by_channel(seed: int, axis: int, spread: float, dead: bool) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(3, 4, 2, 5)) * spread).astype(np.float32)
    if dead:
        values[(slice(None),) * axis + (0,)] = 0
    scales = weight_scales(values, axis)
    whole = rounded_weights(values, scales, axis)
    assert scales.dtype == np.float32
    assert (scales >= np.finfo(np.float32).tiny).all()
    assert np.isfinite(scales).all()
    for index in range(values.shape[axis]):
        channel = np.take(values, index, axis)
        largest = np.abs(channel).max()
        if largest > 1e-30:
            assert scales[index] == np.float32(largest / np.float32(LEVELS))
            np.testing.assert_array_equal(np.take(whole, index, axis), np.rint(channel / scales[index]).astype(int))
            assert np.abs(np.take(whole, index, axis)).max() == LEVELS
        assert np.abs(np.take(whole, index, axis).astype(np.float64) * scales[index] - channel).max() <= max(
            scales[index] * 0.501, 1e-36
        )


def test_halves_round_to_even_and_nothing_is_minus_128() -> None:
    values = np.array([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -127.0]], np.float32)
    assert rounded_weights(values, weight_scales(values, 0), 0).tolist() == [[127, 0, 2, 2, 0, -2, -127]]


@pytest.mark.parametrize(
    "data", [detector(), detector(oriented=True), anomaly_network()], ids=["boxes", "turned", "map"]
)
def test_graph_is_explicit_int8_with_inputs_and_outputs_as_they_were(data: bytes) -> None:
    height, width = (64, 96)
    before = onnx.load_from_string(data)
    quantized = onnx.load_from_string(quantize(data, noise(2, (3, height, width)), "mse"))
    assert [item.name for item in quantized.graph.output] == [item.name for item in before.graph.output]
    assert [item.type for item in quantized.graph.output] == [item.type for item in before.graph.output]
    assert [item.type for item in quantized.graph.input] == [item.type for item in before.graph.input]
    assert [(item.domain, item.version) for item in quantized.opset_import] == [("", 17)]
    stored = {item.name: item for item in quantized.graph.initializer}
    used = {name for node in quantized.graph.node for name in node.input}
    assert set(stored) <= used, "no float weight is left behind"
    layers = [node for node in quantized.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    makers = {node.output[0]: node for node in quantized.graph.node}
    for node in quantized.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = stored[node.input[2]]
            assert zero.data_type == TensorProto.INT8
            assert not numpy_helper.to_array(zero).any(), "symmetric"
    for node in layers:
        assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2 or any(
            makers[name].op_type in ("Concat", "MaxPool", "Resize", "Slice", "Add") for name in node.input[:1]
        )
        weight = stored[makers[node.input[1]].input[0]]
        assert weight.data_type == TensorProto.INT8
        assert list(stored[makers[node.input[1]].input[1]].dims) == [weight.dims[0]]


def test_graph_is_a_quarter_of_the_float_one() -> None:
    data = detector(channels=64)
    assert len(quantize(data, noise(1, (3, 64, 96)))) < 0.3 * len(data)


def test_floating_layers_keep_their_float_weights() -> None:
    data = detector()
    graph = FloatGraph(data)
    layers = int8_region(graph).layers
    pixels = noise(2, (3, 64, 96))
    stored = {layer.weight for layer in layers[::2]}
    half = onnx.load_from_string(quantize(data, pixels, floating=stored))
    kinds = {item.name: item.data_type for item in half.graph.initializer}
    for layer in layers:
        assert kinds.get(layer.weight) == (TensorProto.FLOAT if layer.weight in stored else None)
        assert (f"{layer.weight}_quantized" in kinds) is (layer.weight not in stored)
    nothing = quantize(data, pixels, floating={layer.weight for layer in layers})
    for got, expected in zip(run(nothing, pixels), run(data, pixels), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_the_same_graph_gives_the_same_bytes_and_is_left_alone() -> None:
    data, pixels = detector(), noise(2, (3, 64, 96))
    graph = FloatGraph(data)
    before = graph.model.SerializeToString(deterministic=True)
    region = int8_region(graph)
    scales = dict.fromkeys(region.sources, 0.02)
    assert quantized_graph(graph, region, scales) == quantized_graph(FloatGraph(data), int8_region(graph), scales)
    assert graph.model.SerializeToString(deterministic=True) == before
    assert quantize(data, pixels, "entropy") == quantize(data, pixels, "entropy")


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 1e-60])
def test_scale_that_is_no_positive_float_is_refused_by_name(bad: float) -> None:
    g = Graph(0)
    graph = FloatGraph(model(g, g.conv("images", 3, 4)))
    with pytest.raises(BuildError, match="the scale of 'images' should be a positive number"):
        quantized_graph(graph, int8_region(graph), {"images": bad})


def test_values_beyond_the_range_saturate() -> None:
    g = Graph(6)
    out = g.op("Conv", "images", g.constant(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)), kernel_shape=[1, 1])
    graph = FloatGraph(model(g, out))
    quantized = quantized_graph(graph, int8_region(graph), {"images": 0.01})
    got = run(quantized, np.full((1, *IMAGE), 5.0, np.float32))[0]
    np.testing.assert_allclose(got, 1.27, atol=CLOSE)
