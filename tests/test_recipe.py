"""Recipes: one TOML file, one frozen dataclass, strict keys."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd import Recipe
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
