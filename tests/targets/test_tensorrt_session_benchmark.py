"""benchmarks/cuda_session.py on the host device: what it measures on a GPU runs here, a few frames of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edgekd.targets.tensorrt._results import Results

from edgekd._session import Found

from .tensorrt_host import STREAMS, view

if TYPE_CHECKING:
    from .conftest import Board

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with copies of the host's memory in the place of the driver's, and little to warm up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("cuda_session", BENCHMARKS / "cuda_session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def copy(target: int, source: int, size: int, handle: int) -> None:
        STREAMS[handle].add(lambda: np.copyto(view(target, (size,), np.uint8), view(source, (size,), np.uint8)))

    monkeypatch.setattr(module.CopyContext, "copy", staticmethod(copy), raising=False)
    monkeypatch.setattr(module, "WARMUP", 1)
    return module


@pytest.mark.parametrize("integrated", [True, False])
def test_a_session_whose_network_is_a_copy_finds_what_the_host_does(
    board: Board, benchmark: Any, integrated: bool
) -> None:
    board.integrated = integrated
    frame = np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)
    found = benchmark.measure(benchmark.bundle_of(64, 7), frame, 2)
    assert found["wrong"] == []
    assert found["objects"] > 3
    assert found["kernels_a_frame"] == 7
    assert set(found["median_ms"]) == {"frame, replayed", "frame, queued", "bare copy"}
    assert not board.devices[-1].live
    assert board.devices[-1].graphs == board.devices[-1].streams == 0


def test_another_result_is_noticed(board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a replayed graph finds nothing any more."""
    read, calls = Results.read, []

    def forgetful(self: Results, request: Any, places: Any) -> Any:
        calls.append(request)
        found = read(self, request, places)
        return found if len(calls) < 3 else [Found(*(part[:0] for part in item[:3]), item.placement) for item in found]

    monkeypatch.setattr(Results, "read", forgetful)
    frame = np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)
    wrong = benchmark.measure(benchmark.bundle_of(64, 7), frame, 2)["wrong"]
    assert wrong[0] == "replayed: not the host's result"
    assert any(line.startswith("thread") for line in wrong)
