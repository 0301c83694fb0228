"""The harness: what a method gets, and what it cannot touch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import DistillConfig, ModelConfig, Recipe
from edgekd.errors import RecipeError
from edgekd.training import distill as distill_module
from edgekd.training.checkpoint import CheckpointFolder
from edgekd.training.distill import Distiller, scheduled_weight
from edgekd.training.methods import Scene, Taps
from edgekd.training.models import HeadOutputs, build_model
from edgekd.training.run import read_splits
from edgekd.training.teacher import TappedNetwork, Teacher, fingerprint
from edgekd.training.teacher_cache import CachedTeacher
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.training.teacher import Guide

Small = Callable[..., Recipe]
SCENE = Scene([], [], 64, 64, 0, 10)
PKD = DistillConfig(method="pkd")


def teacher_for(recipe: Recipe, **changes: Any) -> Teacher:
    config = ModelConfig(**{"backbone": "csp-tiny", "width": 0.25, "channels": 24, "head_depth": 1, **changes})
    size = config.input or recipe.input
    return Teacher(build_model(config, 2, size, seed=7), size, {})


def trained(recipe: Recipe, folder: Path, teacher: Guide | None = None, run: bool = True) -> Trainer:
    splits = read_splits(recipe)
    trainer = Trainer(recipe, folder, splits["train"], splits["val"], teacher=teacher, device=torch.device("cpu"))
    if run:
        trainer.run()
    return trainer


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("methods", "amp"),
    [
        (("pkd", "pkd"), False),
        (("pkd", "pkd"), True),
        (("fgd", "xfkd"), False),
        (("fgd", "xfkd"), True),
    ],
)
def test_run_with_all_weights_zero_is_bit_identical_to_the_baseline(
    small: Small, tmp_path: Path, methods: tuple[str, ...], amp: bool
) -> None:
    options: dict[str, dict[str, Any]] = {"xfkd": {"attention": "cbam", "dan": True}}  # most of what can be trained
    baseline = trained(small(amp=amp, clip_norm=0.5), tmp_path / "baseline")
    entries = tuple(DistillConfig(method=name, weight=0.0, options=options.get(name, {})) for name in methods)
    recipe = small(amp=amp, clip_norm=0.5, distill=entries)
    control = trained(recipe, tmp_path / "control", teacher_for(recipe))
    assert any(True for _ in control.distiller.parameters()), "there should be adapters to disturb the run"
    assert same(baseline.student, control.student)
    assert same(baseline.average.model, control.average.model)


def test_run_with_a_weight_differs_from_the_baseline(small: Small, tmp_path: Path) -> None:
    recipe = small(distill=(PKD,))
    taught = trained(recipe, tmp_path / "taught", teacher_for(recipe))
    assert not same(trained(small(), tmp_path / "baseline").student, taught.student)


def test_correlation_with_the_teacher_rises(small: Small, tmp_path: Path) -> None:
    import json

    recipe = small(steps=40, lr=1e-2, distill=(PKD,))
    trained(recipe, tmp_path, teacher_for(recipe))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for level in ("p3", "p4", "p5"):
        assert rows[-1][f"pkd.{level}"] < 0.9 * rows[0][f"pkd.{level}"]


def test_teacher_is_the_same_after_training(small: Small, tmp_path: Path) -> None:
    recipe = small(distill=(PKD,))
    teacher = teacher_for(recipe)
    network: Any = teacher.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    digest = fingerprint(network)
    trained(recipe, tmp_path, teacher)
    assert fingerprint(network) == digest == teacher.source["state_sha256"]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(module.training for module in network.modules())


def test_adapters_are_trained_saved_and_resumed_but_no_part_of_the_student(small: Small, tmp_path: Path) -> None:
    recipe = small(distill=(PKD,))
    run = trained(recipe, tmp_path, teacher_for(recipe), run=False)
    before = {name: p.detach().clone() for name, p in run.distiller.named_parameters()}
    run.run()
    after = dict(run.distiller.named_parameters())
    assert before
    assert all(not torch.equal(before[name], after[name]) for name in before)
    found = CheckpointFolder(tmp_path / "checkpoints").latest()
    assert set(found.part("distiller")) == set(run.distiller.state_dict())
    assert any(name.startswith("distiller.adapters") for name in found.part("optimizer"))
    assert set(found.part("average")) == set(build_model(recipe.student, 2, recipe.input).state_dict())
    resumed = trained(recipe, tmp_path, teacher_for(recipe), run=False)
    assert same(resumed.distiller, run.distiller)


def test_run_that_is_killed_and_resumed_from_a_cache_ends_with_the_bits_of_one_that_was_not(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what a resumed run could lose: draws, schedules, adapters partly frozen, an entry that is over."""
    options = {"attention": "cbam", "dan": True, "rho_schedule": "linear"}
    entries = (
        DistillConfig(method="mgd", warmup=4),
        DistillConfig(method="xfkd", schedule="cosine", options=options),
        DistillConfig(method="pkd", until=0.5),
    )
    recipe = small(distill=entries)
    whole = trained(recipe, tmp_path / "whole", teacher_for(recipe))
    advance = Trainer._advance

    def until_killed(self: Trainer, batch: Any) -> Any:
        if self.step == 5:
            raise InterruptedError
        return advance(self, batch)

    def cached() -> CachedTeacher:
        return CachedTeacher(tmp_path / "cache", {}, lambda: teacher_for(recipe))

    monkeypatch.setattr(Trainer, "_advance", until_killed)
    with pytest.raises(InterruptedError):
        trained(recipe, tmp_path / "cut", cached())
    monkeypatch.setattr(Trainer, "_advance", advance)
    reader = cached()
    resumed = trained(recipe, tmp_path / "cut", reader, run=False)
    assert resumed.step == 4
    resumed.run()
    assert (reader.hits, reader.misses) == (4, 4), "the step that was lost is in the cache"
    assert same(whole.student, resumed.student)
    assert same(whole.average.model, resumed.average.model)
    assert same(whole.distiller, resumed.distiller)


def test_gradients_of_adapters_do_not_shrink_the_students(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student and adapters are clipped apart: each ends at the limit, not both together."""
    recipe = small(clip_norm=0.01, distill=(PKD,), steps=1)
    run = trained(recipe, tmp_path, teacher_for(recipe))
    for part in (run.student, run.distiller):
        norm = torch.stack([p.grad.norm() for p in part.parameters() if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_building_adapters_leaves_the_global_stream_alone_and_depends_on_the_seed() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = Distiller([PKD], {3: 8}, {"teacher": {3: 16}}, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert same(first, Distiller([PKD], {3: 8}, {"teacher": {3: 16}}, seed=1))
    assert not same(first, Distiller([PKD], {3: 8}, {"teacher": {3: 16}}, seed=2))


class Probe:
    """A method that draws, and keeps what it was given."""

    needs_head = False

    def __init__(self) -> None:
        self.calls: list[tuple[Taps, Taps]] = []
        self.draws: list[Tensor] = []
        self.autocast: list[bool] = []

    def adapters(self, _channels: Any) -> nn.Module:
        return nn.Identity()

    def __call__(self, student: Taps, teacher: Taps, _adapters: nn.Module, _scene: Scene) -> dict[str, Tensor]:
        self.calls.append((student, teacher))
        self.draws.append(torch.rand(3))
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return {f"p{level}": feature.mean() for level, feature in student.features.items()}


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    found = Probe()
    monkeypatch.setattr(distill_module, "method", lambda *_, **__: found)
    return found


def test_draws_of_a_step_are_a_function_of_seed_and_step(probe: Probe) -> None:
    distiller = Distiller([DistillConfig(method="probe")], {3: 4}, {"teacher": {3: 4}}, seed=1)
    taps = Taps({3: noise(1, 4, 8, 8)})
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    for step in (0, 0, 1):
        distiller(taps, {"teacher": taps}, Scene([], [], 64, 64, step, 10))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(probe.draws[0], probe.draws[1])
    assert not torch.equal(probe.draws[0], probe.draws[2])


def test_method_gets_matched_levels_in_fp32_on_one_grid_without_autocast(probe: Probe) -> None:
    distiller = Distiller([DistillConfig(method="probe")], {3: 4, 4: 4, 5: 4}, {"teacher": {4: 6, 5: 6, 6: 6}}, seed=0)
    student = Taps({3: noise(1, 4, 8, 8), 4: noise(1, 4, 4, 4).bfloat16(), 5: noise(1, 4, 2, 2)})
    teacher = Taps({4: noise(1, 6, 4, 4), 5: noise(1, 6, 3, 5).requires_grad_(), 6: noise(1, 6, 1, 1)})
    with torch.autocast("cpu", torch.bfloat16):
        distiller(student, {"teacher": teacher}, SCENE)
    ours, theirs = probe.calls[0]
    assert set(ours.features) == set(theirs.features) == {4, 5}
    assert ours.features[4].dtype == torch.float32
    assert probe.autocast == [False]
    assert ours.features[5].shape == (1, 4, 3, 5)
    assert not theirs.features[5].requires_grad


def test_entries_add_up_by_weight_and_repeated_ones_are_numbered(probe: Probe) -> None:
    entries = [DistillConfig(method="probe", weight=w, levels=(3,)) for w in (1.0, 0.5)]
    student, teacher = Taps({3: torch.full((1, 4, 2, 2), 8.0)}), Taps({3: torch.zeros(1, 4, 2, 2)})
    total, values = Distiller(entries, {3: 4}, {"teacher": {3: 4}}, seed=0)(student, {"teacher": teacher}, SCENE)
    assert total.item() == 12
    assert {name: value.item() for name, value in values.items()} == {"probe.p3": 8, "probe2.p3": 8}


def test_entry_of_weight_zero_sees_maps_without_a_graph_and_still_uses_its_adapters() -> None:
    """Zeros added to a gradient can change how it lies in memory, and so the last bit of what is summed from it."""
    leaf, head = noise(1, 4, 8, 8).requires_grad_(), noise(1, 2, 8, 8).requires_grad_()
    student, teacher = Taps({3: leaf}, HeadOutputs((head,), (head,))), {"teacher": Taps({3: noise(1, 6, 8, 8, seed=1)})}
    for weight in (0.0, 0.5):
        leaf.grad = None
        distiller = Distiller([DistillConfig(method="pkd", weight=weight)], {3: 4}, {"teacher": {3: 6}}, seed=0)
        distiller(student, teacher, SCENE)[0].backward()
        assert (leaf.grad is None) == (weight == 0)
        assert all(parameter.grad is not None for parameter in distiller.parameters())


def test_entry_of_weight_zero_sees_head_outputs_without_a_graph(probe: Probe) -> None:
    leaf, head = noise(1, 4, 8, 8).requires_grad_(), noise(1, 2, 8, 8).requires_grad_()
    student = Taps({3: leaf}, HeadOutputs((head,), (head,)), "network")
    distiller = Distiller([DistillConfig(method="probe", weight=0.0)], {3: 4}, {"teacher": {3: 4}}, seed=0)
    distiller(student, {"teacher": Taps({3: leaf})}, SCENE)
    seen = probe.calls[0][0]
    assert torch.equal(seen.head.logits[0], head)
    assert not seen.head.logits[0].requires_grad
    assert not seen.head.regression[0].requires_grad
    assert seen.network == "network"


def test_weight_rises_linearly_over_the_warmup() -> None:
    entry = DistillConfig(method="pkd", weight=2.0, warmup=4)
    assert [scheduled_weight(entry, step, 1000) for step in (0, 1, 3, 4, 100)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert scheduled_weight(DistillConfig(method="pkd", weight=2.0), 0, 10) == 2.0


@pytest.mark.parametrize(
    ("entry", "student", "teacher", "message"),
    [
        (PKD, {3: 4}, {5: 4}, "no pyramid level in common: student has P3, teacher has P5"),
        (DistillConfig(method="pkd", levels=(3, 6)), {3: 4, 4: 4}, {3: 4, 4: 4}, r"levels \[3, 6\].* \[3, 4\]"),
        (DistillConfig(method="pkd", levels=()), {3: 4}, {3: 4}, r"levels \[\] asked for, possible: \[3\]"),
        (DistillConfig(method="nope"), {3: 4}, {3: 4}, "no distillation method 'nope'; possible: .*pkd"),
    ],
)  # fmt: skip
def test_impossible_entries_are_refused(
    entry: DistillConfig, student: dict[int, int], teacher: dict[int, int], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Distiller([entry], student, {"teacher": teacher}, seed=0)


def test_distill_without_a_teacher_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"\[\[distill\]\] needs a \[teacher\]"):
        trained(small(distill=(PKD,)), tmp_path)


def test_method_that_needs_a_head_refuses_a_teacher_without_one(small: Small, tmp_path: Path, probe: Probe) -> None:
    probe.needs_head = True
    recipe = small(distill=(DistillConfig(method="probe"),))
    network = TappedNetwork(nn.Conv2d(3, 4, 3, 8, 1), {"": 8})
    with pytest.raises(RecipeError, match=r"^probe: needs a teacher with a head; 'teacher' has none: use a"):
        trained(recipe, tmp_path, Teacher(network, recipe.input, {}))


def test_another_teacher_is_another_run(small: Small, tmp_path: Path) -> None:
    recipe = small(distill=(PKD,), steps=2)
    trained(recipe, tmp_path, teacher_for(recipe))
    with pytest.raises(RecipeError, match=r"holds another run .*teacher"):
        trained(recipe, tmp_path, teacher_for(recipe, channels=32))


@pytest.mark.parametrize(
    ("classes", "remedy"),
    [
        (("red", "blue"), r"set data\.classes = \['red', 'blue'\]"),
        (("cat", "dog"), "train the teacher on the same classes"),
    ],
)
@pytest.mark.parametrize(
    "entry",
    [DistillConfig(method="nsd", options={"warmup": 0.0}), DistillConfig(method="fad", options={"mdc": "logits"})],
)
def test_teacher_of_other_classes_does_not_teach_class_by_class(
    small: Small, tmp_path: Path, entry: DistillConfig, classes: tuple[str, ...], remedy: str
) -> None:
    """COCO files number categories as they like, so that two sets of the same names may differ in order."""
    recipe = small(distill=(PKD, entry))
    teacher = teacher_for(recipe)
    teacher.classes = classes
    data = dataclasses.replace(recipe.data, classes=("blue", "red"))
    message = (
        rf"^{entry.method}: .* teacher 'teacher' are {', '.join(classes)} and those of the data blue, red; {remedy}"
    )
    with pytest.raises(RecipeError, match=message):
        trained(recipe.replace(data=data), tmp_path, teacher, run=False)
    trained(recipe.replace(data=data, distill=(PKD,)), tmp_path, teacher, run=False)
    teacher.classes = ("blue", "red")
    trained(recipe.replace(data=data), tmp_path, teacher, run=False)


def test_weight_falls_to_zero_where_the_recipe_says_so() -> None:
    def weights(**options: Any) -> list[float]:
        entry = DistillConfig(method="pkd", weight=2.0, **options)
        return [scheduled_weight(entry, step, 8) for step in (0, 2, 4, 7)]

    assert weights() == [2.0, 2.0, 2.0, 2.0]
    assert weights(until=0.5) == [2.0, 2.0, 0.0, 0.0]
    assert weights(schedule="linear") == [2.0, 1.5, 1.0, 0.25]
    assert weights(schedule="linear", until=0.5) == [2.0, 1.0, 0.0, 0.0]
    assert weights(schedule="cosine")[2] == pytest.approx(1.0)
    assert weights(schedule="cosine", until=0.5)[1:] == pytest.approx([1.0, 0.0, 0.0])


def test_teachers_and_their_heads_are_asked_for_while_an_entry_needs_them() -> None:
    entries = [
        DistillConfig(method="fad", until=0.5, options={"mdc": "logits"}),
        DistillConfig(method="pkd", until=0.75),
        DistillConfig(method="pkd", teacher="other", weight=0.0),
    ]
    distiller = Distiller(entries, {3: 4}, {"teacher": {3: 4}, "other": {3: 4}}, seed=0)
    assert distiller.asked(1, 4) == {"teacher": True, "other": False}
    assert distiller.asked(2, 4) == {"teacher": False, "other": False}
    assert distiller.asked(3, 4) == {"other": False}, "a weight of 0 asks for the losses, not for less"


def test_teacher_rests_when_its_entries_are_over_and_no_bit_changes(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setattr("edgekd.training.trainer.LOG_EVERY", 1)
    monkeypatch.setattr("edgekd.training.trainer.OBSERVE_EVERY", 1)
    looked: list[Teacher] = []
    look = Teacher.look
    monkeypatch.setattr(Teacher, "look", lambda self, *a, **k: looked.append(self) or look(self, *a, **k))
    entries = (
        DistillConfig(method="fgd", until=0.5),
        DistillConfig(method="pkd", teacher="other", until=0.75, levels=(4,)),
    )
    recipe = small(distill=entries, steps=4, warmup=0)
    splits = read_splits(recipe)
    teachers = {"teacher": teacher_for(recipe), "other": teacher_for(recipe, channels=32)}

    def run(folder: str) -> tuple[Trainer, list[int], list[dict[str, float]]]:
        looked.clear()
        trainer = Trainer(
            recipe, tmp_path / folder, splits["train"], splits["val"], teacher=teachers, device=torch.device("cpu")
        )
        trainer.run()
        lines = map(json.loads, (tmp_path / folder / "metrics.jsonl").read_text().splitlines())
        return trainer, [looked.count(each) for each in teachers.values()], [row for row in lines if "loss" in row]

    rested, times, rows = run("rested")
    assert times == [2, 3]
    for name, steps in (("fgd.fg.p3", 2), ("observed.fgd.r.p3", 2), ("pkd.p4", 3), ("observed.pkd.r.p4", 3)):
        assert [name in row for row in rows] == [step < steps for step in range(4)]
    assert [row["neck.distill.p4"] > 0 for row in rows] == [True, True, True, False]

    weight, over = distill_module.scheduled_weight, distill_module.is_over
    monkeypatch.setattr(distill_module, "is_over", lambda *_: False)
    monkeypatch.setattr(distill_module, "scheduled_weight", lambda *a: 0.0 if over(*a) else weight(*a))
    awake, times, others = run("awake")
    assert times == [4, 4]
    assert same(rested.student, awake.student)
    assert same(rested.average.model, awake.average.model)
    assert same(rested.distiller, awake.distiller), "weight decay and momentum should go on as before"
    assert [row["loss"] for row in rows] == [row["loss"] for row in others]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "step"}, "no schedule 'step'; possible: constant, linear, cosine"),
        ({"teacher": "big"}, "no teacher 'big'; possible: teacher"),
    ],
)
def test_impossible_schedules_and_teachers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Distiller([DistillConfig(method="pkd", **options)], {3: 4}, {"teacher": {3: 4}}, seed=0)


def test_each_entry_is_taught_by_the_teacher_it_names(probe: Probe) -> None:
    entries = [DistillConfig(method="probe", teacher=name) for name in ("large", "other")]
    distiller = Distiller(entries, {3: 4}, {"large": {3: 6}, "other": {3: 5}}, seed=0)
    shown = {"large": Taps({3: noise(1, 6, 4, 4)}), "other": Taps({3: noise(1, 5, 4, 4)})}
    distiller(Taps({3: noise(1, 4, 4, 4)}), shown, SCENE)
    assert [call[1].features[3].shape[1] for call in probe.calls] == [6, 5]


def test_two_teachers_train_one_student(small: Small, tmp_path: Path) -> None:
    entries = (PKD, DistillConfig(method="pkd", teacher="other", levels=(4,)))
    recipe = small(distill=entries, steps=2)
    splits = read_splits(recipe)
    teachers = {"teacher": teacher_for(recipe), "other": teacher_for(recipe, channels=32)}
    trainer = Trainer(recipe, tmp_path, splits["train"], splits["val"], teacher=teachers, device=torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in trainer.distiller.named_parameters()}
    trainer.run()
    assert {tuple(p.shape) for p in before.values()} == {(24, 16, 1, 1), (24,), (32, 16, 1, 1), (32,)}
    assert all(not torch.equal(before[name], p) for name, p in trainer.distiller.named_parameters())
    assert {"teacher", "teacher other"} <= set(trainer.identity.values)


def test_prepare_changes_the_student_before_anything_is_built_on_it(small: Small, tmp_path: Path) -> None:
    """As quantization-aware training does: weights rounded in the forward pass, trained straight through."""

    class Rounded(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight + ((weight * 16).round() / 16 - weight).detach()

    def prepare(student: nn.Module) -> None:
        for layer in list(student.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.utils.parametrize.register_parametrization(layer, "weight", Rounded())

    recipe = small(steps=2)
    splits = read_splits(recipe)
    trainer = Trainer(recipe, tmp_path, splits["train"], splits["val"], prepare=prepare, device=torch.device("cpu"))
    trainer.run()
    weights = [layer.weight for layer in trainer.average.model.modules() if isinstance(layer, nn.Conv2d)]
    assert weights
    assert all(torch.equal(weight * 16, (weight * 16).round()) for weight in weights)
    with pytest.raises(RecipeError, match=r"holds another run .*prepare"):
        trained(recipe, tmp_path, run=False)
