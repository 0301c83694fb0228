"""The portable graph: parity with torch, opset, operators, shapes, determinism."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import InputConfig, ModelConfig
from edgekd.errors import BuildError
from edgekd.training.export import OPERATORS, OPSET, export_onnx
from edgekd.training.models import Detector, build_model

SIZE = InputConfig(height=32, width=64)
CASES = {  # every head, every neck, and the backbones with operators of their own
    "plain": ModelConfig(backbone="csp-tiny", width=0.25, channels=8, head_depth=1, levels=(3, 4)),
    "gated": ModelConfig(
        backbone="mobilenetv3-small", width=0.25, channels=8, head_depth=1, head="retina", neck="fpn", levels=(4, 5, 6)
    ),
    "ragged": ModelConfig(
        backbone="squeezenet1.1", width=0.25, channels=8, head_depth=1, head="retina-giou", levels=(4,)
    ),
    "folded": ModelConfig(backbone="mobilenetv2-tf", width=0.25, channels=8, head_depth=0, neck="fpn", levels=(5,)),
    "yolov4": ModelConfig(
        backbone="csp-tiny", width=0.25, neck="yolov4", channels=8, head="yolo", head_depth=1, levels=(3, 4, 5)
    ),
}

SMALLEST = ModelConfig(backbone="resnet18", width=0.125, channels=8, head_depth=1, neck="fpn", levels=(3,))


def lively(config: ModelConfig) -> Detector:
    """Return a detector whose BatchNorm layers do something, laid out in memory as training leaves it."""
    model = build_model(config, 3, SIZE, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values, low, high in ((layer.running_var, 0.5, 2), (layer.weight, 0.5, 1.5)):
                assert values is not None
                values.data.uniform_(low, high, generator=generator)
            for values in (layer.running_mean, layer.bias):
                assert values is not None
                values.data.normal_(0, 0.2, generator=generator)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.fixture(scope="module", params=sorted(CASES))
def exported(request: pytest.FixtureRequest) -> tuple[Detector, bytes]:
    model = lively(CASES[request.param])
    return model, export_onnx(model, SIZE)


def run(data: bytes, images: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return list(session.run(["boxes", "scores"], {"images": images.numpy()}))


@pytest.mark.parametrize("batch", [1, 3])
def test_export_when_run_by_onnx_runtime_then_it_agrees_with_torch(
    exported: tuple[Detector, bytes], batch: int
) -> None:
    model, data = exported
    images = torch.randn(batch, 3, 32, 64, generator=torch.Generator().manual_seed(batch))
    boxes, scores = run(data, images)
    with torch.no_grad():
        expected_boxes, expected_scores = model.eval()(images)
    np.testing.assert_allclose(scores, expected_scores.numpy(), atol=1e-4)
    np.testing.assert_allclose(boxes, expected_boxes.numpy(), rtol=1e-4, atol=1e-3)


def test_export_when_read_then_opset_operators_and_shapes_follow_the_contract(exported: tuple[Detector, bytes]) -> None:
    model, data = exported
    graph = onnx.load_from_string(data)
    assert [(item.domain, item.version) for item in graph.opset_import] == [("", OPSET)]
    assert graph.ir_version == 8
    assert {node.op_type for node in graph.graph.node} <= OPERATORS
    with torch.no_grad():
        boxes, scores = model.eval()(torch.zeros(1, 3, 32, 64))
    shapes = {
        item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes == {
        "images": ["batch", 3, 32, 64],
        "boxes": ["batch", boxes.shape[1], 4],
        "scores": ["batch", scores.shape[1], 3],
    }


def test_export_when_read_then_nothing_of_the_build_machine_is_in_it(exported: tuple[Detector, bytes]) -> None:
    data = exported[1]
    for trace in (b".py", b"/work", b"site-packages", b"pkg.torch", b"stack_trace", b"torch.ops"):
        assert trace not in data, trace


def test_export_when_repeated_then_bytes_are_the_same_and_the_model_is_untouched() -> None:
    model = lively(SMALLEST).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = export_onnx(model, SIZE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert export_onnx(model, SIZE) == first


def test_export_when_weights_lie_channels_last_then_bytes_are_the_same() -> None:
    """Torch's exporter otherwise asks for shapes at run time around a pooled map, which no target translates."""
    config = CASES["gated"]
    data = export_onnx(build_model(config, 3, SIZE, seed=0), SIZE)
    trained = build_model(config, 3, SIZE, seed=0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert export_onnx(trained, SIZE) == data


def test_export_when_the_graph_cannot_be_plain_then_the_error_names_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = lively(SMALLEST)
    decode = model.head.decode

    def sorting(outputs: object) -> tuple[Tensor, Tensor]:
        boxes, scores = decode(outputs)  # type: ignore[arg-type]
        return boxes, scores.topk(1, dim=2).values.expand_as(scores)

    monkeypatch.setattr(model.head, "decode", sorting)
    with pytest.raises(BuildError, match=r"the graph needs .*TopK.*targets translate only: Add, Clip"):
        export_onnx(model, SIZE)


def test_export_when_torch_cannot_trace_then_it_is_a_build_error() -> None:
    model = lively(SMALLEST)
    with pytest.raises(BuildError, match="cannot be exported as ONNX opset 17"):
        export_onnx(model, InputConfig(height=0, width=64))


def test_weights_stored_in_halves_take_half_the_bytes_and_compute_in_float32() -> None:
    model = lively(SMALLEST)
    model.backbone.get_submodule("layer2.1.conv2").weight.data[0, 0, 0, 0] = 1e6  # no half is as great
    whole, half = export_onnx(model, SIZE), export_onnx(model, SIZE, storage="fp16")
    onnx.checker.check_model(onnx.load_from_string(half), full_check=True)
    halves = [i for i in onnx.load_from_string(half).graph.initializer if i.data_type == onnx.TensorProto.FLOAT16]
    large = [item for item in onnx.load_from_string(whole).graph.initializer if np.prod(item.dims) >= 1024]
    assert len(halves) == len(large) - 1 > 2
    saved = sum(2 * int(np.prod(item.dims)) for item in halves)
    assert len(half) < len(whole) - 0.9 * saved
    images = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(run(half, images), run(whole, images), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=0.05, rtol=1e-2)
    assert export_onnx(model, SIZE, storage="fp16") == half


def test_nodes_are_named_after_the_modules_they_come_from(exported: tuple[Detector, bytes]) -> None:
    model, data = exported
    graph = onnx.load_from_string(data).graph
    modules = {name for name, _ in model.named_modules()}
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    found = [".".join(name.split("/")[1:-1]) for name in names]
    assert set(found) <= modules
    assert {name.split(".")[0] for name in found} == {"", "backbone", "neck", "head"}  # "": decoding
    weights = {item.name for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights and node.input[1].endswith(".weight"):
            assert ".".join(node.name.split("/")[1:-1]) == node.input[1].removesuffix(".weight")
