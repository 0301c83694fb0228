"""What a run left stays: doing it again writes nothing anew, and a receipt is added to what is there."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgekd._bundle import Bundle
from edgekd._distill import distill
from edgekd._recipe import Recipe
from edgekd.training import run as run_module

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._train import TrainReport

Small = Callable[..., Recipe]
BUILT = {"what": "p50", "value": 3.5, "unit": "ms", "precision": "int8"}  # stands for what `edgekd build` adds


@pytest.fixture(scope="module")
def plan(taught: Recipe) -> Recipe:
    return taught


@pytest.fixture(scope="module")
def finished(plan: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    """A finished run, and something built into its bundle."""
    done = distill(plan, tmp_path_factory.mktemp("runs") / "out")
    with Bundle.read(done.bundle) as bundle:
        rows = (*bundle.manifest.receipts, BUILT)
        changed = bundle.replace(dataclasses.replace(bundle.manifest, receipts=rows))
        changed.write(done.bundle)
    return done


@pytest.fixture
def folder(finished: TrainReport, tmp_path: Path) -> Path:
    shutil.copytree(finished.folder, tmp_path / "out")
    return tmp_path / "out"


def test_finished_run_keeps_its_bundle_with_what_was_built_into_it(
    plan: Recipe, finished: TrainReport, folder: Path
) -> None:
    before = (folder / "model.bin").read_bytes()
    again = distill(plan, folder)
    assert (folder / "model.bin").read_bytes() == before
    assert again.metrics["val"]["AP"] == finished.metrics["val"]["AP"]


def test_another_student_has_a_bundle_of_its_own(plan: Recipe, folder: Path) -> None:
    distill(plan, folder, seed=1, resume=False)
    with Bundle.read(folder / "model.bin") as bundle:
        assert bundle.manifest.provenance["seed"] == 1
        assert BUILT not in bundle.manifest.receipts


def test_receipt_is_added_to_what_was_built(plan: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bundle.read(folder / "model.bin") as bundle:
        plain = bundle.manifest.receipts
    monkeypatch.setattr(run_module, "write_bundle", lambda *_: pytest.fail("written anew"))
    for _ in range(2):  # the second time it takes the place of the first
        report = distill(plan, folder, receipt=True, seeds=(0, 1))
        with Bundle.read(folder / "model.bin") as bundle:
            rows = bundle.manifest.receipts
        assert rows[: len(plain)] == plain
        assert len(rows) == len(plain) + len(report.comparisons)
        assert all("comparison" in row and row["images"] for row in rows[len(plain) :])
