"""One board that serves a small bundle, and another bundle to flash; copied for each test."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd.device import FakeDevice

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of benchmarks/ that runs trials."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("flash_faults")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="session")
def bench(faults: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Old and new bundle, a board that serves the old one, and what each predicts."""
    folder = tmp_path_factory.mktemp("flash")
    return faults.Bench(*faults.bundles(folder), folder / "board")


@pytest.fixture
def board(bench: Any, tmp_path: Path) -> FakeDevice:
    """A board that serves the old bundle."""
    shutil.copytree(bench.board, tmp_path / "board", symlinks=True)
    device: FakeDevice = bench.device(tmp_path / "board")
    return device
