"""One board that serves a small bundle, and another bundle to flash; copied for each test."""

from __future__ import annotations

import importlib
import shutil
import site
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edgekd

from .wheel import write_wheel

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


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A wheel that lends this test's own edgekd to the environment that it is installed in."""
    root = Path(edgekd.__file__).resolve().parents[1]
    added = "".join(f"; site.addsitedir({str(path)!r})" for path in site.getsitepackages())
    lent = f"import site, sys{added}; sys.path.insert(0, {str(root)!r})\n"
    write_wheel(tmp_path / "wheels", "edgekd", "0.1.0", {"lent_edgekd.pth": lent})
    return tmp_path / "wheels"
