"""Recipes: one TOML file, one frozen dataclass, strict keys."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd import Recipe
from edgekd._anomaly_recipe import AnomalyRecipe
from edgekd._recipe import TrainConfig
from edgekd.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = {"name": "a", "data": {"train": "t", "val": "v"}, "student": {"backbone": "csp-tiny"}}


def test_recipe_when_written_as_json_and_read_again_is_equal() -> None:
    raw = {
        **MINIMAL,
        "teacher": {"backbone": "resnet18", "weights": "w.npz", "levels": [3, 4]},
        "distill": [{"method": "pkd", "weight": 6, "options": {"eps": 1e-6}}],
        "augment": {"scale": [0.5, 2]},
    }
    recipe = Recipe.from_dict(raw)
    assert recipe.teacher is not None
    assert recipe.teacher.levels == (3, 4)
    assert recipe.distill[0].weight == 6.0
    assert isinstance(recipe.distill[0].weight, float)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@given(st.integers(1, 10**6), st.floats(0, 1, allow_nan=False), st.booleans())
def test_recipe_round_trip_keeps_every_value(steps: int, rate: float, amp: bool) -> None:
    recipe = Recipe.from_dict({**MINIMAL, "train": {"steps": steps, "lr": rate, "amp": amp}})
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.train == dataclasses.replace(TrainConfig(), steps=steps, lr=rate, amp=amp)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stduent": {}}, "no key 'stduent'; possible:"),
        ({"student": {"backbone": "x", "widht": 1}}, "no key 'widht'"),
        ({"student": {}}, "lacks the key 'backbone'"),
        ({"train": {"steps": "many"}}, "train.steps should be int, got 'many'"),
        ({"train": {"steps": True}}, "train.steps should be int, got True"),
        ({"train": {"steps": 1.5}}, "train.steps should be int, got 1.5"),
        ({"augment": {"scale": [1]}}, "augment.scale should have 2 items, got 1"),
        ({"student": 3}, "should be a table, got 3"),
        ({"distill": {"method": "pkd"}}, "should be a list"),
    ],
)
def test_recipe_with_a_wrong_key_or_value_names_it(change: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace("[", r"\[")):
        Recipe.from_dict({**MINIMAL, **change})


def test_recipe_read_resolves_paths_against_its_own_folder(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text(
        'name="a"\n[data]\ntrain="x/train.json"\nval="/abs/val.json"\n[student]\nbackbone="csp-tiny"\nweights="w.npz"\n'
    )
    recipe = Recipe.read(file)
    assert recipe.data.train == str(tmp_path / "x/train.json")
    assert recipe.data.val == "/abs/val.json"
    assert recipe.student.weights == str(tmp_path / "w.npz")
    assert recipe.data.test is None


def test_recipe_read_when_missing_or_broken_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at"):
        Recipe.read(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(RecipeError, match="not valid TOML"):
        Recipe.read(broken)


def test_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe.from_dict(MINIMAL).name = "b"  # type: ignore[misc]


INFINITE, NO_NUMBER = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name should be 1 to 256 printable characters without blanks around them, got ''"),
        ({"name": " a"}, "name should be 1 to 256 printable characters"),
        ({"name": "a" * 257}, "name should be 1 to 256 printable characters"),
        ({"name": "a\nb"}, "name should be 1 to 256 printable characters"),
        ({"input": {"color": "RGB"}}, "input.color should be rgb or bgr, got 'RGB'"),
        ({"input": {"std": [1, 0, 1]}}, "input.std[1] should be at least 1e-06 and at most 1000000, got 0.0"),
        ({"input": {"mean": [NO_NUMBER, 0, 0]}}, "input.mean[0] should be .* and finite, got nan"),
        ({"input": {"pad": 300}}, "input.pad should be at least 0 and at most 255, got 300"),
        ({"input": {"height": 0}}, "input.height should be at least 1, got 0"),
        ({"teacher": {"backbone": "x", "input": {"color": "BGR"}}}, "teacher.input.color should be rgb or bgr"),
        ({"teachers": {"big": {"backbone": "x", "input": {"pad": -1}}}}, "teachers.big.input.pad should be"),
        ({"predict": {"conf": 7}}, "predict.conf should be at least 0 and at most 1, got 7.0"),
        ({"predict": {"iou": -1}}, "predict.iou should be at least 0"),
        ({"predict": {"max_det": -1}}, "predict.max_det should be at least 1 and at most 10000000, got -1"),
        ({"train": {"lr": -1}}, "train.lr should be at least 0, got -1.0"),
        ({"train": {"lr": INFINITE}}, "train.lr should be at least 0 and finite, got inf"),
        ({"train": {"lr": 10**400}}, "train.lr should be at most 1.79769e+308, got an integer of 1329 bits"),
        ({"train": {"final_lr": -1}}, "train.final_lr should be at least 0"),
        ({"train": {"momentum": -1}}, "train.momentum should be at least 0 and below 1, got -1.0"),
        ({"train": {"weight_decay": -1}}, "train.weight_decay should be at least 0"),
        ({"train": {"workers": -1}}, "train.workers should be at least 0"),
        ({"train": {"threads": -1}}, "train.threads should be at least 0"),
        ({"train": {"eval_every": -1}}, "train.eval_every should be at least 0"),
        ({"train": {"warmup": -1}}, "train.warmup should be at least 0"),
        ({"train": {"clip_norm": NO_NUMBER}}, "train.clip_norm should be at least 0 and finite, got nan"),
        ({"train": {"seed": -1}}, "train.seed should be at least 0 and at most 9223372036854775807, got -1"),
        ({"train": {"seed": 2**70}}, "train.seed should be at least 0"),
        ({"train": {"batch": 0}}, "train.batch should be at least 1"),
        ({"augment": {"scale": [1, INFINITE]}}, "augment.scale[1] should be above 0 and finite, got inf"),
        ({"augment": {"translate": NO_NUMBER}}, "augment.translate should be"),
        ({"augment": {"hsv": [-1, 0, 0]}}, "augment.hsv[0] should be at least 0"),
        ({"augment": {"rotate_deg": INFINITE}}, "augment.rotate_deg should be at least 0"),
        ({"augment": {"flip": 1.5}}, "augment.flip should be at least 0 and at most 1, got 1.5"),
        ({"augment": {"mosaic": -0.5}}, "augment.mosaic should be"),
        ({"distill": [{"method": "pkd"}, {"method": "pkd", "warmup": -10}]}, "distill[1].warmup should be at least 0"),
        ({"distill": [{"method": "pkd", "weight": -1}]}, "distill[0].weight should be at least 0, got -1.0"),
        ({"distill": [{"method": "pkd", "until": 0}]}, "distill[0].until should be above 0 and at most 1, got 0.0"),
        ({"distill": [{"method": "pkd", "until": 1.5}]}, "distill[0].until should be above 0"),
        ({"unlabelled": {"images": "x", "batch": 0}}, "unlabelled.batch should be at least 1"),
        ({"unlabelled": {"images": "x", "conf": 2}}, "unlabelled.conf should be at least 0"),
        ({"qat": {"steps": 0}}, "qat.steps should be above 0 and at most 1, got 0.0"),
    ],
)
def test_recipe_with_a_value_out_of_range_is_refused_when_it_is_made(change: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace("[", r"\[").replace("+", r"\+")):
        Recipe.from_dict({**MINIMAL, **change})


def test_recipe_is_looked_at_again_when_a_value_is_replaced() -> None:
    recipe = Recipe.from_dict(MINIMAL)
    with pytest.raises(RecipeError, match=r"train\.steps should be at least 1, got 0"):
        recipe.replace(train=dataclasses.replace(recipe.train, steps=0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name should be 1 to 256 printable characters"),
        ({"input": {"color": "RGB"}}, "input.color should be rgb or bgr, got 'RGB'"),
        ({"data": {"path": "p", "calibration": -0.5}}, "data.calibration should be at least 0 and at most 1"),
        ({"teachers": [{"backbone": "x", "input": {"std": [0, 1, 1]}}]}, r"teachers\[0\].input.std\[0\] should be"),
        ({"model": {"embedding": -4}}, "model.embedding should be at least 0, got -4"),
        ({"train": {"seed": -1}}, "train.seed should be at least 0"),
        ({"train": {"workers": -1}}, "train.workers should be at least 0"),
        ({"train": {"threads": -1}}, "train.threads should be at least 0"),
        ({"train": {"clip_norm": NO_NUMBER}}, "train.clip_norm should be at least 0"),
        ({"predict": {"alpha": 1}}, "predict.alpha should be above 0 and below 1, got 1.0"),
        ({"predict": {"pixel_alpha": 1}}, "predict.pixel_alpha should be at least 0 and below 1, got 1.0"),
    ],
)
def test_anomaly_recipe_with_a_value_out_of_range_is_refused(change: dict[str, object], words: str) -> None:
    raw = {"name": "a", "task": "anomaly", "data": {"path": "p"}, "teachers": [{"backbone": "resnet18"}]}
    with pytest.raises(RecipeError, match=words):
        AnomalyRecipe.from_dict({**raw, **change})
