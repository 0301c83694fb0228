"""Two gloo processes compute what one does on the joined batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from edgekd._recipe import DistillConfig, ModelConfig, Recipe
from edgekd.errors import RecipeError
from edgekd.training import trainer as trainer_module
from edgekd.training.checkpoint import CheckpointFolder
from edgekd.training.distributed import JoinedBatchNorm2d, join_batch_norm, process_group
from edgekd.training.run import read_splits
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPU = torch.device("cpu")

SCRIPT = """
import json, sys, torch
from pathlib import Path
from torch import nn
from edgekd._recipe import InputConfig, ModelConfig, Recipe
from edgekd.training import run as whole_run, trainer
from edgekd.training.distributed import join_batch_norm, process_group, rank
from edgekd.training.models import build_model
from edgekd.training.run import read_splits
from edgekd.training.teacher import Teacher

folder = Path(sys.argv[1])
trainer.LOG_EVERY = 1
torch.set_num_threads(1)
with process_group(torch.device("cpu")):
    whole = torch.load(folder / "batch.pt")
    norm = join_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu"))
    images = whole["images"].chunk(2)[rank()].requires_grad_()
    out = norm(images)
    (out * whole["weight"].chunk(2)[rank()]).sum().backward()
    torch.save({"out": out.detach(), "grad": images.grad, "scale": norm[0].weight.grad, "state": norm.state_dict()},
               folder / f"norm{rank()}.pt")
    for name in ("plain", "taught"):
        recipe = Recipe.from_dict(json.loads((folder / f"{name}.json").read_text()))
        splits = read_splits(recipe)
        teacher = None
        if recipe.distill:
            config = ModelConfig(backbone="csp-tiny", width=0.25, channels=24, head_depth=1)
            teacher = Teacher(build_model(config, 2, recipe.input, seed=7), recipe.input, {})
        run = trainer.Trainer(recipe, folder / name, splits["train"], splits["val"], teacher=teacher,
                              device=torch.device("cpu"))
        run.run()
        torch.save(run.student.state_dict(), folder / f"{name}{rank()}.pt")
    whole_run.write_bundle = lambda *_: None  # exporting is another test's
    outcome = whole_run.run(Recipe.from_dict(json.loads((folder / "plain.json").read_text())), folder / "plain")
    torch.save({"AP": outcome.metrics["val"]["AP"]}, folder / f"outcome{rank()}.pt")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture
def small_sgd(small: Callable[..., Recipe]) -> Recipe:
    """A recipe whose gradients hardly jump, so that what rounding moves stays as small as rounding.

    SGD: AdamW's first steps are signs of the gradient. MobileNetV3 has no max pooling: the one of the small CSP meets
    ties in its 2x2 maps, and half an ulp on the weights, in a single process, then moves the gradient behind it by 7 %.
    """
    student = ModelConfig(backbone="mobilenetv3-small", width=0.25, channels=16, head_depth=1)
    return small(optimizer="sgd", lr=1e-3, steps=3, weight_decay=1e-4, student=student)


@pytest.fixture
def two_processes(folder: Path, small_sgd: Recipe) -> Path:
    """Run SCRIPT under torchrun once, and return where its files are."""
    if not (folder / "plain1.pt").exists():
        generator = torch.Generator().manual_seed(0)
        batch = {name: torch.randn(6, 3, 5, 4, generator=generator) * 3 + 1 for name in ("images", "weight")}
        torch.save(batch, folder / "batch.pt")
        for name, recipe in (("plain", small_sgd), ("taught", _taught(small_sgd))):
            (folder / f"{name}.json").write_text(json.dumps(recipe.to_dict()))
        (folder / "script.py").write_text(SCRIPT)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*torchrun, str(folder / "script.py"), str(folder)],
            capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _taught(recipe: Recipe) -> Recipe:
    return recipe.replace(distill=(DistillConfig(method="pkd"),))


def losses(folder: Path, *names: str) -> list[list[float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[row[name] for name in names] for row in rows]


def test_joined_batch_norm_equals_one_process(two_processes: Path) -> None:
    batch = torch.load(two_processes / "batch.pt")
    norm = nn.BatchNorm2d(3)
    images = batch["images"].requires_grad_()
    out = norm(images)
    (out * batch["weight"]).sum().backward()
    parts = [torch.load(two_processes / f"norm{rank}.pt") for rank in range(2)]
    assert torch.allclose(torch.cat([part["out"] for part in parts]), out, atol=1e-5)
    assert torch.allclose(torch.cat([part["grad"] for part in parts]), images.grad, atol=1e-5)
    assert torch.allclose(parts[0]["scale"] + parts[1]["scale"], norm.weight.grad, atol=1e-4)
    for name, value in norm.state_dict().items():
        for part in parts:
            assert torch.allclose(part["state"][f"0.{name}"], value, atol=1e-5), name


def test_two_processes_have_the_loss_and_the_weights_of_one(
    two_processes: Path, small_sgd: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
    splits = read_splits(small_sgd)
    one = Trainer(small_sgd, tmp_path, splits["train"], splits["val"], device=CPU)
    one.run()
    names = ("loss", "loss_class", "loss_box", "grad_norm")
    rows = zip(losses(tmp_path, *names), losses(two_processes / "plain", *names), strict=True)
    for mine, theirs in rows:
        assert mine[:3] == pytest.approx(theirs[:3], rel=1e-5)
        assert mine[3] == pytest.approx(theirs[3], rel=1e-4)
    parameters = dict(one.student.named_parameters())
    for rank in range(2):
        theirs = torch.load(two_processes / f"plain{rank}.pt")
        for name, value in one.student.state_dict().items():
            bound = 2e-6 if name in parameters else 5e-4  # statistics are of features, which are larger than weights
            assert torch.allclose(value.float(), theirs[name].float(), atol=bound, rtol=bound), name


def test_ranks_end_with_equal_weights_and_one_checkpoint_folder_under_distillation(two_processes: Path) -> None:
    first, second = (torch.load(two_processes / f"taught{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    found = CheckpointFolder(two_processes / "taught" / "checkpoints").latest()
    assert found is not None
    assert found.step == 3
    assert all(torch.equal(value, first[name]) for name, value in found.part("student").items())
    rows = [json.loads(line) for line in (two_processes / "taught" / "metrics.jsonl").read_text().splitlines()]
    assert sum("pkd.p3" in row for row in rows) == 3
    assert {"neck.distill.p3", "observed.pkd.r.p3"} <= set(rows[0])


def test_every_rank_learns_the_outcome(two_processes: Path) -> None:
    first, second = (torch.load(two_processes / f"outcome{rank}.pt") for rank in range(2))
    assert first == second
    assert (two_processes / "plain" / "student.safetensors").is_file()


def test_single_process_needs_no_group_and_keeps_its_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(CPU):
        assert not torch.distributed.is_initialized()
    model = nn.Sequential(nn.BatchNorm2d(3))
    assert join_batch_norm(model, CPU) is model
    assert type(model[0]) is nn.BatchNorm2d


def test_joined_batch_norm_is_the_plain_one_in_a_single_process() -> None:
    images = torch.randn(4, 3, 5, 5)
    joined, plain = JoinedBatchNorm2d(3), nn.BatchNorm2d(3)
    assert torch.equal(joined(images), plain(images))
    assert torch.equal(joined.eval()(images), plain.eval()(images))


def test_batch_that_does_not_divide_is_refused(
    small: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "world_size", lambda: 3)
    recipe = small()
    splits = read_splits(recipe)
    with pytest.raises(RecipeError, match=r"train\.batch = 4 does not divide over 3 processes"):
        Trainer(recipe, tmp_path, splits["train"], splits["val"], device=CPU)
