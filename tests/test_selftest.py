"""`selftest`: what it tries, on a host pipeline and on one of a target's own, and how it fails."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edgekd.targets.reference._session import ReferenceSession

import edgekd
from edgekd import _selftest_board, geometry, ops
from edgekd._session import Found
from edgekd._target import load_target
from edgekd.cli import main as cli
from edgekd.errors import SessionError, TargetUnavailableError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._session import Frame, Request

REFERENCE = load_target("reference")


class Piped(ReferenceSession):
    """The reference with a pipeline of its own; `spoil` changes what it finds."""

    spoil: Any = staticmethod(lambda found: found)

    def __init__(self, bundle: Any, artifact: Any, *, device: str = "auto", threads: int = 1) -> None:
        super().__init__(bundle, artifact, device=device, threads=threads)
        self._spec = bundle.manifest.input

    def detect(self, frames: list[Frame], request: Request) -> list[Found]:
        results = []
        for pixels, swap in frames:
            spec = self._spec
            placed, placement = ops.letterbox(
                pixels, spec.height, spec.width, swap=swap, mean=spec.mean, std=spec.std, pad=spec.pad
            )
            assert isinstance(placement, geometry.Placement)
            boxes, scores = self.infer(placed[None])
            options = {name: getattr(request, name) for name in request.__dataclass_fields__}
            results.append(self.spoil(Found(*ops.suppress(boxes[0], scores[0], **options), placement)))
        return results


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return bundles.written("reference", "fp32", tmp_path)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> type[Piped]:
    session = type("Spoilable", (Piped,), {})
    monkeypatch.setattr(REFERENCE, "load", session)
    return session


def statuses(report: edgekd.SelftestReport) -> dict[str, str]:
    return {item.name: item.status for item in report.checks}


def test_host_target_passes_and_says_what_does_not_apply(path: Path) -> None:
    report = edgekd.selftest(path, target="reference", frames=5)
    assert report.passed
    assert statuses(report) == {
        "start": "passed", "golden": "passed", "pipeline": "skipped", "repeat": "passed", "threads": "passed",
        "memory": "passed", "latency": "passed",
    }  # fmt: skip
    latency = report.checks[-1]
    assert len(latency.samples_ms) == 5
    assert "ms" in latency.detail


def test_command_writes_the_json_and_prints_every_check(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "self.json"
    words = ["selftest", str(path), "--target", "reference", "--frames", "3", "--out", str(out)]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    held = json.loads(out.read_text())
    assert held["passed"] is True
    assert held["health"]["edgekd"]
    assert [item["name"] for item in held["checks"]] == [
        line.split()[1] for line in shown.splitlines() if "fp32  " in line
    ]
    assert f"wrote {out}" in shown
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == held["digest"]


def test_own_pipeline_passes_only_with_the_hosts_bits(path: Path, piped: type[Piped]) -> None:
    assert statuses(edgekd.selftest(path, target="reference", frames=2))["pipeline"] == "passed"
    piped.spoil = staticmethod(lambda found: found._replace(boxes=np.nextafter(found.boxes, np.float32(1e9))))
    report = edgekd.selftest(path, target="reference", frames=2)
    assert statuses(report)["pipeline"] == "failed"
    assert "differs from the host's" in next(item.detail for item in report.checks if item.name == "pipeline")
    assert cli.main(["selftest", str(path), "--target", "reference", "--frames", "1", "--out", f"{path}.json"]) == 3


def test_result_that_changes_from_call_to_call_fails(path: Path, piped: type[Piped]) -> None:
    turns = iter(range(10**9))
    piped.spoil = staticmethod(lambda found: found._replace(scores=found.scores + np.float32(1e-6 * next(turns))))
    found = statuses(edgekd.selftest(path, target="reference", frames=2))
    assert (found["repeat"], found["threads"]) == ("failed", "failed")


def test_memory_that_grows_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100 << 20, 109 << 20])
    monkeypatch.setattr(_selftest_board, "resident_bytes", lambda: next(sizes))
    report = edgekd.selftest(path, target="reference", frames=1)
    (memory,) = (item for item in report.checks if item.name == "memory")
    assert (memory.status, memory.detail) == ("failed", "+9.00 MiB over 1 frames; at most 8 MiB")


def test_errors_of_a_session_are_part_of_the_report(path: Path, piped: type[Piped]) -> None:
    def fail(_: Any) -> None:
        raise SessionError("CUDA failed: out of memory")

    piped.spoil = staticmethod(fail)
    report = edgekd.selftest(path, target="reference", frames=1)
    assert {name for name, status in statuses(report).items() if status == "failed"} == {
        "pipeline", "repeat", "threads", "memory", "latency",
    }  # fmt: skip
    assert "CUDA failed: out of memory" in report.checks[-1].detail


def test_errors_when_they_are_not_edgekds_then_they_are_part_of_the_report_too(path: Path, piped: type[Piped]) -> None:
    """What a vendor's package raises on a machine that nobody has seen; threads included."""

    def fail(*_: Any) -> None:
        raise TypeError("nullptr")

    piped.spoil = staticmethod(fail)
    piped.close = fail  # type: ignore[method-assign]
    report = edgekd.selftest(path, target="reference", frames=1)
    assert report.checks[-1].detail == "TypeError: nullptr"
    assert [item.name for item in report.checks] == ["start"], "the first session is closed before the second starts"
    piped.close = Piped.close  # type: ignore[method-assign]
    found = statuses(edgekd.selftest(path, target="reference", frames=1))
    assert [name for name, status in found.items() if status == "passed"] == ["start", "golden"]
    closes = iter((ReferenceSession.close, ReferenceSession.close, fail))  # before the second start, golden's, the last
    piped.close = lambda self: next(closes)(self)  # type: ignore[method-assign]
    assert edgekd.selftest(path, target="reference", frames=1).checks[-1].name == "close"


def test_threads_when_only_they_meet_an_error_of_the_vendors_then_they_fail(path: Path, piped: type[Piped]) -> None:
    def fail(found: Found) -> Found:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("not in this thread")
        return found

    piped.spoil = staticmethod(fail)
    assert statuses(edgekd.selftest(path, target="reference", frames=1))["threads"] == "failed"


def test_pipeline_when_no_graph_can_hold_it_then_it_says_so(path: Path, piped: type[Piped]) -> None:
    def told(found: Found) -> Found:
        logging.getLogger("edgekd").warning("edgekd: no CUDA graph: %s", "refused")
        return found

    piped.spoil = staticmethod(told)
    report = edgekd.selftest(path, target="reference", frames=1)
    (pipeline,) = (item for item in report.checks if item.name == "pipeline")
    assert pipeline.status == "passed"
    assert pipeline.detail.endswith("objects; edgekd: no CUDA graph: refused")


def test_engine_that_does_not_start_ends_the_trial(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise SessionError("made no engine")

    monkeypatch.setattr(REFERENCE, "load", refuse)
    report = edgekd.selftest(path, target="reference")
    assert [(item.name, item.status, item.detail) for item in report.checks] == [("start", "failed", "made no engine")]
    assert report.sessions == ()


def test_impossible_requests_say_what_to_type(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="frames should be at least 1, got 0"):
        edgekd.selftest(path, target="reference", frames=0)
    with pytest.raises(UsageError, match=r"there is no folder .*; name another, or: mkdir -p"):
        edgekd.selftest(path, target="coral", out=path.parent / "none" / "self.json")
    with pytest.raises(UsageError, match=r"has nothing for tflite\. To add it: edgekd build .* --target tflite"):
        edgekd.selftest(path, target="tflite")
    with pytest.raises(UsageError, match="no target 'coral'"):
        edgekd.selftest(path, target="coral")
    monkeypatch.setattr(REFERENCE, "probe", lambda: "gone: pip install onnxruntime")
    with pytest.raises(TargetUnavailableError, match="cannot run here: gone"):
        edgekd.selftest(path, target="reference")
    with contextlib.suppress(OSError):
        path.unlink()
