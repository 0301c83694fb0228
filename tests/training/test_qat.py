"""Quantization-aware training: the rounded network is the exported int8 graph, and training it repays."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgekd._bundle import Bundle
from edgekd._distill import distill
from edgekd._recipe import AugmentConfig, DistillConfig, InputConfig, ModelConfig, QatConfig, Recipe
from edgekd.errors import RecipeError, UsageError
from edgekd.quantization import int8_region, quantized_graph, trained_scales
from edgekd.quantization.graph import FloatGraph
from edgekd.training import quantized_detector as detector_module
from edgekd.training.data.loader import normalise
from edgekd.training.export import export_onnx
from edgekd.training.guides import teachers_of
from edgekd.training.methods import Scene
from edgekd.training.models import Detector, build_model
from edgekd.training.models.heads import TowerHead
from edgekd.training.objective import Objective
from edgekd.training.qat import calibration_images, fine_tuning, trained_on
from edgekd.training.quantized_detector import QuantizedDetector
from edgekd.training.quantized_graph import ASYMMETRIC, SYMMETRIC
from edgekd.training.run import make_trainer, read_splits
from edgekd.training.teacher import fingerprint
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._train import TrainReport

Small = Callable[..., Recipe]
SIZE = InputConfig(height=64, width=64)
CASES = {
    "dense": ModelConfig(
        backbone="csp-tiny", width=0.25, channels=16, head_depth=2, levels=(3, 4)
    ),  # towers with a copy a level
    "retina": ModelConfig(  # predictors that levels share, gates
        backbone="mobilenetv3-small", width=0.25, channels=8, head_depth=1, head="retina", neck="fpn", levels=(4, 5)
    ),
    "yolo": ModelConfig(backbone="csp-tiny", width=0.25, neck="yolov4", channels=8, head="yolo", head_depth=1),
    "oriented": ModelConfig(backbone="squeezenet1.1", width=0.25, channels=8, head_depth=1, head="retina-obb-class"),
}
NO_LUCK = AugmentConfig(flip=0, scale=(1, 1), translate=0, hsv=(0, 0, 0))


def lively(config: ModelConfig) -> Detector:
    """Return a detector whose BatchNorm layers do something."""
    model = build_model(config, 2, SIZE, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            assert layer.running_mean is not None
            for values, low, high in ((layer.running_var, 0.5, 2), (layer.weight, 0.5, 1.5)):
                values.data.uniform_(low, high, generator=generator)
            for values in (layer.running_mean, layer.bias):
                values.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, as images are."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (64, 64), mode="bilinear").numpy()


def literal(graph: bytes, names: list[str]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Return the int8 graph as it is written: ONNX Runtime computes every Q/DQ node, and fuses nothing."""
    model = onnx.load_from_string(graph)
    known = {item.name for item in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(names, {"images": images}))


def int8_graph(model: QuantizedDetector) -> bytes:
    graph = FloatGraph(model.portable())
    return quantized_graph(graph, int8_region(graph, model.floating), model.graph.scales())


@torch.no_grad()
def run(model: Detector, images: np.ndarray) -> list[np.ndarray]:
    return [output.numpy() for output in model.eval()(torch.from_numpy(images))]


@pytest.fixture(scope="module", autouse=True)
def _exported_once() -> Any:
    """An export takes seconds; the same student is exported once for all tests."""
    known: dict[object, bytes] = {}

    def once(model: nn.Module, size: InputConfig, *, outputs: tuple[str, ...]) -> bytes:
        key = (fingerprint(model), size, outputs)
        if key not in known:
            known[key] = export_onnx(model, size, outputs=outputs)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_module, "export_onnx", once)
        yield


@pytest.fixture(scope="module", params=sorted(CASES))
def rounded(request: pytest.FixtureRequest) -> tuple[Detector, QuantizedDetector]:
    model = lively(CASES[request.param])
    return model, QuantizedDetector(model, pictures(4), SYMMETRIC).eval()


def test_without_rounding_it_is_the_detector(rounded: tuple[Detector, QuantizedDetector]) -> None:
    model, student = rounded
    images = pictures(2, seed=5)
    features = student.features(torch.from_numpy(images))
    student.graph.rounding = False
    try:
        for ours, theirs in zip(run(student, images), run(model, images), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-3)
        plain = student.features(torch.from_numpy(images))
    finally:
        student.graph.rounding = True
    assert any(not torch.equal(a, b) for a, b in zip(features, plain, strict=True)), "nothing was rounded"
    with torch.no_grad():
        expected = model.features(torch.from_numpy(images))
    for found, wanted in zip(plain, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_it_agrees_with_the_exported_int8_graph(rounded: tuple[Detector, QuantizedDetector]) -> None:
    _, student = rounded
    images = pictures(3, seed=9)
    assert_one_network(student, int8_graph(student), images)
    apart = int8_of_both(student, int8_graph(student), images, layerwise=False)
    assert (apart <= 1).mean() >= 0.999
    boxes, scores = run(student, images)
    theirs = literal(int8_graph(student), ["boxes", "scores"])(images)
    np.testing.assert_allclose(scores, theirs[1], atol=1e-4)
    np.testing.assert_allclose(boxes, theirs[0], rtol=1e-4, atol=1e-2)


def int8_of_both(student: QuantizedDetector, graph: bytes, images: np.ndarray, *, layerwise: bool) -> np.ndarray:
    """Return how many steps apart every int8 value of a graph is in the network that is trained.

    Args:
        student: the network.
        graph: the int8 graph, which ONNX Runtime runs as it is written.
        images: what both see.
        layerwise: give the student, for each tensor, all others as the graph has them. Sums differ in their last bits
            between runtimes, which moves a value to the next step now and then, and the layers behind it with it.
    """
    names = [name for name in student.graph.region.sources if name != "images"]
    found = literal(graph, [*names, *(f"{name}_quantized" for name in names)])(images)
    floats = dict(zip(names, map(torch.from_numpy, found), strict=False)) if layerwise else {}
    image = {"images": torch.from_numpy(images)}
    apart = []
    with torch.no_grad():
        for name, whole in zip(names, found[len(names) :], strict=True):
            others = {other: values for other, values in floats.items() if other != name}
            (ours,) = student.eval().graph.run({**image, **others}, [name])
            rounded = np.clip(np.rint(ours.numpy() / np.float32(student.graph.scales()[name])), -128, 127)
            apart.append(np.abs(rounded - whole.astype(np.float32)).ravel())
    return np.concatenate(apart)


def assert_one_network(student: QuantizedDetector, graph: bytes, images: np.ndarray) -> None:
    apart = int8_of_both(student, graph, images, layerwise=True)
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.9995


def test_the_portable_graph_has_the_trained_weights_and_the_same_region(
    rounded: tuple[Detector, QuantizedDetector],
) -> None:
    student = copy.deepcopy(rounded[1])
    with torch.no_grad():
        for parameter in student.graph.parameters():
            parameter.mul_(1.01)
    graph = FloatGraph(student.portable())
    assert graph.outputs == ("boxes", "scores")
    region, own = int8_region(graph), student.graph.region
    assert (region.sources, region.reads, region.layers) == (own.sources, own.reads, own.layers)
    before = FloatGraph(rounded[1].portable())
    for layer in region.layers:
        np.testing.assert_array_equal(graph.values(layer.weight), before.values(layer.weight) * np.float32(1.01))


def test_towers_can_be_crossed(rounded: tuple[Detector, QuantizedDetector]) -> None:
    model, student = rounded
    if not isinstance(model.head, TowerHead):
        pytest.skip("the head has no towers")
    features = student.features(torch.from_numpy(pictures(2)))
    student.graph.rounding = False
    try:
        for level, feature in enumerate(features):
            for name in ("class_tower", "box_tower"):
                ours, theirs = (each.head.get_submodule(name) for each in (student, model))
                assert len(ours.convs) == len(theirs.convs)
                for count in range(len(theirs.convs) + 1):
                    expected = theirs.before(feature.clone(), level, count)
                    torch.testing.assert_close(ours.before(feature, level, count), expected, rtol=1e-4, atol=1e-4)
                    assert bool((expected < 0).any()) or not count, "the activation has run"
    finally:
        student.graph.rounding = True


def test_layers_that_stay_floating_are_not_rounded() -> None:
    model = lively(CASES["dense"])
    weight = int8_region(FloatGraph(QuantizedDetector(model, pictures(2), SYMMETRIC).portable())).layers[0].weight
    student = QuantizedDetector(model, pictures(2), SYMMETRIC, floating={weight})
    assert "images" not in student.graph.region.sources
    assert_one_network(student, int8_graph(student), pictures(2))


# --- training -------------------------------------------------------------------------------------------------------


def spoilt(model: Detector, factor: float = 60.0) -> Detector:
    """Return a detector of the same function that int8 spoils: two channels of the stem are made that large.

    What reads them divides by as much. Scales are for whole tensors, so that the other channels are left few steps.
    """
    changed = copy.deepcopy(model)
    stem, reader = changed.backbone.get_submodule("stem"), changed.backbone.get_submodule("stage1.0")
    with torch.no_grad():
        stem.norm.weight[:2] *= factor
        stem.norm.bias[:2] *= factor
        reader.conv.weight[:, :2] /= factor
    return changed


@dataclasses.dataclass
class Prepared:
    """A student trained in float, and what it takes to train it on."""

    recipe: Recipe
    base: Trainer
    model: Detector
    spoilt: Detector
    splits: dict[str, Any]

    def student(self, *, spoilt: bool = False, grammar: str = SYMMETRIC) -> QuantizedDetector:
        images = calibration_images(self.splits["train"], self.recipe)
        return QuantizedDetector(self.spoilt if spoilt else self.model, images, grammar)

    def trainer(self, folder: Path, student: QuantizedDetector | None = None, **changes: Any) -> Trainer:
        plan = self.recipe.replace(train=dataclasses.replace(self.recipe.train, **changes))
        return trained_on(self.base, student or self.student(), plan, folder)


@pytest.fixture(scope="module")
def prepared(taught: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Sixty steps in float, and a plan of twelve more."""
    train = dataclasses.replace(taught.train, steps=60, lr=5e-3, warmup=5, checkpoint_every=50)
    pkd = (DistillConfig(method="pkd", options={"adapt": "always"}),)
    recipe = taught.replace(train=train, augment=NO_LUCK, distill=pkd, qat=QatConfig(steps=0.2, lr=0.1))
    splits = read_splits(recipe)
    teachers = teachers_of(recipe, None, 2, None)
    folder = tmp_path_factory.mktemp("float")
    base = Trainer(recipe, folder, splits["train"], splits["val"], teacher=teachers, device=torch.device("cpu"))
    base.run()
    model = base.average.model.eval()
    return Prepared(fine_tuning(recipe), base, model, spoilt(model), splits)


def loss(prepared: Prepared, model: Detector, trainer: Trainer) -> float:
    """Return the training loss on all training images: the detector's and the distillation's."""
    batches = trainer._batches()
    total = 0.0
    objective = Objective(model, prepared.base.distiller, None)  # the same adapters for all that are compared
    with torch.no_grad():
        for number in range(6):
            given = batches.batch_at(number)
            scene = Scene(list(given.boxes), list(given.labels), 64, 64, 0, 1, None)
            pixels = normalise(given.images, prepared.recipe.input)
            total += float(objective(pixels, scene, trainer._look(given.images, scene))[0])
    return total / 6


def test_one_step_moves_every_weight_and_every_scale(prepared: Prepared, tmp_path: Path) -> None:
    student = prepared.student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    scales = student.graph.scales()
    trainer = prepared.trainer(tmp_path, student, steps=1, warmup=0)
    trainer.run()
    for name, parameter in trainer.student.named_parameters():
        if name.endswith("pace"):
            assert (parameter != before[name]).all(), "a scale has no gradient"
        else:
            assert not torch.equal(parameter, before[name]), name
    moved = trainer.student.graph.scales()  # type: ignore[union-attr, operator]
    assert all(moved[name] != scales[name] for name in scales)


def test_adapters_go_on_as_they_were_and_not_anew(prepared: Prepared, tmp_path: Path) -> None:
    """Fresh ones know nothing of the student's features; their loss would undo the student before it taught it."""
    learnt = prepared.base.distiller
    assert learnt is not None
    before = {name: value.clone() for name, value in learnt.state_dict().items()}
    assert before
    trainer = prepared.trainer(tmp_path, steps=2)
    assert trainer.distiller is not None
    for name, value in trainer.distiller.state_dict().items():
        assert torch.equal(value, before[name]), name
    trainer.run()
    moved = trainer.distiller.state_dict()
    again = prepared.trainer(tmp_path, steps=2)
    assert again.distiller is not None
    assert again.step == 2
    assert all(torch.equal(value, moved[name]) for name, value in again.distiller.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in moved.items())
    assert all(torch.equal(value, before[name]) for name, value in learnt.state_dict().items())


def test_there_is_no_batch_norm_left_to_move_and_the_float_student_stays(prepared: Prepared, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in prepared.model.state_dict().items()}
    trainer = prepared.trainer(tmp_path, steps=2)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in trainer.student.modules())
    trainer.run()
    for name, value in prepared.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_run_that_was_cut_ends_with_the_same_bits(prepared: Prepared, tmp_path: Path) -> None:
    whole = prepared.trainer(tmp_path / "whole", checkpoint_every=3)
    whole.run()
    cut = prepared.trainer(tmp_path / "cut", checkpoint_every=3)
    advance = cut._advance

    def until_five(batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if cut.step == 5:
            raise InterruptedError
        return advance(batch)

    cut._advance = until_five  # type: ignore[method-assign]
    with pytest.raises(InterruptedError):
        cut.run()
    resumed = prepared.trainer(tmp_path / "cut", checkpoint_every=3)
    assert resumed.step == 3
    resumed.run()
    for part in ("student", "average"):
        ours, theirs = (
            (each.student if part == "student" else each.average.model).state_dict() for each in (resumed, whole)
        )
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), (part, name)
    assert int8_graph(resumed.average.model) == int8_graph(whole.average.model)  # type: ignore[arg-type]


def test_the_run_of_another_student_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    prepared.trainer(tmp_path, steps=2).run()
    with pytest.raises(RecipeError, match=r"holds another run \(student state_sha256: "):
        prepared.trainer(tmp_path, prepared.student(spoilt=True), steps=2)
    with pytest.raises(RecipeError, match="student grammar: 'int8-symmetric' there, 'int8-asymmetric' now"):
        prepared.trainer(tmp_path, prepared.student(grammar=ASYMMETRIC), steps=2)


@pytest.mark.parametrize("grammar", [SYMMETRIC, ASYMMETRIC])
def test_training_on_repays_where_rounding_spoils_a_student(prepared: Prepared, tmp_path: Path, grammar: str) -> None:
    student = prepared.student(spoilt=True, grammar=grammar)
    trainer = prepared.trainer(tmp_path, student, steps=40, lr=2e-3)
    ptq = copy.deepcopy(student).eval()
    exact = loss(prepared, prepared.model, trainer)
    assert loss(prepared, prepared.spoilt, trainer) == pytest.approx(exact, rel=1e-3), "float does not mind"
    spoils = loss(prepared, ptq, trainer) - exact
    assert spoils > 0.02 * exact, "the student was to be spoilt"
    trainer.run()
    left = loss(prepared, trainer.average.model, trainer) - exact
    assert left < 0.5 * spoils


def test_asymmetric_ranges_follow_the_batches_and_only_in_training(prepared: Prepared) -> None:
    student = prepared.student(grammar=ASYMMETRIC)
    images = torch.from_numpy(10 * pictures(2))
    before = student.graph.limits.clone()
    with torch.no_grad():
        student.eval()(images)
        assert torch.equal(student.graph.limits, before)
        student.train()(images)
    row = sorted(student.graph.region.sources).index("images")
    assert student.graph.limits[row, 1] > before[row, 1]


# --- the verb -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lesson(taught: Recipe) -> Recipe:
    """A recipe of one method on features, and one that runs the towers of the head."""
    return taught.replace(
        distill=(*taught.distill, DistillConfig(method="crosskd", weight=0.1)), qat=QatConfig(steps=0.5, lr=1)
    )


@pytest.fixture(scope="module")
def report(lesson: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    return distill(lesson, tmp_path_factory.mktemp("run"), qat="openvino")


def test_the_bundle_holds_the_network_that_was_trained(report: TrainReport, lesson: Recipe) -> None:
    """From the file alone: the graph, the scales, and the rule of `edgekd build`."""
    assert report.bundle.parent.name == "qat-openvino"
    with Bundle.read(report.bundle) as bundle:
        manifest, data = bundle.manifest, bundle.graph()
        found = trained_scales(bundle)
    assert found is not None
    assert manifest.provenance["qat"]["target"] == "openvino"
    assert manifest.provenance["qat"]["steps"] == 1
    assert manifest.recipe is not None
    assert manifest.recipe["train"]["steps"] == 2
    log = [json.loads(line) for line in (report.bundle.parent / "metrics.jsonl").read_text().splitlines()]
    assert {"loss_class", "loss_box", "pkd.p3", "crosskd.class", "crosskd.box"} <= set(log[-1])
    assert {row["precision"] for row in manifest.receipts} == {"int8, simulated"}
    graph = FloatGraph(data)
    int8 = quantized_graph(graph, int8_region(graph, found[1]), found[0])
    trainer = _again(report, lesson)
    assert int8 == int8_graph(trainer.average.model)  # type: ignore[arg-type]
    assert isinstance(trainer.average.model, QuantizedDetector)
    assert_one_network(trainer.average.model, int8, calibration_images(trainer.val_set, lesson))


def _again(report: TrainReport, lesson: Recipe) -> Trainer:
    """Return the trainer of the rounded run as it ended."""
    base, splits = make_trainer(lesson, report.folder, torch.device("cpu"))
    student = QuantizedDetector(base.average.model, calibration_images(splits["train"], lesson), SYMMETRIC)
    trainer = trained_on(base, student, fine_tuning(lesson), report.bundle.parent)
    assert trainer.step == 1
    return trainer


def test_the_float_student_stays_beside_it(report: TrainReport) -> None:
    with Bundle.read(report.folder / "model.bin") as bundle:
        assert trained_scales(bundle) is None
        assert "qat" not in bundle.manifest.provenance
    assert json.loads((report.folder / "recipe.json").read_text())["train"]["steps"] == 2


def test_a_finished_run_is_left_as_it_is(report: TrainReport, lesson: Recipe) -> None:
    before = [path.read_bytes() for path in (report.bundle, report.folder / "model.bin")]
    again = distill(lesson, report.folder, qat="openvino")
    assert [path.read_bytes() for path in (again.bundle, again.folder / "model.bin")] == before
    assert again.metrics["val"]["AP"] == pytest.approx(report.metrics["val"]["AP"], nan_ok=True)


def test_scales_for_litert_are_its_own_affair(lesson: Recipe, report: TrainReport) -> None:
    found = distill(lesson, report.folder, qat="tflite")
    with Bundle.read(found.bundle) as bundle:
        assert bundle.manifest.provenance["qat"]["target"] == "tflite"
        assert trained_scales(bundle) is None


@pytest.mark.parametrize("target", ["reference", "coreml"])
def test_a_target_without_int8_is_refused(taught: Recipe, tmp_path: Path, target: str) -> None:
    message = rf"cannot train for int8 on '{target}' \(qat, --qat\); possible: openvino, tensorrt, tflite"
    with pytest.raises(UsageError, match=message):
        distill(taught, tmp_path, qat=target)


@pytest.mark.parametrize(("budget", "key"), [(QatConfig(steps=0), "steps"), (QatConfig(lr=2), "lr")])
def test_an_impossible_share_is_refused_before_training(
    taught: Recipe, tmp_path: Path, budget: QatConfig, key: str
) -> None:
    with pytest.raises(RecipeError, match=rf"qat.{key} should be above 0 and at most 1, got"):
        distill(taught.replace(qat=budget), tmp_path, qat="openvino")
    assert not list(tmp_path.iterdir())


def test_the_budget_is_a_share_and_warm_ups_shrink_with_it(taught: Recipe) -> None:
    train = dataclasses.replace(taught.train, steps=1000, lr=1e-2, warmup=100, amp=True)
    entry = dataclasses.replace(taught.distill[0], warmup=500)
    plan = fine_tuning(taught.replace(train=train, distill=(entry,)))
    assert (plan.train.steps, plan.train.warmup, plan.train.amp, plan.distill[0].warmup) == (100, 10, False, 50)
    assert plan.train.lr == pytest.approx(1e-3)
