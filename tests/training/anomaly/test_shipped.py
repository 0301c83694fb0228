"""The weights that edgekd brings along are what the source says, and what a preset without weights takes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
import torch

from edgekd import AnomalyRecipe
from edgekd._anomaly_presets import TEXTURE_TEACHER, preset
from edgekd._anomaly_recipe import AnomalyTeacherConfig
from edgekd._recipe import InputConfig
from edgekd.errors import RecipeError, WeightsError
from edgekd.training.anomaly import shipped
from edgekd.training.anomaly.build import build_network
from edgekd.training.anomaly.run import notes_on
from edgekd.training.anomaly.textures import TextureRecipe
from edgekd.training.checkpoint import read_meta
from edgekd.training.models.backbones import build_backbone

if TYPE_CHECKING:
    from pathlib import Path


def test_shipped_weights_when_read_then_they_are_of_the_recipe_in_the_source() -> None:
    meta = read_meta(shipped.FILE)
    assert meta["recipe"] == json.loads(json.dumps(dataclasses.asdict(TextureRecipe())))
    assert meta["lessons"] == 2
    assert "BSD-3-Clause" in meta["imitated"]["what"]
    assert TEXTURE_TEACHER.width == TextureRecipe().width
    assert shipped.FILE.stat().st_size < 2_000_000


def test_shipped_weights_when_loaded_then_they_are_no_random_ones_and_their_origin_is_told() -> None:
    backbone = build_backbone("resnet18", 0.5)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    told = shipped.load_textures(backbone, TEXTURE_TEACHER)
    moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert {"conv1.weight", "layer3.1.conv2.weight", "layer1.0.bn1.running_mean"} <= moved
    assert told["sha256"] == shipped.SHA256
    assert told["trained"]["recipe"]["naming"]["seed"] == 0


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
    teacher = dataclasses.replace(TEXTURE_TEACHER, **wrong)  # type: ignore[arg-type]
    recipe = dataclasses.replace(preset("edge", "data"), teachers=(teacher,))
    with pytest.raises(RecipeError, match=r"'textures' are for backbone = 'resnet18', width = 0\.5"):
        build_network(recipe)


@pytest.mark.parametrize("method", ["rd", "rd++", "stfpm"])
def test_preset_when_no_weights_are_named_then_the_teacher_is_the_shipped_one(method: str, tmp_path: Path) -> None:
    recipe = preset("edge", tmp_path, method=method)
    assert recipe.teachers == (AnomalyTeacherConfig(backbone="resnet18", width=0.5, weights="textures"),)
    assert AnomalyRecipe.from_dict(recipe.to_dict()).resolved(tmp_path).teachers == recipe.teachers
    (teacher,) = build_network(recipe).pyramids
    assert teacher.channels == (32, 64, 128)
    assert teacher.source["pretrained"]["sha256"] == shipped.SHA256


def test_notes_when_the_teacher_is_the_shipped_one_then_they_say_so_and_advise_no_fitting(tmp_path: Path) -> None:
    (teacher,) = build_network(preset("edge", tmp_path)).pyramids
    teacher.mean_shares = (0.5, 0.7, 0.9)
    where, constant = notes_on([teacher])
    assert "type --teacher-weights resnet18=FILE" in where
    assert "0.90 at stride 16" in constant
    assert "calibrate" not in constant
