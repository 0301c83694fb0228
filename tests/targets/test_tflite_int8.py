"""int8 on LiteRT: what is quantized, on which pixels, and what stays in floating point."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
from collections import Counter, OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

pytest.importorskip("ai_edge_quantizer")

from edgekd.targets.tflite import _build, _layers, _quantize, _region
from edgekd.targets.tflite._graph import SCHEMA, LiteGraph, tensor_name
from edgekd.targets.tflite._static import constants, fix_batch

from edgekd.errors import BuildError

from ..conformance import bundles
from .tflite_int8 import KINDS, PIXELS, TARGET, both, build, int8, kept, one_layer_bundle, run

if TYPE_CHECKING:
    from collections.abc import Callable

TAIL = {
    "boxes": {"LOGISTIC", "EXP", "CONCATENATION"},
    "oriented": {"LOGISTIC", "EXP", "COS", "SIN", "FLOOR"},
    "anomaly": {"SQRT", "DIV", "RESIZE_BILINEAR", "DEPTHWISE_CONV_2D"},
}


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling:UserWarning")  # the quantizer's interpreter, in this process
def test_boxes_and_scores_out_of_one_layer_share_no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = one_layer_bundle()
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
