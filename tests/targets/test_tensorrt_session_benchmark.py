"""benchmarks/cuda_session.py on the host device: what it measures on a GPU runs here, a few frames of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edgekd.targets.tensorrt import _runtime
from edgekd.targets.tensorrt._results import Results

from edgekd._session import Found
from edgekd.errors import TargetUnavailableError

from .tensorrt_fake import NO_START, FakeTensorRT
from .tensorrt_host import STREAMS, view

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Board

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FRAME = np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)
NAMES = ("TensorRT", "TensorRT-RTX", "ONNX Runtime on CUDA", "copy")


class HostGpu:
    """What the driver does, on the host's memory; `left` is told one after another, then its last for good."""

    def __init__(self) -> None:
        self.left = [1 << 30]

    def start(self) -> None:
        """Nothing to find."""

    def copy(self, target: int, source: int, size: int, handle: int) -> None:
        STREAMS[handle].add(lambda: np.copyto(view(target, (size,), np.uint8), view(source, (size,), np.uint8)))

    def queue(self, handle: int, work: Callable[[], None]) -> None:
        STREAMS[handle].add(work)

    def free_bytes(self) -> int:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with the host in the place of the driver, and little to warm up."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("cuda_session", BENCHMARKS / "cuda_session.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.session_engines, "GPU", HostGpu())
    monkeypatch.setattr(module, "WARMUP", 1)
    monkeypatch.setattr(module, "GROWTH_FRAMES", 3)
    return module


def install(monkeypatch: pytest.MonkeyPatch, *versions: FakeTensorRT) -> None:
    """Let the alias find these, and nothing else."""
    packages = {"tensorrt_rtx_bindings" if item.rtx else "tensorrt": item for item in versions}

    def find(modules: Any = _runtime.MODULES) -> _runtime.TensorRT:
        for package, _ in modules:
            if package in packages:
                return packages[package].found()
        raise TargetUnavailableError(f"no TensorRT can be imported: {modules[0][0]}")

    monkeypatch.setattr(_runtime, "find", find)


@pytest.mark.parametrize("integrated", [True, False])
def test_a_session_whose_network_is_a_copy_finds_what_the_host_does(
    board: Board, benchmark: Any, integrated: bool
) -> None:
    board.integrated = integrated
    found = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2, "copy")
    assert found["wrong"] == []
    assert found["objects"] > 3
    assert found["kernels_a_frame"] == 7
    assert set(found["median_ms"]) == {"frame, replayed", "frame, queued", "bare engine", "bare engine, replayed"}
    assert found["small_frame"]["frame"] == (64, 64, 3)
    assert (found["small_frame"]["graphs"], found["graphs"]) == (2, 1), "one a size; then forgotten, and captured again"
    assert not board.devices[-1].live
    assert board.devices[-1].graphs == board.devices[-1].streams == 0


def test_engine_when_tensorrt_is_there_then_it_runs_through_the_targets_own_code(
    board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, board.tensorrt, FakeTensorRT("1.2.0", rtx=True))
    found = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2)
    assert (found["engine"], found["not_run"], found["wrong"]) == ("TensorRT", {}, [])
    assert found["runtime"] == "TensorRT 10.3.0"
    assert (board.tensorrt.builds, found["graphs"]) == (1, 1)
    assert found["objects"] > 3
    assert not board.devices[-1].live


@pytest.mark.parametrize(("accepts", "engine"), [(True, "TensorRT-RTX"), (False, "copy")])
def test_engine_when_tensorrt_is_missing_then_rtx_runs_if_it_takes_the_chip_else_the_copy(
    board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch, accepts: bool, engine: str
) -> None:
    rtx = FakeTensorRT("1.2.0", rtx=True)
    if not accepts:
        rtx.start_errors = [NO_START]
    install(monkeypatch, rtx)
    found = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2)
    assert (found["engine"], found["wrong"]) == (engine, [])
    assert tuple(found["not_run"]) == NAMES[: NAMES.index(engine)]
    assert found["not_run"]["TensorRT"] == "TargetUnavailableError: no TensorRT can be imported: tensorrt"
    if not accepts:
        assert "the driver is not usable here" in found["not_run"]["TensorRT-RTX"]
        assert "this onnxruntime has no CUDAExecutionProvider" in found["not_run"]["ONNX Runtime on CUDA"]


def test_engine_when_it_starts_but_does_not_run_then_the_next_is_taken(
    board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.tensorrt.run_errors = ["1: Cask convolution execution"]
    install(monkeypatch, board.tensorrt)
    found = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2, check=True)
    assert found["engine"] == "copy"
    assert "Cask convolution execution" in found["not_run"]["TensorRT"]
    assert not board.devices[-2].live


def test_onnx_runtime_when_it_stands_in_then_it_reads_and_writes_where_the_lane_says(
    board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its provider for CPUs in the place of CUDA's: the same bindings to bare addresses."""
    engines = benchmark.session_engines
    monkeypatch.setattr(engines.OrtEngine.__init__, "__defaults__", ("CPUExecutionProvider",))
    found = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2, "ONNX Runtime on CUDA")
    assert (found["engine"], found["wrong"], found["graphs"]) == ("ONNX Runtime on CUDA", [], 1)
    assert found["objects"] > 3


def test_growth_when_the_gpus_memory_goes_then_it_is_wrong_and_in_the_result(board: Board, benchmark: Any) -> None:
    benchmark.session_engines.GPU.left = [1 << 30, (1 << 30) - (9 << 20)]
    found = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2, "copy")
    assert found["growth_bytes"]["gpu"] == 9 << 20
    assert (found["growth_frames"], set(found["growth_bytes"])) == (3, {"host", "gpu"})
    assert found["wrong"] == ["gpu memory grew by 9.0 MiB over 3 frames"]


def test_growth_when_few_frames_are_timed_then_it_is_looked_at_over_100_000_all_the_same(
    board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (BENCHMARKS / "cuda_session.py").read_text()
    assert "GROWTH_FRAMES = 100_000 " in source
    asked = []
    monkeypatch.setattr(benchmark, "grown", lambda _session, _call, frames: asked.append(frames) or {"gpu": 0})
    monkeypatch.setattr(benchmark, "GROWTH_FRAMES", 100_000)
    benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2, "copy")
    assert asked == [100_000]


def test_check_when_asked_for_then_nothing_is_timed_or_written(
    board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "timed", None)
    monkeypatch.setattr(benchmark, "grown", None)
    monkeypatch.setattr(benchmark, "write", None)
    monkeypatch.setattr(benchmark, "CHECKED_SIZE", 64)
    monkeypatch.setattr("sys.argv", ["cuda_session.py", "--check", "--engine", "copy"])
    assert benchmark.main() == 0
    assert capsys.readouterr().out == "copy: nothing wrong\n"


def test_another_result_is_noticed(board: Board, benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a replayed graph finds nothing any more."""
    read, calls = Results.read, []

    def forgetful(self: Results, request: Any, places: Any) -> Any:
        calls.append(request)
        found = read(self, request, places)
        return found if len(calls) < 3 else [Found(*(part[:0] for part in item[:3]), item.placement) for item in found]

    monkeypatch.setattr(Results, "read", forgetful)
    wrong = benchmark.measure(benchmark.bundle_of(64, 7), FRAME, 2, "copy")["wrong"]
    assert wrong[0] == "replayed: not the host's result"
    assert any(line.startswith("thread") for line in wrong)
