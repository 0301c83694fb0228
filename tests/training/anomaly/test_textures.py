"""The lessons of the teacher that edgekd brings along: what their losses are, and that a run resumes to the bit."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgekd._recipe import TrainConfig
from edgekd.training.anomaly.pyramid import Pyramid
from edgekd.training.anomaly.texture_trainer import LessonTrainer, write_teacher
from edgekd.training.anomaly.textures import INPUT, Imitation, MosaicBatches, Naming, TextureRecipe, channels
from edgekd.training.checkpoint import read_meta
from edgekd.training.models import load_weights
from edgekd.training.models.backbones import build_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.training.anomaly.textures import Lesson


def schedule(steps: int, batch: int = 4) -> TrainConfig:
    return TrainConfig(steps=steps, batch=batch, warmup=1, checkpoint_every=2, threads=1, lr=2e-3)


def small(steps: int = 4, batch: int = 4) -> TextureRecipe:
    shared = {"width": 0.25, "materials": 9, "squares": 2, "size": 64, "places": 16}
    return TextureRecipe(**shared, naming=schedule(steps, batch), imitation=schedule(steps, batch))  # type: ignore[arg-type]


def naming(recipe: TextureRecipe) -> Naming:
    torch.manual_seed(0)
    return Naming(recipe)


def imitation(recipe: TextureRecipe) -> Imitation:
    torch.manual_seed(0)
    model = Pyramid("resnet18", build_backbone("resnet18", 0.25), INPUT)
    return Imitation(build_backbone("resnet18", recipe.width), model)


def trainer(lesson: Lesson, recipe: TextureRecipe, folder: Path, first: int = 0) -> LessonTrainer:
    return LessonTrainer(lesson, recipe, recipe.naming, folder, first)


def test_naming_when_nothing_is_known_then_the_loss_is_that_of_a_guess() -> None:
    lesson = naming(small()).eval()
    for layer in (*lesson.names, *lesson.blemish):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    pixels = torch.randn(2, 3, 64, 64)
    names = torch.zeros(2, 64, 64, dtype=torch.int64)
    total, parts = lesson.loss(pixels, names, torch.zeros(2, 1, 64, 64))
    assert total.item() == pytest.approx(3 * (np.log(9) + np.log(2)), rel=1e-5)
    assert all(parts[f"right.p{level}"] == 1 for level in (2, 3, 4)), "ties go to the first, which is right"
    spoilt, _ = lesson.loss(pixels, names, torch.ones(2, 1, 64, 64))
    assert spoilt.item() == pytest.approx(3 * (np.log(9) + 4 * np.log(2)), rel=1e-5)


def test_naming_when_places_are_asked_for_then_each_is_the_pixel_at_its_centre() -> None:
    lesson = naming(small())
    names = torch.arange(64).repeat(64, 1)[None] + 64 * torch.arange(64)[:, None]
    features = torch.zeros(1, lesson.names[1].in_features, 8, 8)
    _, wanted = lesson._asked(1, features, names[:, 4::8, 4::8])
    rows, columns = wanted // 64, wanted % 64
    assert set((rows % 8).tolist()) | set((columns % 8).tolist()) == {4}


def test_imitation_when_only_the_mean_is_known_then_each_stride_costs_one() -> None:
    lesson = imitation(small())
    for layer in lesson.adapters:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    pixels = torch.randn(4, 3, 64, 64)
    _, parts = lesson.train().loss(pixels, torch.empty(0), torch.empty(0))
    assert list(parts) == ["imitation.p2", "imitation.p3", "imitation.p4"]
    for value in parts.values():
        assert value.item() == pytest.approx(1, abs=0.05)


def test_imitation_when_it_is_trained_then_the_model_stays_as_it_is_and_is_not_kept(tmp_path: Path) -> None:
    recipe = small(2)
    lesson = imitation(recipe)
    model = lesson._model[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(lesson, recipe, tmp_path).run()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any("model" in name for name in lesson.state_dict())


def test_channels_when_they_are_counted_then_statistics_and_modes_stay() -> None:
    backbone = build_backbone("resnet18", 0.25).train()
    lesson = Naming(small())
    before = {name: value.clone() for name, value in lesson.backbone.state_dict().items()}
    assert channels(lesson._layers, lesson._taps) == [16, 32, 64]
    assert all(torch.equal(value, before[name]) for name, value in lesson.backbone.state_dict().items())
    assert all(module.training for module in backbone.modules())


@pytest.mark.parametrize("make", [naming, imitation])
def test_lesson_when_it_is_learnt_then_the_backbone_moves_up_to_stride_16(make: object, tmp_path: Path) -> None:
    recipe = small(1)
    lesson = make(recipe)  # type: ignore[operator]
    before = {name: value.clone() for name, value in lesson.backbone.state_dict().items()}
    trainer(lesson, recipe, tmp_path).run()
    moved = {name for name, value in lesson.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert "conv1.weight" in moved
    assert any(name.startswith("layer3.") for name in moved)
    assert not any(name.startswith("layer4.") for name in moved)


@pytest.mark.parametrize("make", [naming, imitation])
def test_trainer_when_it_is_resumed_then_it_ends_with_the_same_bits_and_the_loss_fell(
    make: object, tmp_path: Path
) -> None:
    recipe = small(24, batch=8)
    whole = trainer(make(recipe), recipe, tmp_path / "whole")  # type: ignore[operator]
    whole.run()
    half = trainer(make(recipe), recipe, tmp_path / "half")  # type: ignore[operator]
    batches = MosaicBatches(recipe, recipe.naming.batch)
    for step in range(10):
        half._advance(batches.batch_at(step))
    half._save()
    resumed = trainer(make(recipe), recipe, tmp_path / "half")  # type: ignore[operator]
    assert resumed.step == 10
    resumed.run()
    for name, value in whole.lesson.state_dict().items():
        assert torch.equal(value, resumed.lesson.state_dict()[name]), name
    log = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0]


def test_trainer_when_the_folder_holds_another_run_then_it_begins_anew(tmp_path: Path) -> None:
    recipe = small(2)
    trainer(naming(recipe), recipe, tmp_path).run()
    assert trainer(naming(recipe), recipe, tmp_path).step == 2
    assert trainer(naming(recipe), recipe, tmp_path, first=5).step == 0
    other = dataclasses.replace(recipe, places=8)
    assert trainer(naming(other), other, tmp_path).step == 0


def test_mosaics_when_a_lesson_begins_later_then_it_sees_what_the_first_would_have_seen_next() -> None:
    recipe = small()
    for ours, theirs in zip(
        MosaicBatches(recipe, 2).batch_at(7), MosaicBatches(recipe, 2, first=5).batch_at(2), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_written_teacher_when_loaded_then_it_is_the_backbone_and_tells_its_source(tmp_path: Path) -> None:
    lesson = naming(small())
    path = tmp_path / "teacher.safetensors"
    write_teacher(lesson.backbone, path, {"lessons": 1})
    backbone = build_backbone("resnet18", 0.25)
    load_weights(backbone, path, stages="layer3")
    ours = lesson.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        if not name.startswith(("layer4.", "fc.")) and value.is_floating_point():
            torch.testing.assert_close(value, ours[name].half().float(), rtol=0, atol=0)
    assert read_meta(path) == {"lessons": 1}
