"""CrossKD: the formula, where its gradient goes, what it leaves alone, what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import DistillConfig, InputConfig, ModelConfig, Recipe
from edgekd.errors import RecipeError
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods.crosskd import CrossKD, restyled
from edgekd.training.models import Detector, build_model
from edgekd.training.run import read_splits
from edgekd.training.teacher import Teacher, levels_of
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = InputConfig(height=64, width=64)
CONFIG = ModelConfig(backbone="csp-tiny", width=0.25, neck="fpn", channels=16, head_depth=2)
SCENE = Scene([torch.tensor([[8.0, 8, 40, 48]]), torch.zeros(0, 4)], [torch.tensor([1]), torch.zeros(0)], 64, 64, 0, 1)
EMPTY = Scene([torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2, 64, 64, 0, 1)
HEADS = ("dense", "retina")
TOWERS = ("class_tower", "box_tower")


def detector(seed: int, head: str = "dense", **changes: Any) -> Detector:
    """Return a detector whose predictors say something (fresh ones are almost constant)."""
    model = build_model(dataclasses.replace(CONFIG, head=head, **changes), 2, SIZE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.head.named_parameters():
        if "predictor" in name and name.endswith("weight"):
            parameter.data.normal_(0, 0.2 if "class" in name else 0.02, generator=generator)
        if "class_predictor" in name and name.endswith("bias"):
            parameter.data.fill_(-1.0)
    for norm in (layer for layer in model.head.modules() if isinstance(layer, nn.BatchNorm2d)):  # each its own
        for values in (norm.running_var, norm.weight):
            values.data.uniform_(0.5, 2, generator=generator)  # type: ignore[union-attr]
        for values in (norm.running_mean, norm.bias):
            values.data.normal_(0, 0.3, generator=generator)  # type: ignore[union-attr]
    return model


def taps_of(model: Detector, images: Tensor, levels: tuple[int, ...] = (3, 4, 5)) -> Taps:
    features = model.features(images)
    kept = {level: f for level, f in zip(levels_of(model.strides), features, strict=True) if level in levels}
    return Taps(kept, model.head_outputs(features), model)


def frozen(model: Detector) -> Detector:
    return model.requires_grad_(requires_grad=False).eval()


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def run(
    student: Detector, teacher: Detector, scene: Scene = SCENE, levels: tuple[int, ...] = (3, 4, 5), **options: Any
) -> dict[str, Tensor]:
    """Return the losses of one batch; the adapters are drawn anew from a fixed seed."""
    method = CrossKD(**options)
    channels = dict.fromkeys(levels, (student.channels[0], teacher.channels[0]))
    torch.manual_seed(0)
    adapters = method.adapters(channels)
    return method(taps_of(student, images(), levels), taps_of(frozen(teacher), images(), levels), adapters, scene)


def slow_losses(
    student: Detector, teacher: Detector, scene: Scene, depth: int, levels: tuple[int, ...] = (3, 4, 5)
) -> tuple[float, float]:
    """Return both terms from the paper's formulas, level by level through the layers themselves, in float64."""
    student, teacher = copy.deepcopy(student).double(), copy.deepcopy(teacher).double()
    theirs = teacher.features(images().double())
    ours = student.features(images().double())
    class_sum, box_sum, weight_sum = 0.0, 0.0, 0.0
    head: Any = teacher.head
    answer = head(theirs)
    crossed = []
    for level, stride in enumerate(teacher.strides):
        if stride.bit_length() - 1 not in levels:
            crossed.append((answer.logits[level], answer.regression[level]))
            continue
        own = student.strides.index(stride)
        ends = []
        for name in ("class_tower", "box_tower"):
            x, y = ours[own], theirs[level]
            mine: Any = getattr(student.head, name)
            other: Any = getattr(teacher.head, name)
            for index in range(depth):
                x, y = (
                    tower.norms[its][index](tower.convs[index](torch.relu(m) if index else m))
                    for tower, its, m in ((mine, own, x), (other, level, y))
                )
            z = torch.empty_like(y)
            for c in range(y.shape[1]):
                spread = (x[:, c].var(correction=0) + 1e-5).sqrt()
                z[:, c] = (x[:, c] - x[:, c].mean()) / spread * (y[:, c].var(correction=0) + 1e-5).sqrt() + y[
                    :, c
                ].mean()
            z = torch.relu(z) if depth else z
            for index in range(depth, len(other.convs)):
                z = torch.relu(other.norms[level][index](other.convs[index](z)))
            ends.append(z)
        crossed.append(head.predict(*ends, level))
    outputs = type(answer)(tuple(c[0] for c in crossed), tuple(c[1] for c in crossed))
    (boxes, scores), (wanted, target) = head.decode(outputs), head.decode(answer)
    taught = [
        stride.bit_length() - 1 in levels
        for stride, item in zip(teacher.strides, answer.logits, strict=True)
        for _ in range(item[0].numel() // 2)
    ]
    for image in range(2):
        for row in (row for row, counts in enumerate(taught) if counts):
            for p, t in zip(scores[image, row].tolist(), target[image, row].tolist(), strict=True):
                entropy = -t * torch.log(torch.tensor(p)) - (1 - t) * torch.log(torch.tensor(1 - p))
                class_sum += float(entropy) * abs(p - t)
            weight = float(target[image, row].max())
            box_sum += weight * (1 - plain_giou(boxes[image, row].tolist(), wanted[image, row].tolist()))
            weight_sum += weight
    positives = float(student.head.positives(student.head(ours), scene.boxes, scene.labels))  # type: ignore[operator]
    return class_sum / max(positives, 1.0), box_sum / max(weight_sum, 1.0)


def plain_giou(a: list[float], b: list[float]) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return wide * high / union - (hull - union) / hull


@pytest.mark.parametrize(("head", "remaining"), [("dense", 1), ("retina", 1), ("dense", 0), ("dense", 2)])
def test_losses_are_those_of_the_formulas(head: str, remaining: int) -> None:
    student, teacher = detector(1, head).eval(), frozen(detector(2, head))
    found = run(student, teacher, remaining=remaining)
    expected = slow_losses(student, teacher, SCENE, 2 - remaining)
    assert found["class"].item() == pytest.approx(expected[0], rel=2e-3)
    assert found["box"].item() == pytest.approx(expected[1], rel=2e-3)


@pytest.mark.parametrize("levels", [(4, 5), (5,)])
def test_losses_of_unlike_pyramids_are_those_of_the_levels_in_common(levels: tuple[int, ...]) -> None:
    student, teacher = detector(1).eval(), frozen(detector(2, levels=(4, 5, 6)))
    for layer, bias in zip(teacher.head.class_predictors, (-1.0, 0.0, 1.0), strict=True):  # type: ignore[arg-type]
        layer.bias.data.fill_(bias)  # every level its own
    found, expected = run(student, teacher, levels=levels), slow_losses(student, teacher, SCENE, 1, levels)
    assert found["class"].item() == pytest.approx(expected[0], rel=2e-3)
    assert found["box"].item() == pytest.approx(expected[1], rel=2e-3)


@pytest.mark.parametrize("head", HEADS)
def test_losses_of_a_student_that_is_the_teacher_vanish(head: str) -> None:
    teacher = frozen(detector(2, head))
    student = copy.deepcopy(teacher)
    found = run(student, teacher)
    assert found["class"].item() < 1e-3
    assert found["box"].item() < 1e-3
    assert all(value.item() > 0.01 for value in run(detector(1, head).eval(), teacher).values())


@pytest.mark.parametrize("head", HEADS)
def test_gradient_reaches_the_crossed_layers_and_no_other_and_none_of_the_teacher(head: str) -> None:
    student, teacher = detector(1, head), detector(2, head)
    torch.stack(list(run(student, teacher).values())).sum().backward()
    reached = {name for name, parameter in student.named_parameters() if parameter.grad is not None}
    expected = {
        name
        for name, _ in student.named_parameters()
        if not name.startswith("head.") or any(re.match(rf"head\.{t}\.(convs\.0|norms\.\d\.0)\.", name) for t in TOWERS)
    }
    moved = {n for n, p in student.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}
    assert reached == expected
    assert {"head.class_tower.convs.0.weight", "head.box_tower.convs.0.weight", "backbone.stem.conv.weight"} <= moved
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_running_statistics_are_not_counted_twice_and_tracking_goes_on() -> None:
    student, teacher = detector(1), detector(2)
    control = copy.deepcopy(student)
    taps_of(control, images())
    run(student, teacher)
    assert all(torch.equal(a, b) for a, b in zip(student.buffers(), control.buffers(), strict=True))
    assert all(m.track_running_stats for m in student.modules() if isinstance(m, nn.BatchNorm2d))


def test_restyled_map_has_the_teachers_statistics_and_does_not_see_the_students() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(2, 4, 5, 6, generator=generator), torch.randn(2, 4, 5, 6, generator=generator) * 3 + 1
    found = restyled(ours, theirs)
    torch.testing.assert_close(found.mean(dim=(0, 2, 3)), theirs.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(found.std(dim=(0, 2, 3)), theirs.std(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    scale, shift = torch.rand(1, 4, 1, 1) + 0.5, torch.randn(1, 4, 1, 1) * 5
    torch.testing.assert_close(restyled(ours * scale + shift, theirs), found, rtol=1e-3, atol=1e-3)
    assert bool(restyled(ours[:1, :, :1, :1], theirs).isfinite().all())  # one cell has no deviation


@pytest.mark.parametrize("head", HEADS)
def test_normaliser_is_at_least_one_where_nothing_is_found(head: str) -> None:
    student, teacher = detector(1, head), detector(2, head)
    for name, parameter in teacher.head.named_parameters():
        if "class_predictor" in name:
            parameter.data.fill_(-12.0 if name.endswith("bias") else 0.0)
    found = run(student, teacher, EMPTY)
    assert all(bool(value.isfinite()) for value in found.values())
    assert found["box"].item() < 0.1  # weights of 6e-6: without the floor it would be of the order of 1
    assert found["class"].item() < 0.1


def test_normaliser_is_that_of_the_students_own_loss() -> None:
    student, teacher = detector(1, "retina"), detector(2, "retina")
    box, label = torch.tensor([[8.0, 8, 40, 48], [20, 20, 52, 60]]), torch.tensor([1, 0])
    twice = Scene([box, box], [label, label], 64, 64, 0, 1)
    outputs = student.head_outputs(student.features(images()))
    count = float(student.head.positives(outputs, twice.boxes, twice.labels))  # type: ignore[operator]
    assert count > 4
    one, many = (run(copy.deepcopy(student), teacher, scene)["class"].item() for scene in (EMPTY, twice))
    assert many == pytest.approx(one / count, rel=1e-4)


def test_levels_that_are_not_taught_add_nothing() -> None:
    student, teacher = detector(1).eval(), detector(2)
    whole = run(student, teacher, EMPTY)["class"].item()
    parts = [run(student, teacher, EMPTY, levels=(level,))["class"].item() for level in (3, 4, 5)]
    assert whole == pytest.approx(sum(parts), rel=1e-4)  # nothing is divided: there is no positive
    other = copy.deepcopy(student)
    for parameter in other.neck.outputs[0].parameters():  # type: ignore[union-attr, index]
        parameter.data.mul_(-1)
    assert run(other, teacher, levels=(5,))["box"].item() == run(student, teacher, levels=(5,))["box"].item()


def test_unlike_heads_depths_levels_and_channels_cross() -> None:
    student = detector(1, "dense", head_depth=1, channels=8)
    teacher = detector(2, "retina", head_depth=3, levels=(4, 5, 6))
    method = CrossKD()
    adapters = method.adapters({4: (8, 16), 5: (8, 16)})
    assert {name: tuple(p.shape) for name, p in adapters.named_parameters()} == {
        "classes.weight": (16, 8, 1, 1),
        "boxes.weight": (16, 8, 1, 1),
    }
    ours, theirs = (taps_of(model, images(), (4, 5)) for model in (student, frozen(teacher)))
    found = method(ours, theirs, adapters, SCENE)
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in adapters.parameters())


@pytest.mark.parametrize(("head", "amp"), [("dense", False), ("retina", True)])
def test_run_with_weight_zero_is_bit_identical_to_the_baseline_and_else_it_is_not(
    head: str, amp: bool, small: Callable[..., Recipe], tmp_path: Path
) -> None:
    def trained(folder: str, *entries: DistillConfig) -> Trainer:
        recipe = small(steps=3, amp=amp, student=dataclasses.replace(CONFIG, head=head), distill=entries)
        splits = read_splits(recipe)
        teacher = Teacher(detector(2, head, channels=24), recipe.input, {}) if entries else None
        trainer = Trainer(
            recipe, tmp_path / folder, splits["train"], splits["val"], teacher=teacher, device=torch.device("cpu")
        )
        trainer.run()
        return trainer

    def same(a: nn.Module, b: nn.Module) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

    baseline = trained("baseline")
    assert same(baseline.student, trained("zero", DistillConfig(method="crosskd", weight=0.0)).student)
    assert not same(baseline.student, trained("one", DistillConfig(method="crosskd")).student)


def test_observe_shows_maps_of_equal_channels_and_a_mean_attention_of_one() -> None:
    student, teacher = detector(1), frozen(detector(2, "retina"))
    ours, theirs = taps_of(student, images()), taps_of(teacher, images())
    seen = CrossKD().observe(ours, theirs, nn.Identity(), SCENE)
    assert set(seen.aligned) == {3, 4, 5}
    attention = seen.maps["teacher attention"]
    assert {level: tuple(item.shape) for level, item in attention.items()} == {3: (2, 8, 8), 4: (2, 4, 4), 5: (2, 2, 2)}
    torch.testing.assert_close(attention[3].mean(dim=(1, 2)), torch.ones(2))
    narrow = taps_of(detector(1, channels=8), images())
    assert CrossKD().observe(narrow, theirs, nn.Identity(), SCENE).aligned == {}


def test_what_cannot_be_crossed_is_refused_with_what_can() -> None:
    with pytest.raises(RecipeError, match="remaining should be 0 or more, got -1"):
        CrossKD(remaining=-1)
    with pytest.raises(RecipeError, match=r"equal channels.*\(8, 16\), \(16, 32\).*dense, retina"):
        CrossKD().adapters({3: (8, 16), 4: (16, 32)})
    yolo = detector(1, "yolo")
    with pytest.raises(RecipeError, match=r"student's head \(YOLOHead\) has no towers.*dense, retina"):
        run(yolo, detector(2))
    with pytest.raises(RecipeError, match=r"teacher's head \(YOLOHead\) has no towers"):
        run(detector(2), yolo)
    with pytest.raises(RecipeError, match=r"remaining is 3, .* head_depth 2 and 4; it is at most the smaller one"):
        run(detector(1), detector(2, head_depth=4), remaining=3)
