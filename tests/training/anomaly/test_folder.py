"""`edgekd train --task anomaly DIR`: a folder of images and no recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import edgekd
from edgekd import AnomalyRecipe
from edgekd.cli.main import main
from edgekd.errors import UsageError
from edgekd.training.anomaly import run as run_module
from edgekd.training.interrupt import Interrupted
from edgekd.training.outcome import Outcome


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[AnomalyRecipe]:
    """Return the recipes that were to be run; nothing is."""
    recipes: list[AnomalyRecipe] = []

    def run(recipe: AnomalyRecipe, folder: Path, **_: Any) -> Outcome:
        recipes.append(recipe)
        metrics = {"test": {"image_AUROC": 0.5}}
        return Outcome(folder / "model.bin", folder / "network.safetensors", metrics, notes=("untrained teacher",))

    monkeypatch.setattr(run_module, "run", run)
    return recipes


def test_command_trains_the_preset_and_says_what_to_know(
    asked: list[AnomalyRecipe], category: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--task", "anomaly", str(category), "--out", str(tmp_path), "--alpha", "0.1"]
    assert main([*command, "--steps", "7", "--seed", "3", "--preset", "quality"]) == 0
    assert capsys.readouterr().out.startswith("note: untrained teacher\n7 steps in")
    (plan,) = asked
    assert (plan.train.steps, plan.train.seed, plan.predict.alpha) == (7, 3, 0.1)
    assert plan.model.embedding == 0
    assert main([*command, "--json", "--teacher-weights", "resnet18=a=b.npz"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == ["untrained teacher"]
    assert [(each.backbone, Path(each.weights).name) for each in asked[1].teachers] == [("resnet18", "a=b.npz")]
    assert asked[1].model.storage == "fp16"  # edge, the default


def test_recipe_that_a_run_has_kept_can_be_trained_again(
    asked: list[AnomalyRecipe], category: Path, tmp_path: Path
) -> None:
    edgekd.train(category, tmp_path, task="anomaly", alpha=0.1)
    kept = tmp_path / "recipe.json"
    kept.write_text(json.dumps(asked[0].to_dict()))
    edgekd.train(kept, tmp_path)
    assert asked[1] == asked[0]


def test_interrupted_command_says_all_of_itself(
    category: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Interrupted(3, 9)

    monkeypatch.setattr(run_module, "run", stop)
    options = ["--task", "anomaly", "--preset", "edge", "--method", "rd++", "--alpha", "0.1"]
    options += ["--teacher-weights", "resnet18=x.npz"]
    assert main(["train", str(category), "--out", "o", *options]) == 130
    assert f"edgekd train {category} --out o {' '.join(options)}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"task": "segment"}, "no task 'segment' without a recipe; possible: anomaly"),
        ({"task": "anomaly", "preset": "huge"}, "no preset 'huge'; possible: edge, quality"),
        ({"task": "anomaly", "method": "rdpp"}, r"no method 'rdpp'; possible: rd, rd\+\+, stfpm"),
        ({"method": "stfpm"}, "method: only with task 'anomaly'"),
        ({"preset": "edge", "alpha": 0.1}, "preset, alpha: only with task 'anomaly'"),
        ({}, "is a folder, a recipe is a .toml file; .* edgekd train --task anomaly"),
    ],
)
def test_what_does_not_go_together_is_refused(
    options: dict[str, Any], why: str, category: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        edgekd.train(category, tmp_path, **options)


def test_task_with_a_recipe_or_without_a_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("")
    with pytest.raises(UsageError, match="expected a folder of images, got a recipe"):
        edgekd.train(file, tmp_path, task="anomaly")
    with pytest.raises(UsageError, match=r"no folder at .*/none; a category holds train/good"):
        edgekd.train(tmp_path / "none", tmp_path, task="anomaly")


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (["resnet18"], "takes BACKBONE=FILE, for example resnet18=resnet18.pth; got 'resnet18'"),
        (["=a.npz"], "got '=a.npz'"),
        (["resnet18=a", "resnet18=b"], "two teachers should differ, got resnet18, resnet18"),
    ],
)
def test_weights_that_name_no_teacher_are_refused(
    weights: list[str], why: str, category: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for each in weights for word in ("--teacher-weights", each)]
    assert main(["train", "--task", "anomaly", str(category), "--out", "o", *given]) == 2
    assert why in capsys.readouterr().err
