"""int8 on LiteRT: what is quantized, on which pixels, and what stays in floating point."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import subprocess
from collections import Counter, OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekd._bundle import Bundle
from edgekd._manifest import Artifact
from edgekd._target import Quantization, load_target
from edgekd.errors import BuildError

from ..conformance import bundles
from ..conformance.detectors import Graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TARGET = load_target("tflite")
if TARGET.probe_build() is not None:
    pytest.skip(f"tflite: {TARGET.probe_build()}", allow_module_level=True)

from edgekd.targets.tflite import _build, _layers, _quantize, _region  # noqa: E402
from edgekd.targets.tflite._graph import SCHEMA, LiteGraph, tensor_name  # noqa: E402
from edgekd.targets.tflite._static import constants, fix_batch  # noqa: E402

PIXELS = bundles.pixels(8)
TAIL = {
    "boxes": {"LOGISTIC", "EXP", "CONCATENATION"},
    "oriented": {"LOGISTIC", "EXP", "COS", "SIN", "FLOOR"},
    "anomaly": {"SQRT", "DIV", "RESIZE_BILINEAR", "DEPTHWISE_CONV_2D"},
}
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


def int8_tensors(graph: LiteGraph) -> set[int]:
    int8_code = SCHEMA.TensorType.INT8
    return {index for index, tensor in enumerate(graph.subgraph.tensors) if tensor.type == int8_code}


def tail(graph: LiteGraph) -> tuple[set[int], set[int]]:
    """Return the operators between the last layers, or dequantized features, and the outputs; and those layers."""
    behind: set[int] = set()
    last: set[int] = set()
    waiting = [int(item) for item in graph.subgraph.outputs]
    while waiting:
        maker = graph.maker.get(waiting.pop())
        if maker is None or maker in behind | last or graph.kinds[maker] == "DEQUANTIZE":
            continue
        if graph.kinds[maker] in ("CONV_2D", "FULLY_CONNECTED"):
            last.add(maker)
        else:
            behind.add(maker)
            waiting += graph.inputs[maker]
    return behind, last


# Layers


def test_weights_are_found_again_in_another_layout_turned_around_and_scaled() -> None:
    weights = np.random.default_rng(0).normal(size=(5, 4, 3, 3)).astype(np.float32)
    channels = _layers.Channels.of(weights, 0)
    moved = _layers.Channels.of(weights.transpose(0, 2, 3, 1)[:, ::-1, ::-1], 0)
    assert moved.alike(channels)
    assert moved.same(channels)
    scaled = _layers.Channels.of(weights * np.array([1, -2, 3, 0.5, 1], np.float32).reshape(5, 1, 1, 1), 0)
    assert scaled.alike(channels)
    assert not scaled.same(channels)
    other = weights.copy()
    other[2, 1, 1, 1] += 0.01
    assert not _layers.Channels.of(other, 0).alike(channels)
    assert not _layers.Channels.of(weights[::-1], 0).alike(channels), "channels stay in order"


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


@pytest.mark.slow
def test_layers_of_every_kind_are_found_and_kept_in_floating_point() -> None:
    bundle = bundles.portable().replace(add={"graph.onnx": zoo()})
    layers = kept(bundle).layers
    assert len(layers) == 9
    assert all(layers.values()), layers
    portable = fix_batch(onnx.load_from_string(bundle.graph())).graph
    weights = constants(portable)
    shared = next(name for name in layers if weights[name].shape == (6, 6, 3, 3))
    assert len(layers[shared]) == 2, "both levels"
    for name in layers:
        graph = LiteGraph(build(bundle, (name,)))
        floats = {key for key, found in _layers.find_layers(portable, weights, graph).items() if found}
        assert floats == {name}


def test_floating_that_is_no_layer_is_named_with_those_that_are() -> None:
    with pytest.raises(BuildError, match=r"weights named nix, nox; possible: a, b"):
        _build._operators({"a": [1], "b": [2]}, frozenset(["nox", "a", "nix"]))


def test_floating_whose_weights_are_not_found_is_named() -> None:
    with pytest.raises(BuildError, match="no operator with the weights b"):
        _build._operators({"a": [1], "b": []}, frozenset(["a", "b"]))


# The model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mean", "worst"),
    [
        ("boxes", (1.0, 0.015), (15.0, 0.2)),
        ("oriented", (2.0, 0.015), (60.0, 0.2)),
        ("anomaly", (0.02, 0.01), (0.2, 0.05)),
    ],
)
def test_int8_agrees_with_float_on_the_calibration_pixels(
    kind: str, mean: tuple[float, float], worst: tuple[float, float]
) -> None:
    for (expected, got), at_most, never in zip(
        both(bundles.portable(**KINDS[kind]), int8(kind)), mean, worst, strict=True
    ):
        error = np.abs(expected - got)
        assert 0 < error.mean() < at_most
        assert error.max() < never


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_outputs_and_everything_behind_the_last_layers_are_float(kind: str) -> None:
    graph = LiteGraph(int8(kind))
    assert graph.is_float(graph.images)
    behind, last = tail(graph)
    small = int8_tensors(graph)
    assert {graph.kinds[index] for index in behind} >= TAIL[kind]
    for index in behind:
        assert not small.intersection((*graph.inputs[index], *graph.outputs[index])), graph.kinds[index]
    assert len(last) >= 2
    for index in last:
        assert graph.inputs[index][1] in small, "int8 weights"
        assert graph.is_float(graph.outputs[index][0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_int8_with_a_scale_for_each_channel(kind: str) -> None:
    graph = LiteGraph(int8(kind))
    layers = [index for index, name in enumerate(graph.kinds) if name == "CONV_2D"]
    for index in layers:
        weight = graph.subgraph.tensors[graph.inputs[index][1]]
        assert graph.inputs[index][1] in int8_tensors(graph)
        assert len(weight.quantization.scale) == weight.shape[0]
    assert sum(graph.outputs[index][0] in int8_tensors(graph) for index in layers) >= 7


@pytest.mark.slow
def test_nothing_is_converted_to_and_fro_between_layers() -> None:
    counts = Counter(LiteGraph(int8("boxes")).kinds)
    assert counts["QUANTIZE"] == 2, "the image, and the hard swish, which XNNPACK computes in float32"
    assert counts["DEQUANTIZE"] == 3, "the hard swish, and two levels of the head"
    graph = LiteGraph(int8("boxes"))
    small = int8_tensors(graph)
    for kind in ("PAD", "RESIZE_NEAREST_NEIGHBOR", "MAX_POOL_2D", "DEPTHWISE_CONV_2D"):
        indices = [index for index, name in enumerate(graph.kinds) if name == kind]
        assert indices
        assert all(graph.outputs[index][0] in small for index in indices), kind


@pytest.mark.slow
def test_concatenated_tensors_share_a_scale() -> None:
    graph = LiteGraph(int8("boxes"))
    small = int8_tensors(graph)
    (index,) = (i for i, kind in enumerate(graph.kinds) if kind == "CONCATENATION" and graph.outputs[i][0] in small)
    scales = {
        float(graph.subgraph.tensors[tensor].quantization.scale[0])
        for tensor in (*graph.inputs[index], *graph.outputs[index])
    }
    assert len(scales) == 1


# Boxes and scores


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


def with_rows(bundle: Bundle, graph: bytes) -> Bundle:
    rows = (bundles.HEIGHT // 8) * (bundles.WIDTH // 8)
    outputs = tuple(dataclasses.replace(spec, shape=(rows, spec.shape[1])) for spec in bundle.manifest.outputs)
    return Bundle.create(dataclasses.replace(bundles.manifest(), outputs=outputs), {"graph.onnx": graph})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling:UserWarning")  # the quantizer's interpreter, in this process
def test_boxes_and_scores_out_of_one_layer_share_no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = with_rows(bundles.portable(), one_layer_for_all())
    (boxes, _), (scores, got) = both(bundle, build(bundle))
    assert np.abs(boxes).max() > 300
    assert scores.std() > 0.05
    assert np.abs(scores - got).mean() < 0.005

    made = kept(bundle)
    (known,) = made.ranges.values()
    ranges = {int(tensor): (low, high) for tensor, (low, high) in known.items()}

    def as_one(graph: LiteGraph, floating: Any = ()) -> _region.Region:
        region = _region.int8_region(graph, floating)
        whole = tuple(sorted((*region.static, *region.last)))
        for index in region.last:  # what calibration would have measured
            values = max(np.abs(boxes).max(), 6.0)
            ranges[graph.outputs[index][0]] = (-float(values), float(values))
        return _region.Region(whole, (), *_region._scales(graph, whole))

    monkeypatch.setattr(_quantize, "int8_region", as_one)
    _, (_, wrong) = both(bundle, _quantize.quantize(made.model, [], ranges))
    assert np.abs(scores - wrong).mean() > 0.02, "this test cannot fail"


# Calibration


def scales(model: bytes) -> list[float]:
    graph = LiteGraph(model)
    return [
        float(tensor.quantization.scale[0])
        for index, tensor in enumerate(graph.subgraph.tensors)
        if index in int8_tensors(graph) and not graph.constant(index)
    ]


@pytest.mark.slow
def test_scales_come_from_the_pixels() -> None:
    bundle = bundles.portable()
    assert scales(int8("boxes")) == scales(build(bundle))
    twice = scales(build(bundle, pixels=2 * PIXELS))
    assert len(twice) == len(scales(int8("boxes")))
    assert twice[0] == pytest.approx(2 * scales(int8("boxes"))[0], rel=1e-5), "the image"
    assert sum(a != b for a, b in zip(twice, scales(int8("boxes")), strict=True)) > len(twice) // 2


@pytest.mark.slow
def test_ranges_are_the_extremes_over_all_images() -> None:
    """Clipping rare values is what a detector does not bear: they are its objects."""
    bundle = bundles.portable()
    pixels = PIXELS[:3].copy()
    pixels[1, 2, 5, 7], pixels[2, 0, 9, 1] = 60.0, -40.0
    build(bundle, pixels=pixels)
    ranges = list(kept(bundle).ranges.values())[-1]
    image = LiteGraph(kept(bundle).model).images
    assert ranges[str(image)] == [-40.0, 60.0]


@pytest.mark.slow
def test_tensors_that_are_always_zero_can_be_calibrated() -> None:
    bundle = bundles.portable()
    for output in run(bundle, "int8", build(bundle, pixels=0 * PIXELS[:1]), 0 * PIXELS[:1]):
        assert np.isfinite(output).all()


@pytest.mark.slow
def test_equal_inputs_give_equal_bytes_also_where_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles.portable()
    made = kept(bundle)
    expected = int8("boxes")
    monkeypatch.setattr(_build, "_kept", OrderedDict())
    assert build(bundle) == expected
    assert kept(bundle).model == made.model


@pytest.mark.slow
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(broken: float) -> None:
    pixels = PIXELS[:2].copy()
    pixels[1, 0, 3, 3] = broken
    with pytest.raises(BuildError, match="calibration image 1: a tensor is not finite"):
        build(bundles.portable(), pixels=pixels)


@pytest.mark.slow
def test_without_calibration_images_there_is_no_int8() -> None:
    with pytest.raises(BuildError, match=r"needs calibration images: .* --calib FOLDER"):
        TARGET.build(bundles.portable(), "int8", lambda _: None)
    with pytest.raises(BuildError, match="needs calibration images"):
        build(bundles.portable(), pixels=PIXELS[:0])


# Floating layers, and building again


@pytest.mark.slow
def test_a_layer_put_back_to_float_costs_size_and_changes_the_result() -> None:
    bundle = bundles.portable()
    (name, *_) = kept(bundle).layers
    model = build(bundle, (name,))
    assert len(model) > len(int8("boxes"))
    graph = LiteGraph(model)
    portable = fix_batch(onnx.load_from_string(bundle.graph())).graph
    found = _layers.find_layers(portable, constants(portable), graph)
    assert [key for key, operators in found.items() if operators] == [name]
    assert not np.array_equal(run(bundle, "int8", model, PIXELS)[1], run(bundle, "int8", int8("boxes"), PIXELS)[1])


@pytest.mark.slow
def test_all_layers_in_float_are_no_int8_model() -> None:
    bundle = bundles.portable()
    with pytest.raises(BuildError, match="no layer is left in int8; build this artifact with --precision fp32"):
        build(bundle, tuple(kept(bundle).layers))


@pytest.mark.slow
def test_further_builds_neither_convert_nor_calibrate(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles.portable()
    int8("boxes")
    asked: list[tuple[str, bool]] = []
    real: Callable[..., Any] = subprocess.run

    def watched(command: list[str], **rest: Any) -> Any:
        request = json.loads((Path(command[-1]) / "request.json").read_text(encoding="utf-8"))
        asked.append((command[-2].rpartition(".")[2], request.get("ranges") is None))
        return real(command, **rest)

    monkeypatch.setattr(_build.subprocess, "run", watched)
    for name in list(kept(bundle).layers)[:2]:
        build(bundle, (name,))
    assert asked == [("_quantize", False)] * 2
    build(bundle, pixels=PIXELS[:3])
    assert asked[2:] == [("_quantize", True)]


def test_float_models_are_kept_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    converted = 0

    def child(module: str, folder: Path) -> dict[str, Any]:
        nonlocal converted
        assert module == "_convert"
        converted += 1
        (folder / "float.tflite").write_bytes(bytes(100))
        return {"layers": {}, "tools": {}}

    monkeypatch.setattr(_build, "_run_child", child)
    monkeypatch.setattr(_build, "_kept", OrderedDict())
    monkeypatch.setattr(_build, "KEPT_BYTES", 250)
    one, two, three = (bundles.portable().replace(add={"graph.onnx": bytes([i]) * 9}) for i in range(3))
    for bundle, expected in ((one, 1), (two, 2), (one, 2), (three, 3), (one, 3), (two, 4)):
        kept(bundle)
        assert converted == expected
    monkeypatch.setattr(_build, "KEPT_BYTES", 50)
    kept(three)
    assert len(_build._kept) == 1


# The region


@pytest.mark.slow
def test_region_of_fewer_layers_measures_no_other_tensors() -> None:
    made = kept(bundles.portable(anomaly=True))
    graph = LiteGraph(made.model)
    measured = {tensor for held in _region.int8_region(graph).sources.values() for tensor in held}
    layers = [operator for found in made.layers.values() for operator in found]
    for seed in range(20):
        floating = np.random.default_rng(seed).choice(layers, size=seed % len(layers), replace=False).tolist()
        region = _region.int8_region(graph, floating)
        assert {tensor for held in region.sources.values() for tensor in held} <= measured
        assert not set(floating) & {*region.static, *region.last}
        assert all(region.sources[name] for name in region.groups), "every scale has a measured tensor"


@pytest.mark.slow
def test_blur_of_the_anomaly_map_is_no_layer() -> None:
    graph = LiteGraph(kept(bundles.portable(anomaly=True)).model)
    layers = _region.layers_of(graph)
    assert {graph.kinds[index] for index in layers} == {"CONV_2D"}
    assert len(layers) == 10
    assert graph.kinds.count("DEPTHWISE_CONV_2D") == 2, "the blur, which stays as it is"


@pytest.mark.slow
def test_equal_constants_are_stored_once() -> None:
    bundle = bundles.portable()
    graph = LiteGraph(kept(bundle).model)
    size = len(graph.serialize())
    whole = [
        tensor.buffer
        for tensor in graph.subgraph.tensors
        if graph.model.buffers[tensor.buffer].data is not None and len(graph.model.buffers[tensor.buffer].data) > 2000
    ]
    for index in whole:  # every large constant a second time, for two more tensors
        graph.model.buffers.append(copy.copy(graph.model.buffers[index]))
        for _ in range(2):
            extra = copy.copy(next(item for item in graph.subgraph.tensors if item.buffer == index))
            extra.name, extra.buffer = f"more{len(graph.subgraph.tensors)}", len(graph.model.buffers) - 1
            graph.subgraph.tensors.append(extra)
    assert len(graph.serialize()) > size + 2000 * len(whole)
    graph.share_constants()
    assert len(graph.serialize()) < size + 200 * len(whole)
    for mine, theirs in zip(
        run(bundle, "fp32", graph.serialize(), PIXELS), run(bundle, "fp32", kept(bundle).model, PIXELS), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_names_of_tensors_select_one_operator() -> None:
    assert tensor_name(1) == "t1"
    expression = _quantize._written_by(_Written([[1], [11, 12]]), (0, 1))  # type: ignore[arg-type]
    assert expression == "^(?:t1|t11);"


@dataclasses.dataclass
class _Written:
    outputs: list[list[int]]
