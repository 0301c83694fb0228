"""`selftest --target tensorrt`: what only a board can prove, on a board that is none."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edgekd.targets.tensorrt import _kernels, _nms_node

import edgekd
from edgekd import _selftest, _selftest_board
from edgekd._manifest import Suppression
from edgekd._target import load_target
from edgekd._verify import TOLERANCES

from ..conformance import bundles
from .tensorrt_fake import NO_TACTIC, FakeTensorRT, FakeTimings
from .test_tensorrt_single import NEWEST, PTX

if TYPE_CHECKING:
    from .conftest import Board

NAMES = [
    "build", "start", "golden", "pipeline", "repeat", "threads", "memory", "latency", "outside", "export", "dla",
]  # fmt: skip
UNITS = ("_ms", "_s", "_mib", "_px")
PLAIN = {
    "looks", "pictures", "objects", "warnings", "calls", "threads", "problems", "frames", "p99_to_p50", "borderline",
    "different", "score_difference", "layers_left",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_selftest, "SIZES", ((17, 99, 3),))
    monkeypatch.setattr(_selftest, "CALLS", 2)
    monkeypatch.setattr(_selftest, "SETTLE", 2)


@pytest.fixture
def thor(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """Its TensorRT holds kernels, and it has no DLA."""
    board.tensorrt, board.capability = FakeTensorRT(NEWEST, capability=110), 110
    monkeypatch.setattr(_kernels, "ptx", lambda _: PTX)
    return board


def tried(folder: Path, precision: str = "fp32", **options: Any) -> dict[str, edgekd.SelftestCheck]:
    path = bundles.written("tensorrt", precision, folder)
    report = edgekd.selftest(path, target="tensorrt", frames=2, out=folder / "self.json", **options)
    held = json.loads((folder / "self.json").read_text())["checks"]
    assert [item["figures"] for item in held] == [dict(item.figures) for item in report.checks]
    return {item.name: item for item in report.checks}


def test_selftest_when_a_board_can_do_all_but_the_dla_then_the_json_has_every_check_with_its_numbers(
    thor: Board, tmp_path: Path
) -> None:
    found = tried(tmp_path)
    assert list(found) == NAMES
    assert {name for name, item in found.items() if item.status != "passed"} == {"dla"}
    assert found["dla"].status == "skipped"
    for name, item in found.items():
        assert item.figures or item.status == "skipped", name
        assert all(key.endswith(UNITS) or key in PLAIN for key in item.figures), item.figures
    assert found["export"].figures["objects"] > 0
    assert found["export"].figures["different"] == found["export"].figures["borderline"] == 0
    assert found["export"].figures["box_difference_px"] == 0
    outside = found["outside"]
    assert outside.figures["outside_ms"] == pytest.approx(
        outside.figures["predict_p50_ms"] - outside.figures["engine_p50_ms"], abs=2e-4
    )
    assert len(outside.samples_ms) == 4
    assert not thor.devices[-1].live
    assert not thor.devices[-1].graphs


def test_build_when_an_engine_is_kept_then_another_is_built_all_the_same(board: Board, tmp_path: Path) -> None:
    tried(tmp_path)
    assert board.tensorrt.builds == 2, "one in an empty folder, and that of the start"
    found = tried(tmp_path)
    assert board.tensorrt.builds == 3
    assert found["build"].figures["engine_mib"] > 0
    assert found["build"].figures["looks"] >= 2


def test_build_when_the_timings_are_larger_than_the_engine_then_its_own_size_is_told(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTimings, "serialize", lambda _: bytes(8 << 20))
    assert tried(tmp_path)["build"].figures["engine_mib"] < 1


def test_build_when_it_fails_then_it_is_in_the_report_with_tensorrts_words(board: Board, tmp_path: Path) -> None:
    board.tensorrt.build_errors = [NO_TACTIC]
    found = tried(tmp_path)
    assert {name: item.status for name, item in found.items()} == {"build": "failed", "start": "failed"}
    assert "no tactic fits" in found["build"].detail


def test_export_when_tensorrt_cannot_hold_the_kernel_then_it_is_skipped_with_the_version(
    board: Board, tmp_path: Path
) -> None:
    found = tried(tmp_path)["export"]
    assert found.status == "skipped"
    assert "TensorRT 10.3.0 cannot keep a kernel of ours" in found.detail


def test_export_when_the_board_has_no_onnx_then_it_is_skipped_with_what_to_type(
    thor: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_nms_node, "find_spec", lambda _: None)
    found = tried(tmp_path)["export"]
    assert found.status == "skipped"
    assert found.detail.endswith("pip install onnx")


def test_what_a_board_loads_needs_no_onnx() -> None:
    """The guide installs none: `selftest` on JetPack 6 has to say that its TensorRT holds no kernels."""
    folder = Path(_nms_node.__file__).parent
    names = {path.stem for path in folder.glob("_*.py")} - {"__init__", "_build", "_half", "_pairs", "_pycuda"}
    code = ["import sys", "sys.modules.update(onnx=None, onnxruntime=None)"]
    code += [f"import edgekd.targets.tensorrt.{name}" for name in sorted(names)]
    found = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_export_when_the_engine_finds_something_else_then_it_fails(
    thor: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = load_target("tensorrt")
    run = module.run_single_engine

    def moved(plan: bytes, pixels: Any) -> Any:
        return [(boxes + np.float32(3), scores, labels) for boxes, scores, labels in run(plan, pixels)]

    monkeypatch.setattr(module, "run_single_engine", moved)
    found = tried(tmp_path)["export"]
    assert found.status == "failed"
    assert found.figures["different"] > 0


def test_dla_when_the_board_has_one_then_it_builds_there_and_names_what_it_leaves(board: Board, tmp_path: Path) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    found = tried(tmp_path, "fp16")["dla"]
    assert (found.status, board.tensorrt.loaded_on[-2:]) == ("passed", [0, 0])
    left = found.detail.partition("layers left to the GPU: ")[2].split(", ")
    assert len(left) == found.figures["layers_left"] > 1
    assert found.figures["score_difference"] < 1e-2


@pytest.mark.parametrize(
    ("version", "cores", "precision", "reason"),
    [
        ("10.3.0", 0, "fp16", "there is no DLA core 0: this machine has 0"),
        ("10.13.3", 2, "fp16", "TensorRT 10.13.3 has no DLA"),
        ("10.3.0", 2, "fp32", "the DLA computes in float16, and this is the fp32 artifact"),
    ],
)
def test_dla_when_there_is_none_then_it_is_skipped_by_name(
    board: Board, tmp_path: Path, version: str, cores: int, precision: str, reason: str
) -> None:
    board.tensorrt = FakeTensorRT(version, dla_cores=cores)
    bundle, artifact = bundles.built("tensorrt", precision)[:2]
    module: Any = load_target("tensorrt")
    found = _selftest_board.offloaded(module, bundle, artifact)
    assert found.status == "skipped"
    assert found.detail.startswith(reason)


def test_memory_watch_when_memory_falls_and_comes_back_then_the_lowest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = itertools.chain([900 << 20, 250 << 20], itertools.repeat(880 << 20))
    grown = itertools.chain([100 << 20, 300 << 20], itertools.repeat(120 << 20))
    monkeypatch.setattr(_selftest_board, "LOOK_S", 60)  # the thread never looks: the end does
    monkeypatch.setattr(_selftest_board, "_available_bytes", lambda: next(free))
    monkeypatch.setattr(_selftest_board, "resident_bytes", lambda: next(grown))
    with _selftest_board.MemoryWatch() as watch:
        pass
    assert watch.figures() == {"machine_peak_mib": 650.0, "process_peak_mib": 200.0, "looks": 2}


def one(*rows: tuple[float, float, int]) -> Any:
    """Return detections of 10 pixels' squares: left edge, score, label."""
    boxes = np.array([[x, 0, x + 10, 10] for x, _, _ in rows], np.float32).reshape(-1, 4)
    return boxes, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64)


def raw(*rows: tuple[float, float, int]) -> Any:
    """Return the same as a network's outputs of two classes."""
    boxes, scores, labels = one(*rows)
    return boxes[None], (scores[:, None] * np.eye(2, dtype=np.float32)[labels])[None]


@pytest.mark.parametrize(
    ("outputs", "found", "borderline", "different"),
    [
        (raw((0, 0.9, 0), (50, 0.8, 1)), one((0, 0.9, 0), (50, 0.8, 1)), 0, 0),
        (raw((0, 0.9, 0), (50, 0.2505, 1)), one((0, 0.9, 0)), 1, 0),  # at the least score
        (raw((0, 0.9, 0), (2, 0.8995, 0)), one((2, 0.8995, 0)), 2, 0),  # one of two, the other way round
        (raw((0, 0.9, 0), (3, 0.6, 0)), one((0, 0.9, 0), (3, 0.6, 0)), 1, 0),  # they overlap by 0.54, the limit is 0.5
        (raw((0, 0.9, 0), (2, 0.6, 0)), one((2, 0.6, 0)), 0, 2),  # not the best of two
        (raw((0, 0.9, 0)), one((2, 0.9, 0)), 0, 2),  # not where the network says
        (raw((0, 0.9, 0), (50, 0.8, 1)), one((0, 0.9, 0)), 0, 1),
        (raw((0, 0.9, 0)), one((0, 0.9, 1)), 0, 2),
        (raw((0, 0.1, 0)), one((0, 0.9, 0)), 0, 1),
    ],
)
def test_parity_when_rows_differ_then_only_what_rounding_explains_is_borderline(
    outputs: Any, found: Any, borderline: int, different: int
) -> None:
    result = _selftest_board._judged([outputs], [found], Suppression(), TOLERANCES["fp32"], {"build_s": 1.0})
    assert (result.figures["borderline"], result.figures["different"]) == (borderline, different)
    assert result.status == ("failed" if different else "passed")
