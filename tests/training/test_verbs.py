"""train, distill and evaluate from recipe file to bundle, and what the bundle says."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd._bundle import Bundle
from edgekd._distill import distill
from edgekd._eval import evaluate
from edgekd._golden import golden_outputs, golden_pixels
from edgekd._recipe import DistillConfig, ModelConfig, Recipe
from edgekd._train import TrainReport, adjusted, json_ready, train
from edgekd.errors import DataError, MissingPackageError, RecipeError, UsageError
from edgekd.training import run as run_module
from edgekd.training.models import build_model, load_detector
from edgekd.training.resume import data_fingerprint
from edgekd.training.run import choose_device, read_splits
from edgekd.training.teacher import TappedNetwork, Teacher

Small = Callable[..., Recipe]
PKD = (DistillConfig(method="pkd"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(small: Small, folder: Path) -> TrainReport:
    """One finished run."""
    return train(small(steps=2), folder / "teacher")


@pytest.fixture(scope="module")
def taught(small: Small, done: TrainReport, folder: Path) -> TrainReport:
    recipe = small(steps=2)
    teacher = dataclasses.replace(recipe.student, weights=str(done.weights))
    return distill(recipe.replace(teacher=teacher, distill=PKD), folder / "student")


def test_report_names_existing_files_and_metrics_of_both_splits(done: TrainReport) -> None:
    assert done.bundle.is_file()
    assert done.weights.is_file()
    assert (done.folder / "metrics.jsonl").is_file()
    assert set(done.metrics) == {"val", "test"}
    assert {"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "per_class"} == set(done.metrics["val"])
    assert json.loads(json.dumps(done.to_dict(), allow_nan=False))["steps"] == 2


def test_bundle_says_where_it_comes_from(done: TrainReport, small: Small) -> None:
    manifest = Bundle.read(done.bundle).manifest
    recipe = small(steps=2)
    splits = read_splits(recipe)
    assert manifest.task == "detect"
    assert manifest.classes == ("red", "blue")
    assert (manifest.input.height, manifest.input.width, manifest.input.mean) == (64, 64, recipe.input.mean)
    assert [(spec.kind, spec.shape) for spec in manifest.outputs] == [("boxes", (84, 4)), ("scores", (84, 2))]
    assert manifest.recipe is not None
    assert Recipe.from_dict(manifest.recipe) == recipe
    assert (manifest.predict.conf, manifest.predict.iou) == (recipe.predict.conf, 0.5)
    data = manifest.provenance["data"]
    assert data["train"] == {"images": 12, "sha256": data_fingerprint(splits["train"])}
    assert set(data) == {"train", "val", "test"}
    assert manifest.provenance["teachers"] == {}
    assert (
        manifest.provenance["tools"]["torch"] == torch.__version__.split("+")[0]
        or manifest.provenance["tools"]["torch"]
    )
    receipts = {(row["split"], row["what"]): row["value"] for row in manifest.receipts}
    assert receipts[("test", "AP50")] == done.metrics["test"]["AP50"]
    assert all(math.isfinite(value) for value in receipts.values())


def test_golden_outputs_are_those_of_the_trained_weights(done: TrainReport, small: Small) -> None:
    bundle = Bundle.read(done.bundle)
    recipe = small()
    model = build_model(recipe.student, 2, recipe.input).eval()
    load_detector(model, done.weights)
    assert len(bundle.manifest.golden) == 4
    for golden in bundle.manifest.golden:
        with torch.no_grad():
            expected = model(torch.from_numpy(golden_pixels(bundle, golden)))
        for mine, theirs in zip(expected, golden_outputs(bundle, golden), strict=True):
            np.testing.assert_allclose(mine.numpy(), theirs, atol=2e-4)


def test_student_bundle_has_the_teachers_hash_and_nothing_of_its_adapters(
    done: TrainReport, taught: TrainReport
) -> None:
    plain, bundle = Bundle.read(done.bundle), Bundle.read(taught.bundle)
    source = bundle.manifest.provenance["teachers"]["teacher"]
    assert source["state_sha256"] == plain.manifest.provenance["student"]["state_sha256"]
    assert b"adapters" not in bundle.graph()
    assert bundle.manifest.provenance["student"]["parameters"] == plain.manifest.provenance["student"]["parameters"]


def test_evaluation_of_the_bundle_agrees_with_training(done: TrainReport, small: Small) -> None:
    recipe = small()
    report = evaluate(done.bundle, recipe.data.val)
    assert (report.images, report.session.target) == (4, "reference")
    assert report.objects == sum(len(sample.labels) for sample in read_splits(recipe)["val"].samples)
    for name, value in done.metrics["val"].items():
        if name != "per_class":
            assert report.metrics[name] == pytest.approx(value, abs=1e-4, nan_ok=True)
    json.dumps(report.to_dict(), allow_nan=False)


@pytest.mark.parametrize("form", ["text", "json"])
def test_eval_command_prints_figures_and_what_ran(
    done: TrainReport, small: Small, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    from edgekd.cli.main import main

    arguments = ["eval", str(done.bundle), small().data.val, "--target", "reference"]
    assert main([*arguments, "--json"] if form == "json" else arguments) == 0
    said = capsys.readouterr().out
    if form == "json":
        assert json.loads(said)["session"]["target"] == "reference"
        assert set(json.loads(said)["metrics"]["per_class"]) == {"red", "blue"}
    else:
        assert "reference fp32 (computes in fp32, cpu)" in said
        assert "4 images" in said
        assert all(name in said for name in ("AP50", "AP_small", "red", "blue"))


@pytest.mark.parametrize("verb", ["train", "distill"])
def test_commands_pass_their_options_and_print_the_report(
    done: TrainReport, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgekd
    from edgekd.cli.main import main

    asked: dict[str, Any] = {}

    def verb_called(recipe: str, out: str, **options: Any) -> TrainReport:
        asked.update(recipe=recipe, out=out, **options)
        return done

    monkeypatch.setattr(edgekd, verb, verb_called)
    given = {"distill": ["--cache", "c"], "train": ["--alpha", "0.02", "--teacher-weights", "resnet18=a=b"]}[verb]
    own = {
        "distill": {"cache": "c"},
        "train": {"task": None, "preset": None, "method": None, "alpha": 0.02, "teacher_weights": {"resnet18": "a=b"}},
    }[verb]
    assert (
        main([verb, "r.toml", "--out", "o", "--seed", "3", "--steps", "9", "--no-resume", "--tensorboard", *given]) == 0
    )
    assert asked == {
        **own,
        "recipe": "r.toml", "out": "o", "seed": 3, "steps": 9, "device": "auto", "resume": False, "tensorboard": True,
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "val: AP " in said
    assert str(done.bundle) in said
    assert main([verb, "r.toml", "--out", "o", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(done.bundle)
    monkeypatch.setenv("RANK", "1")
    assert main([verb, "r.toml", "--out", "o"]) == 0
    assert capsys.readouterr().out == ""


def test_finished_run_is_not_trained_again(
    done: TrainReport, small: Small, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.training.trainer import Trainer

    def never(*_: object) -> None:
        raise AssertionError("a step was done again")

    monkeypatch.setattr(Trainer, "_advance", never)
    monkeypatch.setattr(run_module, "write_bundle", lambda *_: None)
    before = done.weights.read_bytes()
    again = train(small(steps=2), folder / "teacher")
    assert again.to_dict()["metrics"] == done.to_dict()["metrics"]
    assert done.weights.read_bytes() == before


def test_network_of_ones_own_teaches(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    monkeypatch.setattr(run_module, "write_bundle", lambda *arguments: written.append(arguments))
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, 8, 1), torch.nn.Conv2d(6, 9, 3, 2, 1))
    teacher = Teacher(TappedNetwork(body, {"0": 8, "1": 16}), small().input, {"name": "own"})
    recipe = small(steps=2, distill=PKD)
    distill(recipe, tmp_path, teacher=teacher)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"pkd.p3", "pkd.p4"} <= set(row)
    assert "pkd.p5" not in row
    assert written[0][-1] == {"teacher": teacher}


@pytest.mark.parametrize(
    ("verb", "sections", "message"),
    [
        (train, {"distill": PKD}, r"has a teacher, \[unlabelled\] or \[\[distill\]\]: type `edgekd distill`"),
        (train, {"teacher": ModelConfig(backbone="resnet18")}, "type `edgekd distill`, or remove them"),
        (distill, {}, r"has no \[\[distill\]\] entry: add one"),
        (distill, {"distill": PKD}, r"\[\[distill\]\] needs a \[teacher\] with weights"),
        (train, {"task": "segment"}, "task = 'segment' cannot be trained; possible: detect"),
    ],
)
def test_recipe_for_another_verb_is_refused(
    small: Small, tmp_path: Path, verb: Callable[..., object], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        verb(small(**sections), tmp_path)


@pytest.mark.parametrize("inside", ["", "run"])
def test_folder_that_is_a_file_is_one_line(small: Small, tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file is a file, and a run needs a folder \(out, --out\): name another one"):
        train(small(), tmp_path / "file" / inside)


def test_folder_that_may_not_be_written_to_is_one_line(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    with pytest.raises(UsageError, match="may not be written to: name another folder for the run"):
        train(small(), tmp_path / "run")


def test_bundle_that_no_run_made_is_never_replaced(small: Small, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"of the customer")
    for resume in (True, False):
        with pytest.raises(
            RecipeError, match=r"holds a model\.bin that no run there has made: use another output folder"
        ):
            train(small(), tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_two_teachers_are_refused(small: Small, tmp_path: Path) -> None:
    recipe = small(distill=PKD, teacher=ModelConfig(backbone="resnet18", weights="x.npz"))
    network = TappedNetwork(torch.nn.Conv2d(3, 4, 3, 8, 1), {"": 8})
    with pytest.raises(RecipeError, match="and another was given: remove one"):
        distill(recipe, tmp_path, teacher=Teacher(network, recipe.input, {}))


@pytest.mark.parametrize("split", ["val", "test"])
def test_split_of_the_very_training_images_is_refused(small: Small, split: str) -> None:
    recipe = small()
    data = dataclasses.replace(recipe.data, **{split: recipe.data.train})
    with pytest.raises(DataError, match=rf"data.{split} .* has the very images of data.train .* name a list file"):
        read_splits(recipe.replace(data=data))


def test_empty_split_is_named(small: Small, tmp_path: Path) -> None:
    recipe = small()
    empty = tmp_path / "empty.json"
    raw = json.loads(Path(recipe.data.val).read_text())
    empty.write_text(json.dumps({**raw, "images": [], "annotations": []}))
    with pytest.raises(DataError, match="empty"):
        read_splits(recipe.replace(data=dataclasses.replace(recipe.data, val=str(empty))))


def test_seed_and_steps_replace_the_recipes(small: Small) -> None:
    assert (adjusted(small(), 9, None).train.seed, adjusted(small(), None, 3).train.steps) == (9, 3)
    assert adjusted(small(), None, None) == small()
    assert adjusted(small(seed=5), 0, None).train.seed == 0


def test_recipe_may_be_a_path(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at"):
        train(tmp_path / "none.toml", tmp_path)


@pytest.mark.parametrize(("name", "message"), [("tpu9", "no device 'tpu9'"), ("meta", "cannot train on 'meta' here")])
def test_impossible_devices_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_device(name)


def test_device_auto_is_cuda_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_missing_training_packages_say_what_to_type(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def without_torch(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:  # noqa: A002
        if level == 1 and name == "training":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(MissingPackageError, match=r"training needs torch: pip install 'edgekd\[train\]'"):
        train(small(), tmp_path)


def test_nan_becomes_none_for_json() -> None:
    assert json_ready({"AP": 0.5, "AP_small": float("nan"), "per_class": {"a": float("nan")}}) == {
        "AP": 0.5, "AP_small": None, "per_class": {"a": None},
    }  # fmt: skip


def test_ctrl_c_on_the_command_line_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgekd
    from edgekd.cli import train as command
    from edgekd.training.interrupt import Interrupted

    def stopped(*_: object, **__: object) -> None:
        raise Interrupted(3, 600)

    monkeypatch.setattr(edgekd, "train", stopped)
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(dest="command"))
    args = parser.parse_args(["train", "r.toml", "--out", "out/x", "--seed", "4"])
    assert args.run(args) == 130
    said = capsys.readouterr().err
    assert "stopped after step 3 of 600; the checkpoint is written" in said
    assert "to go on: edgekd train r.toml --out out/x --seed 4" in said
