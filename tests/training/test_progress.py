"""What a run says: the line, the log, the events."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from edgekd.errors import HostError, MissingPackageError
from edgekd.training import progress
from edgekd.training.progress import MetricsLog, ProgressLine, duration

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_shows_loss_rate_and_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 110.01, 300.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = Terminal()
    line = ProgressLine(400, start=100, stream=stream)
    line.show(150, 1.25, 3e-4)
    line.show(151, 9.0, 3e-4)  # a hundredth of a second later: not drawn
    line.show(400, 0.5, 1e-6)
    line.close()
    first, last = stream.getvalue().split("\r")[1:]
    assert "150/400" in first
    assert "loss 1.2500" in first
    assert "5.0 step/s" in first
    assert "50s to go" in first
    assert "400/400" in last
    assert "[" + "#" * 24 + "]" in last
    assert last.endswith("\n")


def test_line_is_silent_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    line = ProgressLine(10, stream=stream)
    line.show(5, 1.0, 1e-3)
    line.say("hello")
    line.close()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (200, "3m20s"), (7500, "2h05m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_log_is_one_json_object_a_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl", 0)
    log.write(10, {"loss": 1.5, "pkd.p3": 0.25})
    assert rows(log.path) == [{"step": 10, "loss": 1.5, "pkd.p3": 0.25}]  # before it is closed
    log.close()


def test_log_of_a_resumed_run_drops_the_steps_done_again_and_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 3}\n{"step": 20, "loss": 2}\n{"step": 30, "loss": 1}\n{"step": 4')
    log = MetricsLog(path, 20)
    log.write(30, {"loss": 1.5})
    log.close()
    assert rows(path) == [{"step": 10, "loss": 3}, {"step": 20, "loss": 2}, {"step": 30, "loss": 1.5}]


def test_log_of_a_new_run_starts_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 3}\n')
    MetricsLog(path, 0).close()
    assert path.read_text() == ""


def test_tensorboard_events_hold_the_scalars(tmp_path: Path) -> None:
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, tensorboard=tmp_path / "tb")
    log.write(10, {"loss": 1.5})
    log.close()
    events = loading.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [(item.step, item.value) for item in events.Scalars("loss")] == [(10, 1.5)]


def test_missing_tensorboard_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match="pip install tensorboard"):
        MetricsLog(tmp_path / "metrics.jsonl", 0, tensorboard=tmp_path / "tb")


def test_log_on_a_full_disk_says_so_in_one_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.write(10, {"loss": 1.0})
    log._file.close()
    log._file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115, PTH123
    with pytest.raises(HostError, match=r"metrics\.jsonl: No space left on device; once that is mended"):
        log.write(20, {"loss": 1.0})
    with contextlib.suppress(OSError):  # it still has the line
        log._file.close()
