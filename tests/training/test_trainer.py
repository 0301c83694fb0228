"""The loop: reproducible, resumable at any step, and clear about what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import AugmentConfig, Recipe
from edgekd.errors import RecipeError
from edgekd.training import trainer as trainer_module
from edgekd.training.checkpoint import CheckpointFolder
from edgekd.training.interrupt import Interrupted
from edgekd.training.run import read_splits
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

Small = Callable[..., Recipe]
FAST = {"lr": 1e-2, "warmup": 5, "augment": AugmentConfig(flip=0, scale=(1, 1), translate=0, hsv=(0, 0, 0))}


def build(recipe: Recipe, folder: Path, **options: Any) -> Trainer:
    splits = read_splits(recipe)
    return Trainer(recipe, folder, splits["train"], splits["val"], device=torch.device("cpu"), **options)


def trained(recipe: Recipe, folder: Path, **options: Any) -> Trainer:
    run = build(recipe, folder, **options)
    run.run()
    return run


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, mine), theirs in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def differs(a: nn.Module, b: nn.Module) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Do something right after an optimiser step, before the loop looks at signals and checkpoints."""
    advance = Trainer._advance

    def wrapped(self: Trainer, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        result = advance(self, batch)
        if self.step == step:
            act()
        return result

    monkeypatch.setattr(Trainer, "_advance", wrapped)


class KilledError(Exception):
    pass


def kill() -> None:
    raise KilledError


def test_loss_falls_and_the_log_holds_parts_rate_and_times(small: Small, tmp_path: Path) -> None:
    trained(small(steps=32, **FAST), tmp_path)
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == [10, 20, 30, 32]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss_class"] + rows[0]["loss_box"], rel=1e-5)
    assert {"lr", "grad_norm", "step_ms", "data_ms"} <= set(rows[0])
    assert Recipe.from_dict(json.loads((tmp_path / "recipe.json").read_text())).train.steps == 32


def test_two_runs_of_one_seed_are_equal_and_another_seed_is_not(small: Small, tmp_path: Path) -> None:
    first, second, other = (trained(small(seed=s), tmp_path / name) for s, name in ((1, "a"), (1, "b"), (2, "c")))
    assert_same(first.student, second.student)
    assert_same(first.average.model, second.average.model)
    assert differs(first.student, other.student)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_run_killed_after_any_step_ends_with_the_same_bits(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, step: int
) -> None:
    recipe = small(optimizer=optimizer)
    whole = trained(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, step, kill)
        with pytest.raises(KilledError):
            trained(recipe, tmp_path / "cut")
    resumed = build(recipe, tmp_path / "cut")
    assert resumed.step == (step - 1) // 2 * 2  # checkpoints at 2 and 4
    resumed.run()
    assert_same(whole.student, resumed.student)
    assert_same(whole.average.model, resumed.average.model)
    assert _untimed(log(tmp_path / "whole")) == _untimed(log(tmp_path / "cut"))


def _untimed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.endswith("_ms")} for row in rows]


SCRIPT = """
import json, sys, torch
from pathlib import Path
from edgekd._recipe import AugmentConfig, Recipe
from edgekd.training.run import read_splits
from edgekd.training.trainer import Trainer
recipe = Recipe.from_dict(json.loads(Path(sys.argv[1]).read_text()))
splits = read_splits(recipe)
Trainer(recipe, Path(sys.argv[2]), splits["train"], splits["val"], device=torch.device("cpu")).run()
"""


def test_process_killed_by_sigkill_resumes_to_the_same_bits(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(steps=400, checkpoint_every=3, ema=0.9)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "recipe.json"), str(tmp_path / "cut")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    checkpoints = CheckpointFolder(tmp_path / "cut" / "checkpoints")
    until = time.monotonic() + 120
    while len(checkpoints.files()) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    resumed = build(recipe, tmp_path / "cut")
    at = resumed.step
    assert 3 <= at < 390
    stop_after(monkeypatch, at + 8, kill)  # eight steps past the kill decide it; all 400 would only take longer
    whole = build(recipe, tmp_path / "whole")
    for run in (whole, resumed):
        with pytest.raises(KilledError):
            run.run()
    assert whole.step == resumed.step == at + 8
    assert_same(whole.student, resumed.student)
    assert_same(whole.average.model, resumed.average.model)


def test_ctrl_c_finishes_the_step_writes_a_checkpoint_and_resumes(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(checkpoint_every=100)
    whole = trained(recipe, tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match="stopped after step 3 of 6; the checkpoint is written"):
            trained(recipe, tmp_path / "cut")
    assert signal.getsignal(signal.SIGINT) is before
    resumed = build(recipe, tmp_path / "cut")
    assert resumed.step == 3
    resumed.run()
    assert_same(whole.student, resumed.student)


def test_second_ctrl_c_stops_at_once(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    stop_after(monkeypatch, 1, twice)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT off
    try:
        with pytest.raises(KeyboardInterrupt) as stop:
            trained(small(), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not isinstance(stop.value, Interrupted)


def test_finished_run_is_left_as_it_is(small: Small, tmp_path: Path) -> None:
    first = trained(small(), tmp_path)
    again = trained(small(), tmp_path)
    assert again.step == 6
    assert_same(first.average.model, again.average.model)


def test_folder_of_another_run_is_refused_and_no_resume_removes_it(small: Small, tmp_path: Path) -> None:
    trained(small(), tmp_path)
    with pytest.raises(RecipeError, match=r"holds another run \(train.lr: 0.001 there, 0.1 now\); use another --out"):
        build(small(lr=0.1), tmp_path)
    anew = build(small(lr=0.1), tmp_path, resume=False)
    assert anew.step == 0
    assert CheckpointFolder(tmp_path / "checkpoints").files() == []


def test_keys_that_change_nothing_do_not_hinder_a_resume(small: Small, tmp_path: Path) -> None:
    trained(small(), tmp_path)
    assert build(small(checkpoint_every=3, workers=1, eval_every=4).replace(name="other"), tmp_path).step == 6


def test_prefetch_threads_change_nothing(small: Small, tmp_path: Path) -> None:
    assert_same(trained(small(), tmp_path / "a").student, trained(small(workers=3), tmp_path / "b").student)


def test_validation_is_logged_on_its_steps_and_changes_nothing(small: Small, tmp_path: Path) -> None:
    plain = trained(small(), tmp_path / "a")
    watched = trained(small(eval_every=2), tmp_path / "b")
    assert [row["step"] for row in log(tmp_path / "b") if "val.AP" in row] == [2, 4]
    assert_same(plain.student, watched.student)


def test_half_precision_trains_and_keeps_fp32_weights(small: Small, tmp_path: Path) -> None:
    run = trained(small(steps=32, amp=True, **FAST), tmp_path)
    rows = log(tmp_path)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert all(p.dtype == torch.float32 for p in run.student.parameters())
    assert differs(trained(small(amp=True), tmp_path / "half").student, trained(small(), tmp_path / "fp32").student)


def test_loss_that_is_no_number_stops_the_run_and_is_never_saved(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "learning_rate", lambda *_: float("nan"))
    with pytest.raises(RecipeError, match=r"the loss is nan at step 2 of 6; lower train.lr \(0.001\)"):
        trained(small(), tmp_path)
    assert CheckpointFolder(tmp_path / "checkpoints").files() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "train.steps should be at least 1, got 0"),
        ({"checkpoint_every": 0}, "train.checkpoint_every should be at least 1, got 0"),
        ({"ema": 1.0}, "train.ema should be at least 0 and below 1, got 1.0"),
        ({"optimizer": "lion"}, "possible: adamw, sgd"),
    ],
)
def test_impossible_numbers_are_refused(small: Small, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(small(**changes), tmp_path)
