"""The teacher trained on drawn textures: it learns, resumes to the bit, and what is shipped is what its recipe says."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from edgekd import AnomalyRecipe
from edgekd._anomaly_presets import TEXTURE_TEACHER, preset
from edgekd._anomaly_recipe import AnomalyTeacherConfig
from edgekd._recipe import InputConfig
from edgekd.errors import RecipeError, WeightsError
from edgekd.training.anomaly import shipped
from edgekd.training.anomaly.build import build_network
from edgekd.training.anomaly.textures import (
    MosaicBatches,
    TextureNetwork,
    TextureRecipe,
    TextureTrainer,
    write_teacher,
)
from edgekd.training.checkpoint import read_meta
from edgekd.training.models import load_weights
from edgekd.training.models.backbones import build_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.training.anomaly.textures import TextureRecipe as Recipe


def small(steps: int = 4, **train: object) -> Recipe:
    whole = TextureRecipe(width=0.25, materials=9, squares=2, size=64, places=16)
    fields = {"steps": steps, "batch": 4, "warmup": 1, "checkpoint_every": 2, **train}
    return dataclasses.replace(whole, train=dataclasses.replace(whole.train, **fields))


def test_loss_when_every_place_is_named_and_clean_then_it_is_that_of_the_logits() -> None:
    recipe = small()
    torch.manual_seed(0)
    network = TextureNetwork(recipe).eval()
    for layer in (*network.names, *network.blemish):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    pixels = torch.randn(2, 3, 64, 64)
    names = torch.zeros(2, 64, 64, dtype=torch.int64)
    total, parts = network.loss(pixels, names, torch.zeros(2, 1, 64, 64))
    assert total.item() == pytest.approx(3 * (np.log(9) + np.log(2)), rel=1e-5)
    assert all(parts[f"right.p{level}"] == 1 for level in (2, 3, 4))
    spoilt, _ = network.loss(pixels, names, torch.ones(2, 1, 64, 64))
    assert spoilt.item() == pytest.approx(3 * (np.log(9) + 4 * np.log(2)), rel=1e-5)


def test_asked_places_when_named_by_their_stride_then_each_is_the_pixel_at_its_centre() -> None:
    network = TextureNetwork(small())
    names = torch.arange(64).repeat(64, 1)[None] + 64 * torch.arange(64)[:, None]
    features = torch.zeros(1, network.names[1].in_features, 8, 8)
    _, wanted = network._asked(1, features, names[:, 4::8, 4::8])
    rows, columns = wanted // 64, wanted % 64
    assert set((rows % 8).tolist()) | set((columns % 8).tolist()) == {4}


def test_network_when_trained_then_its_backbone_learns_up_to_stride_16(tmp_path: Path) -> None:
    trainer = TextureTrainer(small(1), tmp_path)
    before = {name: value.clone() for name, value in trainer.network.backbone.state_dict().items()}
    trainer.run()
    after = trainer.network.backbone.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert "conv1.weight" in moved
    assert any(name.startswith("layer3.") for name in moved)
    assert not any(name.startswith("layer4.") for name in moved)


@pytest.mark.slow
def test_trainer_when_it_runs_then_the_loss_falls_and_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe = small(24, batch=8)
    whole = TextureTrainer(recipe, tmp_path / "whole")
    batches = MosaicBatches(recipe)
    whole.run()
    half = TextureTrainer(recipe, tmp_path / "half")
    for step in range(10):
        half._advance(batches.batch_at(step))
    half._save()
    resumed = TextureTrainer(recipe, tmp_path / "half")
    assert resumed.step == 10
    resumed.run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_trainer_when_the_folder_holds_another_recipes_run_then_it_begins_anew(tmp_path: Path) -> None:
    first = TextureTrainer(small(2), tmp_path)
    first.run()
    assert TextureTrainer(small(2), tmp_path).step == 2
    assert TextureTrainer(small(3), tmp_path).step == 0


def test_written_teacher_when_loaded_then_it_is_the_backbone_and_tells_its_recipe(tmp_path: Path) -> None:
    trainer = TextureTrainer(small(2), tmp_path / "run")
    trainer.run()
    path = tmp_path / "teacher.safetensors"
    write_teacher(trainer, path)
    backbone = build_backbone("resnet18", 0.25)
    load_weights(backbone, path, stages="layer3")
    ours = trainer.network.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        if not name.startswith(("layer4.", "fc.")) and value.is_floating_point():
            torch.testing.assert_close(value, ours[name].half().float(), rtol=0, atol=0)
    assert read_meta(path)["textures"]["materials"] == 9


def test_shipped_weights_when_read_then_they_are_of_the_recipe_in_the_source() -> None:
    meta = read_meta(shipped.FILE)
    assert meta["textures"] == dataclasses.asdict(TextureRecipe())
    assert meta["steps"] == TextureRecipe().train.steps
    assert TEXTURE_TEACHER.width == TextureRecipe().width
    assert shipped.FILE.stat().st_size < 2_000_000


def test_shipped_weights_when_loaded_then_they_are_no_random_ones_and_their_origin_is_told() -> None:
    backbone = build_backbone("resnet18", 0.5)
    before = backbone.conv1.weight.detach().clone()  # type: ignore[union-attr]
    told = shipped.load_textures(backbone, TEXTURE_TEACHER)
    assert not torch.equal(before, backbone.conv1.weight)  # type: ignore[union-attr]
    assert told["sha256"] == shipped.SHA256
    assert told["trained"]["train"]["seed"] == 0


def test_shipped_weights_when_damaged_then_the_digest_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = tmp_path / "textures.safetensors"
    data = bytearray(shipped.FILE.read_bytes())
    data[-1] ^= 1
    spoilt.write_bytes(data)
    monkeypatch.setattr(shipped, "FILE", spoilt)
    with pytest.raises(WeightsError, match="SHA-256"):
        shipped.load_textures(build_backbone("resnet18", 0.5), TEXTURE_TEACHER)


@pytest.mark.parametrize(
    "wrong",
    [{"width": 1.0}, {"backbone": "resnet34"}, {"input": InputConfig(color="bgr")}],
    ids=["width", "backbone", "input"],
)
def test_recipe_when_textures_are_for_another_network_then_one_error_says_for_which(wrong: dict[str, object]) -> None:
    teacher = dataclasses.replace(TEXTURE_TEACHER, **wrong)
    recipe = dataclasses.replace(preset("edge", "data"), teachers=(teacher,))
    with pytest.raises(RecipeError, match=r"'textures' are for backbone = 'resnet18', width = 0\.5"):
        build_network(recipe)


def test_preset_when_no_weights_are_named_then_the_teacher_is_the_shipped_one(tmp_path: Path) -> None:
    recipe = preset("edge", tmp_path)
    assert recipe.teachers == (AnomalyTeacherConfig(backbone="resnet18", width=0.5, weights="textures"),)
    assert AnomalyRecipe.from_dict(recipe.to_dict()).resolved(tmp_path).teachers == recipe.teachers
    (teacher,) = build_network(recipe).pyramids
    assert teacher.channels == (32, 64, 128)
    assert teacher.source["pretrained"]["sha256"] == shipped.SHA256
