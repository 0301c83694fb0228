"""What becomes int8: decided by the operators that read a tensor, on graphs that each show one rule."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BuildError
from edgekd.quantization import FloatGraph, int8_region, layers_of
from edgekd.quantization.region import channel_axis

from ..conformance.anomaly_networks import anomaly_network
from ..conformance.detectors import Graph, detector
from .graphs import flat, model, reads, twice, weight


def graph_of(g: Graph, *outputs: str) -> FloatGraph:
    return FloatGraph(model(g, *outputs))


@pytest.mark.parametrize("oriented", [False, True])
def test_decoding_of_a_detector_stays_float(oriented: bool) -> None:
    graph = FloatGraph(detector(oriented=oriented))
    layers = {index for layer in layers_of(graph) for index in layer.nodes}
    region = int8_region(graph)
    assert layers == {index for index, node in enumerate(graph.graph.node) if node.op_type == "Conv"}
    kinds = {graph.graph.node[index].op_type for index, _ in region.reads}
    assert kinds == {"Conv", "Concat", "MaxPool", "Resize", "Add"}
    last = {graph.graph.node[index].output[0] for index in layers if not _feeds(graph, index, layers)}
    assert len(last) == (6 if oriented else 4), "the last convolution of each branch and level"
    assert not last & set(region.sources), "boxes, scores and angles are never rounded, whatever their scale"
    assert not set(graph.outputs) & set(region.sources)


def _feeds(graph: FloatGraph, index: int, layers: set[int]) -> bool:
    """Whether some layer depends on a node."""
    waiting, seen = [index], set()
    while waiting:
        for name in graph.graph.node[waiting.pop()].output:
            for reader, _ in graph.readers.get(name, []):
                if reader in layers:
                    return True
                if reader not in seen:
                    seen.add(reader)
                    waiting.append(reader)
    return False


def test_anomaly_distances_and_blur_stay_float() -> None:
    graph = FloatGraph(anomaly_network())
    region = int8_region(graph)
    read = {graph.graph.node[index].op_type for index, _ in region.reads}
    assert not read & {"Sub", "Mul", "Div", "Sqrt", "ReduceSum", "Sigmoid"}
    linear = [
        index
        for index, node in enumerate(graph.graph.node)
        if node.op_type == "Resize" and next(item.s for item in node.attribute if item.name == "mode") == b"linear"
    ]
    assert linear
    assert not {index for index, _ in region.reads} & set(linear)


def test_concat_shares_one_scale_and_is_rounded_before() -> None:
    g = Graph(0)
    one, two = g.op("Relu", g.conv("images", 3, 4)), g.conv("images", 3, 4)
    joined = g.op("Concat", one, two, axis=1)
    out = g.conv(joined, 8, 4)
    graph = graph_of(g, out)
    region = int8_region(graph)
    assert reads(graph) == {(one_node.output[0], "images") for one_node in g.nodes if "images" in one_node.input} | {
        (joined, one),
        (joined, two),
    }
    assert set(region.sources) == {"images", one, two}
    assert region.sources[one] == region.sources[two] != region.sources["images"]


def test_chained_concats_share_one_scale_however_they_are_met() -> None:
    g = Graph(0)
    parts = [g.conv("images", 3, 4) for _ in range(4)]
    first = g.op("Concat", parts[0], parts[1], axis=1)
    second = g.op("Concat", parts[2], parts[3], axis=1)
    both = g.op("Concat", first, second, axis=1)
    outs = [g.conv(first, 8, 2), g.conv(second, 8, 2), g.conv(both, 16, 2)]
    region = int8_region(graph_of(g, *outs))
    assert len({region.sources[name] for name in parts}) == 1


@pytest.mark.parametrize(
    "carrier",
    [
        lambda g, x: g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
        lambda g, x: twice(g, x),
        lambda g, x: g.op("Reshape", x, g.constant(np.array([0, 4, 8, 32], np.int64))),
        lambda g, x: g.op("Transpose", x, perm=[0, 1, 3, 2]),
        lambda g, x: g.op("Slice", x, *(g.constant(np.array([v], np.int64)) for v in (0, 8, 2))),
        lambda g, x: g.op("Identity", x),
        lambda g, x: g.op("MaxPool", twice(g, g.op("Identity", x)), kernel_shape=[2, 2]),
    ],
    ids=["MaxPool", "Resize", "Reshape", "Transpose", "Slice", "Identity", "three"],
)
def test_what_only_moves_values_carries_int8(carrier: object) -> None:
    g = Graph(0)
    x = g.op("Relu", g.conv("images", 3, 4))
    moved = carrier(g, x)  # type: ignore[operator]
    region = int8_region(graph_of(g, g.conv(moved, 4, 4)))
    assert set(region.sources) == {"images", x}, "rounded before it is moved, once"


@pytest.mark.parametrize(
    "other",
    [
        lambda g, x: twice(g, x, "linear"),
        lambda g, x: g.op("AveragePool", x, kernel_shape=[2, 2]),
        lambda g, x: g.silu(x),
        lambda g, x: g.op("Concat", x, g.constant(np.zeros((1, 4, 16, 16), np.float32)), axis=1),
    ],
    ids=["linear Resize", "AveragePool", "SiLU", "Concat with a constant"],
)
def test_what_computes_is_rounded_after(other: object) -> None:
    g = Graph(0)
    x = g.op("Relu", g.conv("images", 3, 4))
    made = other(g, x)  # type: ignore[operator]
    channels = 8 if g.nodes[-1].op_type == "Concat" else 4
    region = int8_region(graph_of(g, g.conv(made, channels, 4)))
    assert set(region.sources) == {"images", made}


def test_add_of_a_residual_block_reads_the_identity_and_not_the_branch() -> None:
    g = Graph(0)
    x = g.op("Relu", g.conv("images", 3, 4))
    branch = g.conv(g.op("Relu", g.conv(x, 4, 4)), 4, 4)
    joined = g.op("Add", branch, x)
    out = g.conv(g.op("Relu", joined), 4, 4)
    graph = graph_of(g, out)
    assert (joined, x) in reads(graph)
    assert (joined, branch) not in reads(graph)
    assert branch not in int8_region(graph).sources


def test_add_of_a_pyramid_reads_what_is_enlarged() -> None:
    g = Graph(0)
    coarse = g.op("Relu", g.conv("images", 3, 4, stride=2))
    fine = g.conv("images", 3, 4)
    up = twice(g, coarse)
    joined = g.op("Add", fine, up)
    outs = [g.conv(joined, 4, 4), g.conv(coarse, 4, 4)]
    graph = graph_of(g, *outs)
    assert (up, coarse) in reads(graph)
    assert fine not in int8_region(graph).sources


def test_add_that_leads_to_no_layer_stays_float() -> None:
    g = Graph(0)
    x = g.op("Relu", g.conv("images", 3, 4))
    branch = g.conv(x, 4, 4)
    tail = g.op("Add", branch, x)
    graph = graph_of(g, tail)
    assert (tail, x) not in reads(graph)


def test_add_of_a_constant_stays_float() -> None:
    g = Graph(0)
    shifted = g.op("Add", "images", g.constant(np.ones((1, 3, 1, 1), np.float32)))
    other = g.conv("images", 3, 4)
    graph = graph_of(g, g.conv(shifted, 3, 4), other)
    assert (shifted, "images") not in reads(graph)


def test_products_of_two_activations_are_no_layers() -> None:
    g = Graph(0)
    query, key = (flat(g, g.conv("images", 3, 4), 4) for _ in range(2))
    scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 2, 1]))
    linear = g.op("MatMul", query, g.constant(np.ones((4, 5), np.float32)))
    graph = graph_of(g, scores, linear)
    assert [layer.weight for layer in layers_of(graph)][-1] == weight(g, linear)
    assert len(layers_of(graph)) == 3
    assert not any(node == scores for node, _ in reads(graph))


@pytest.mark.parametrize(("group", "layers"), [(1, 1), (2, 0)])
def test_grouped_transposed_convolution_is_no_layer(group: int, layers: int) -> None:
    g = Graph(0)
    x = g.op("Concat", "images", "images", axis=1)
    up = g.op("ConvTranspose", x, g.constant(np.ones((6, 2, 2, 2), np.float32)), strides=[2, 2], group=group)
    found = layers_of(graph_of(g, up))
    assert len(found) == layers
    if found:
        assert channel_axis(g.nodes[-1], 4) == 1


def test_weights_that_levels_share_are_one_layer() -> None:
    g = Graph(0)
    fine, coarse = g.op("Relu", g.conv("images", 3, 4)), g.op("Relu", g.conv("images", 3, 4, stride=2))
    shared = g.constant(g.rng.normal(size=(4, 4, 3, 3)).astype(np.float32))
    outs = [g.op("Conv", level, shared, kernel_shape=[3, 3], pads=[1] * 4) for level in (fine, coarse)]
    graph = graph_of(g, *outs)
    (layer,) = (layer for layer in layers_of(graph) if layer.weight == shared)
    assert len(layer.nodes) == 2
    assert layer.work == 4 * 4 * 9 * (16 * 16 + 8 * 8)
    assert layer.weights == 4 * 4 * 9
    assert not {(out, level) for out, level in zip(outs, (fine, coarse), strict=True)} & reads(graph, {shared})


def test_floating_layer_loses_its_own_reads_and_no_others() -> None:
    graph = FloatGraph(detector())
    whole = int8_region(graph)
    own = {index for layer in layers_of(graph) for index in layer.nodes}
    for layer in layers_of(graph):
        less = int8_region(graph, {layer.weight})
        assert {item.weight for item in less.layers} == {item.weight for item in whole.layers} - {layer.weight}
        lost = {index for index, _ in whole.reads - less.reads} & own
        assert lost <= set(layer.nodes)
        assert not {index for index, _ in less.reads} & set(layer.nodes)
        assert set(less.sources) <= set(whole.sources), "calibration has measured no others"
    assert int8_region(graph, {layer.weight for layer in layers_of(graph)}).sources == {}


def test_tensor_with_two_readers_is_int8_for_the_layer_alone() -> None:
    g = Graph(0)
    x = g.op("Relu", g.conv("images", 3, 4))
    out, tail = g.conv(x, 4, 4), g.op("Sigmoid", x)
    graph = graph_of(g, out, tail)
    assert (out, x) in reads(graph)
    assert (tail, x) not in reads(graph)


@pytest.mark.parametrize(
    ("op", "attributes", "shape", "axis"),
    [
        ("MatMul", {}, (4, 5), 1),
        ("Gemm", {}, (4, 5), 1),
        ("Gemm", {"transB": 1}, (5, 4), 0),
        ("Conv", {}, (5, 3, 1, 1), 0),
    ],
)
def test_axis_of_the_scales_is_that_of_the_output_channels(
    op: str, attributes: dict[str, int], shape: tuple[int, ...], axis: int
) -> None:
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    assert channel_axis(node, len(shape)) == axis
    assert shape[axis] == 5


def test_gemm_with_its_activations_transposed_is_no_layer() -> None:
    g = Graph(0)
    rows = g.op("Reshape", "images", g.constant(np.array([12, -1], np.int64)))
    out = g.op("Gemm", rows, g.constant(np.ones((12, 5), np.float32)), transA=1)
    assert layers_of(graph_of(g, out)) == ()


def test_weights_stored_as_float16_behind_casts_are_layers_of_the_casts_names() -> None:
    g = Graph(0)
    stored = g.rng.normal(size=(4, 3, 3, 3)).astype(np.float16)
    cast = g.op("Cast", g.constant(stored), to=TensorProto.FLOAT, name="stem.weight")
    out = g.op("Conv", "images", cast, kernel_shape=[3, 3])
    graph = graph_of(g, out)
    (layer,) = layers_of(graph)
    assert (layer.weight, layer.name) == ("stem.weight", "stem")
    np.testing.assert_array_equal(graph.values("stem.weight"), stored.astype(np.float32))
    assert [node.op_type for node in graph.graph.node] == ["Conv"]
    assert [item.data_type for item in graph.graph.initializer] == [TensorProto.FLOAT]


def test_constant_nodes_are_weights_too() -> None:
    g = Graph(0)
    value = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32))
    g.nodes.append(helper.make_node("Constant", [], ["w"], value=value))
    out = g.op("Conv", "images", "w", kernel_shape=[1, 1])
    assert [layer.weight for layer in layers_of(graph_of(g, out))] == ["w"]


def test_names_play_no_part() -> None:
    """The same network with every tensor renamed has the same region."""
    plain = onnx.load_from_string(detector())
    for node in plain.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name and name not in ("images", "boxes", "scores"):
                    names[index] = f"sigmoid.boxes.head/{name}"
    for item in plain.graph.initializer:
        item.name = f"sigmoid.boxes.head/{item.name}"
    assert int8_region(FloatGraph(plain.SerializeToString())).reads == int8_region(FloatGraph(detector())).reads


def test_work_counts_multiplications() -> None:
    g = Graph(0)
    x = g.conv("images", 3, 4, stride=2)
    deep = g.conv(x, 4, 4, group=4)
    rows = g.op("MatMul", flat(g, deep, 4), g.constant(np.ones((4, 5), np.float32)))
    works = [layer.work for layer in layers_of(graph_of(g, rows))]
    assert works == [64 * 4 * 3 * 9, 64 * 4 * 9, 64 * 4 * 5]


def test_garbage_is_no_graph() -> None:
    with pytest.raises(BuildError, match="no sound ONNX"):
        FloatGraph(b"garbage" * 50)
