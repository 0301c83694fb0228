"""The ablation receipt: which runs are made, which are not made again, and what the bundle says of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edgekd._bundle import Bundle
from edgekd._comparison import VERDICTS
from edgekd._distill import distill
from edgekd._recipe import Recipe
from edgekd._train import TrainReport, train
from edgekd.cli.main import main
from edgekd.errors import RecipeError, UsageError, WeightsError
from edgekd.training import receipt as receipt_module
from edgekd.training import run as run_module
from edgekd.training.checkpoint import CheckpointFolder
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

Small = Callable[..., Recipe]
BESIDE = ["alone-seed0", "alone-seed1", "distilled-seed1"]


@pytest.fixture(scope="module")
def plan(taught: Recipe) -> Recipe:
    return taught


@pytest.fixture(scope="module")
def done(plan: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    """A finished receipt of two seeds."""
    return distill(plan, tmp_path_factory.mktemp("runs") / "out", receipt=True, seeds=(0, 1))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export takes longer than these runs; only `done`, made before this fixture, has a real bundle."""
    monkeypatch.setattr(run_module, "write_bundle", lambda path, *_: path.write_bytes(b"a bundle"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders in which a step was done, in order."""
    names: list[str] = []
    advance = Trainer._advance

    def noted(self: Trainer, batch: Any) -> Any:
        if self.folder.name not in names:
            names.append(self.folder.name)
        return advance(self, batch)

    monkeypatch.setattr(Trainer, "_advance", noted)
    return names


def results(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("receipt/*/result.json"))}


def test_bundle_compares_every_figure_of_every_split(done: TrainReport) -> None:
    beside = results(done.folder)
    assert sorted(beside) == BESIDE
    with Bundle.read(done.bundle) as bundle:
        rows = [row for row in bundle.manifest.receipts if "comparison" in row]
        plain = {(row["split"], row["what"]) for row in bundle.manifest.receipts if "comparison" not in row}
        assert bundle.manifest.provenance["seed"] == 0
    assert {(row["split"], row["comparison"]["metric"]) for row in rows} == plain
    for row in rows:
        name, split = row["comparison"]["metric"], row["split"]
        alone = [beside[f"alone-seed{seed}"]["metrics"][split][name] for seed in (0, 1)]
        distilled = [done.metrics[split][name], beside["distilled-seed1"]["metrics"][split][name]]
        gains = [ours - theirs for ours, theirs in zip(distilled, alone, strict=True)]
        said = row["comparison"]
        assert (said["seeds"], said["alone"]["values"], said["distilled"]["values"]) == ([0, 1], alone, distilled)
        assert row["value"] == pytest.approx(statistics.fmean(gains), abs=1e-15)
        assert said["gain"]["std"] == pytest.approx(statistics.stdev(gains), abs=1e-15)
        assert said["verdict"] in VERDICTS
        assert row["images"] == {"val": 4, "test": 3}[split]
    assert tuple(each.to_dict()["comparison"] for each in done.comparisons) == tuple(row["comparison"] for row in rows)


def test_runs_differ_in_the_seed_and_the_distillation_alone(done: TrainReport) -> None:
    main_run = json.loads((done.folder / "recipe.json").read_text())
    for name in BESIDE:
        raw = json.loads((done.folder / "receipt" / name / "recipe.json").read_text())
        kind, seed = name.split("-seed")
        expected = {**main_run, "train": {**main_run["train"], "seed": int(seed)}}
        if kind == "alone":
            expected = {**expected, "distill": [], "teacher": None}
        assert raw == expected
        assert not (done.folder / "receipt" / name / "model.bin").exists()
    logged = {
        name: json.loads((done.folder / "receipt" / name / "metrics.jsonl").read_text().splitlines()[-1])
        for name in BESIDE
    }
    assert {name for name, row in logged.items() if "pkd.p3" in row} == {"distilled-seed1"}


def test_alone_is_the_run_that_train_makes(done: TrainReport, plan: Recipe, tmp_path: Path) -> None:
    alone = train(receipt_module.alone(plan), tmp_path)
    assert results(done.folder)["alone-seed0"]["metrics"]["val"]["AP"] == alone.metrics["val"]["AP"]
    mine = CheckpointFolder(tmp_path / "checkpoints").latest()
    theirs = CheckpointFolder(done.folder / "receipt" / "alone-seed0" / "checkpoints").latest()
    assert mine is not None
    assert theirs is not None
    assert mine.tensors.keys() == theirs.tensors.keys()
    assert all(bool((mine.tensors[name] == theirs.tensors[name]).all()) for name in mine.tensors)


def test_same_command_again_trains_and_measures_nothing_beside_the_bundle(
    done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    measured: list[str] = []
    real = run_module.measure
    for module in (run_module, receipt_module):
        monkeypatch.setattr(
            module, "measure", lambda trainer, splits: measured.append(trainer.folder.name) or real(trainer, splits)
        )
    again = distill(plan, tmp_path / "out", receipt=True, seeds=(0, 1))
    assert (trained, measured) == ([], ["out"])
    assert again.comparisons == done.comparisons


def test_results_from_before_orders_were_noted_are_taken(
    done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    for path in (tmp_path / "out" / "receipt").glob("*/result.json"):
        row = json.loads(path.read_text())
        del row["identity"]["training order"]
        path.write_text(json.dumps(row))
    distill(plan, tmp_path / "out", receipt=True, seeds=(0, 1))
    assert trained == []


def test_another_seed_adds_its_two_runs(done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    more = distill(plan, tmp_path / "out", receipt=True, seeds=(2, 1, 0))
    assert trained == ["distilled-seed2", "alone-seed2"]
    first = more.comparisons[0]
    assert first.seeds == (2, 1, 0)
    assert first.alone[:0:-1] == done.comparisons[0].alone
    assert first.distilled[:0:-1] == done.comparisons[0].distilled


def test_interrupted_receipt_goes_on_where_it_stopped(
    done: TrainReport, plan: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, int]] = []
    advance = Trainer._advance

    def stopped(self: Trainer, batch: Any) -> Any:
        if len(steps) == 3 and self.step == 1:  # in the second run, after its first step
            raise KeyboardInterrupt
        steps.append((self.folder.name, self.step))
        return advance(self, batch)

    monkeypatch.setattr(Trainer, "_advance", stopped)
    each_step = plan.replace(train=dataclasses.replace(plan.train, checkpoint_every=1))
    with pytest.raises(KeyboardInterrupt):
        distill(each_step, tmp_path, receipt=True, seeds=(0, 1))
    assert steps == [("alone-seed0", 0), ("alone-seed0", 1), ("distilled-seed1", 0)]
    assert not (tmp_path / "model.bin").exists(), "a bundle without its receipt"
    steps.append(("stopped", 0))
    report = distill(each_step, tmp_path, receipt=True, seeds=(0, 1))
    own = tmp_path.name
    assert steps[4:] == [("distilled-seed1", 1), ("alone-seed1", 0), ("alone-seed1", 1), (own, 0), (own, 1)]
    assert report.comparisons == done.comparisons, "a run that was stopped ends as one that was not"


def test_bundle_is_not_touched_by_a_run_that_fails(
    done: TrainReport, plan: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = done.bundle.read_bytes()

    def failing(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(receipt_module, "compare", failing)
    with pytest.raises(KeyboardInterrupt):
        distill(plan, done.folder, receipt=True, seeds=(0, 1))
    assert done.bundle.read_bytes() == before
    assert not [path for path in done.folder.rglob("*") if path.suffix in (".partial", ".tmp")]


@pytest.mark.parametrize("damage", ["{", "[]", '{"identity": {}, "data": {}, "metrics": {}}'])
def test_result_that_does_not_hold_is_not_taken(
    done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path, damage: str
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    (tmp_path / "out" / "receipt" / "alone-seed1" / "result.json").write_text(damage)
    again = distill(plan, tmp_path / "out", receipt=True, seeds=(0, 1))
    assert again.comparisons == done.comparisons
    assert trained == [], "the run itself was done: it is measured, not trained"
    assert results(tmp_path / "out") == results(done.folder)


def test_another_test_split_is_measured_and_nothing_is_trained(
    done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    other = plan.replace(data=dataclasses.replace(plan.data, test=plan.data.val))
    again = distill(other, tmp_path / "out", receipt=True, seeds=(0, 1))
    by_split = {(each.split, each.metric): each for each in again.comparisons}
    assert by_split["test", "AP50"].alone == by_split["val", "AP50"].alone
    assert trained == []


def test_runs_beside_of_another_recipe_are_refused(done: TrainReport, plan: Recipe, tmp_path: Path) -> None:
    shutil.copytree(done.folder / "receipt", tmp_path / "out" / "receipt")
    longer = plan.replace(train=dataclasses.replace(plan.train, steps=3))
    with pytest.raises(RecipeError, match=r"alone-seed0 holds another run \(train.steps: 2 there, 3 now\)"):
        distill(longer, tmp_path / "out", receipt=True, seeds=(0, 1))


def test_no_resume_starts_every_run_anew(done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    again = distill(plan, tmp_path / "out", receipt=True, seeds=(0, 1), resume=False)
    assert trained == ["alone-seed0", "distilled-seed1", "alone-seed1", "out"]
    assert again.comparisons == done.comparisons


def test_what_is_wrong_is_found_before_the_first_run(
    done: TrainReport, plan: Recipe, trained: list[str], tmp_path: Path
) -> None:
    assert plan.teacher is not None
    missing = plan.replace(teacher=dataclasses.replace(plan.teacher, weights=str(tmp_path / "none.safetensors")))
    with pytest.raises(WeightsError):
        distill(missing, tmp_path / "new", receipt=True)
    longer = plan.replace(train=dataclasses.replace(plan.train, steps=3))
    with pytest.raises(RecipeError, match="out holds another run"):
        distill(longer, done.folder, receipt=True, seeds=(0, 1))
    assert trained == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (0, 1)}, r"seeds are those of an ablation receipt: ask for one \(receipt=True, --receipt\)"),
        ({"receipt": True, "seeds": (1, 2)}, "lack the recipe's own seed 0"),
        ({"receipt": True, "seeds": (0, 0)}, "different numbers"),
    ],
)
def test_impossible_receipts_are_refused(plan: Recipe, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        distill(plan, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_inspect_shows_the_comparison(done: TrainReport, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(done.bundle), "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["manifest"]["receipts"] if "comparison" in row]
    assert len(rows) == len(done.comparisons) > 2
    assert main(["inspect", str(done.bundle)]) == 0
    said = capsys.readouterr().out
    assert "over 2 seeds (0, 1)" in said
    assert "in 30 % of comparisons of 2 seeds" in said
    assert said.count("±") > len(rows)
    assert "gain in AP by distillation" not in said, "a comparison is not listed twice"


def test_run_without_a_receipt_says_nothing_of_one(done: TrainReport) -> None:
    plain = dataclasses.replace(done, comparisons=())
    assert "comparisons" not in plain.to_dict()
    assert done.to_dict()["comparisons"][0]["what"] == "gain in AP by distillation"
