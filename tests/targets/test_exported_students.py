"""What the trainer exports, through every target's front end: quick parts only, the whole way is the demo's."""

from __future__ import annotations

import contextlib
from functools import cache

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from edgekd.targets.tensorrt import _ahead  # noqa: E402
from edgekd.targets.tensorrt._half import halve  # noqa: E402
from edgekd.targets.tflite._torch_from_onnx import TranslatedGraph  # noqa: E402

from edgekd._anomaly_recipe import (  # noqa: E402
    AnomalyDataConfig,
    AnomalyModelConfig,
    AnomalyRecipe,
    AnomalyTeacherConfig,
)
from edgekd._bundle import Bundle  # noqa: E402
from edgekd._manifest import Artifact, InputSpec, Manifest, OutputSpec  # noqa: E402
from edgekd._recipe import InputConfig, ModelConfig  # noqa: E402
from edgekd._target import load_target  # noqa: E402
from edgekd.quantization import FloatGraph, int8_region, layers_of  # noqa: E402
from edgekd.training.anomaly.build import build_network  # noqa: E402
from edgekd.training.export import ANOMALY_OPERATORS, export_onnx  # noqa: E402
from edgekd.training.models import build_model  # noqa: E402

from ..conformance import bundles  # noqa: E402

pytestmark = pytest.mark.slow  # torch's exporter takes its time
SIZE = 128
CLASSES = 3
CLOSE = {"atol": 0.02, "rtol": 1e-4}  # an untrained student sends a few boxes thousands of pixels away
STUDENTS = {
    "csp-tiny dense": ModelConfig(backbone="csp-tiny", width=0.5, channels=16, head_depth=1),
    "mobilenet retina": ModelConfig(backbone="mobilenetv3-small", neck="fpn", channels=16, head="retina", head_depth=1),
    "mobilenet yolov4": ModelConfig(backbone="mobilenetv3-small", neck="yolov4", channels=8, head="yolo", head_depth=1),
}


@cache
def exported(name: str) -> Bundle:
    """Return a bundle with an untrained student whose biases let it find something."""
    size = InputConfig(height=SIZE, width=SIZE)
    model = build_model(STUDENTS[name], CLASSES, size, seed=0).eval()
    with torch.no_grad():
        rows = model(torch.zeros(1, 3, SIZE, SIZE))[0].shape[1]
    manifest = Manifest(
        name=name,
        task="detect",
        classes=tuple("abc"),
        input=InputSpec(height=SIZE, width=SIZE),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(rows, 4), layout="xyxy"),
            OutputSpec(name="scores", kind="scores", shape=(rows, CLASSES), activation="sigmoid"),
        ),
    )
    return Bundle.create(manifest, {"graph.onnx": export_onnx(model, size)})


def outputs(bundle: Bundle, target: str) -> tuple[np.ndarray, ...]:
    built = load_target(target).build(bundle, "fp32", lambda _: None)
    files = {name: f"x/{name}" for name in built.files}
    artifact = Artifact(target=target, precision="fp32", files=files)
    whole = bundle.replace(add={files[name]: content for name, content in built.files.items()})
    with contextlib.closing(load_target(target).load(whole, artifact)) as session:
        return session.infer(pixels(2))


def pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("name", STUDENTS)
def test_translation_of_a_student_agrees(name: str) -> None:
    bundle = exported(name)
    with torch.no_grad():
        got = TranslatedGraph(onnx.load_from_string(bundle.graph()), ["boxes", "scores"])(torch.from_numpy(pixels(1)))
    boxes, scores = outputs(bundle, "reference")
    np.testing.assert_allclose(got["boxes"].numpy(), boxes[:1], **CLOSE)
    np.testing.assert_allclose(got["scores"].numpy(), scores[:1], atol=1e-4)


@pytest.mark.parametrize("name", STUDENTS)
def test_openvino_runs_a_student_as_the_reference_does(name: str) -> None:
    if load_target("openvino").probe() is not None:
        pytest.skip(str(load_target("openvino").probe()))
    for ours, theirs in zip(outputs(exported(name), "openvino"), outputs(exported(name), "reference"), strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", STUDENTS)
def test_tensorrt_takes_a_student_in_both_precisions(name: str) -> None:
    bundle = exported(name)
    for precision in ("fp32", "fp16"):
        built = load_target("tensorrt").build(bundle, precision, lambda _: None)
        assert built.files["model.onnx"]
        if _ahead.available():
            assert built.options["ahead_of_time"]["layers"] > 20


@pytest.mark.parametrize("name", STUDENTS)
def test_float16_student_decodes_in_float32(name: str) -> None:
    model = onnx.load_from_string(halve(exported(name).graph()))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {item.name: item.type.tensor_type.elem_type for item in (*inferred.value_info, *inferred.output)}
    found = {node.op_type: kinds[node.output[0]] for node in model.graph.node}
    assert found.get("Exp", onnx.TensorProto.FLOAT) == found["Sigmoid"] == onnx.TensorProto.FLOAT  # yolo has no Exp
    assert {kinds[node.output[0]] for node in model.graph.node if node.op_type == "Conv"} == {onnx.TensorProto.FLOAT16}


@cache
def exported_anomaly_network(method: str = "rd") -> Bundle:
    """Return a bundle with a random network whose student mirrors the teacher: it has what no detector has."""
    size = InputConfig(height=64, width=96)
    recipe = AnomalyRecipe(
        name="mirror",
        data=AnomalyDataConfig(path="none"),
        teachers=(AnomalyTeacherConfig(backbone="resnet18", width=0.25),),
        input=size,
        model=AnomalyModelConfig(method=method, student="plain" if method == "stfpm" else "mirror"),
    )
    torch.manual_seed(0)
    graph = export_onnx(build_network(recipe).eval(), size, outputs=("map", "score"), operators=ANOMALY_OPERATORS)
    return Bundle.create(bundles.anomaly_manifest(), {"graph.onnx": graph})


@pytest.mark.parametrize("method", ["rd", "rd++", "stfpm"])
def test_every_front_end_takes_an_anomaly_network(method: str) -> None:
    bundle = exported_anomaly_network(method)
    images = bundles.pixels(2)
    theirs = load_target("reference").load(bundle, Artifact(target="reference", precision="fp32", files={}))
    with contextlib.closing(theirs) as session:
        expected = dict(zip(("map", "score"), session.infer(images[:1]), strict=True))
    with torch.no_grad():
        got = TranslatedGraph(onnx.load_from_string(bundle.graph()), ["map", "score"])(torch.from_numpy(images[:1]))
    for name, values in expected.items():
        np.testing.assert_allclose(got[name].numpy(), values, atol=1e-4)
    for precision in ("fp32", "fp16"):  # compares the graph with its float16 form, and has it parsed where it can
        assert load_target("tensorrt").build(bundle, precision, lambda _: None).files["model.onnx"]


def test_float16_anomaly_network_compares_features_in_float32() -> None:
    """Sums of a thousand squares overflow float16, and 1 - cosine loses what matters to cancellation."""
    model = onnx.load_from_string(halve(exported_anomaly_network().graph()))
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {item.name: item.type.tensor_type.elem_type for item in (*inferred.value_info, *inferred.output)}
    for kind in ("ReduceSum", "Sqrt", "Div", "Sub", "MaxPool"):
        found = [kinds[node.output[0]] for node in model.graph.node if node.op_type == kind]
        assert found
        assert found[-1] == onnx.TensorProto.FLOAT
        assert kind == "MaxPool" or set(found) == {onnx.TensorProto.FLOAT}  # the first is the teacher's own
    assert onnx.TensorProto.FLOAT16 in {kinds[node.output[0]] for node in model.graph.node if node.op_type == "Conv"}


def behind_the_layers(graph: FloatGraph) -> set[str]:
    """Return the tensors that depend on a layer and that no layer depends on."""
    layers = {index for layer in layers_of(graph) for index in layer.nodes}
    before: set[str] = set()
    for index in reversed(range(len(graph.graph.node))):
        node = graph.graph.node[index]
        if index in layers or before & set(node.output):
            before |= set(node.input)
    return {name for node in graph.graph.node for name in node.output} - before


@pytest.mark.parametrize("name", [*STUDENTS, "rd", "rd++", "stfpm"])
def test_int8_student_decodes_in_float(name: str) -> None:
    graph = FloatGraph((exported(name) if name in STUDENTS else exported_anomaly_network(name)).graph())
    region = int8_region(graph)
    assert len(region.layers) > 10
    assert not behind_the_layers(graph) & set(region.sources)
    read = {graph.graph.node[index].op_type for index, _ in region.reads}
    assert read <= {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Concat", "MaxPool", "Resize", "Slice", "Reshape",
                    "Transpose", "Flatten", "Split"}, read  # fmt: skip
