"""What a run says while it goes: one line on a terminal, JSON lines in a file, TensorBoard events on request."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, TYPE_CHECKING, Any

from ..errors import MissingPackageError
from .checkpoint import write_bytes, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch.utils.tensorboard import SummaryWriter


class ProgressLine:
    """One redrawn line on stderr with loss, rate and time to go; silent where stderr is no terminal."""

    def __init__(self, total: int, start: int = 0, stream: IO[str] | None = None) -> None:
        self.total = total
        self.stream = stream if stream is not None else sys.stderr
        self.on = self.stream.isatty()
        self._start, self._began, self._drawn = start, time.monotonic(), -1.0

    def show(self, step: int, loss: float, rate: float) -> None:
        """Redraw after `step` finished steps, at most ten times a second; `rate` is the learning rate."""
        now = time.monotonic()
        if not self.on or (now - self._drawn < 0.1 and step < self.total):
            return
        self._drawn = now
        speed = (step - self._start) / max(now - self._began, 1e-9)
        left = duration((self.total - step) / speed) if speed > 0 else "?"
        bar = ("#" * (24 * step // self.total)).ljust(24, ".")
        self.stream.write(
            f"\r[{bar}] {step}/{self.total}  loss {loss:.4f}  lr {rate:.2e}  {speed:.1f} step/s  {left} to go \x1b[K"
        )
        self.stream.flush()

    def say(self, text: str) -> None:
        """Write a lasting line above the bar (terminals only; the same facts are in metrics.jsonl)."""
        if self.on:
            self.stream.write(f"\r\x1b[K{text}\n")
            self.stream.flush()

    def warn(self, text: str) -> None:
        """Write a warning, whether stderr is a terminal or not."""
        self.stream.write("\r\x1b[K" if self.on else "")
        self.stream.write(f"edgekd: {text}\n")
        self.stream.flush()

    def close(self) -> None:
        """End the line."""
        if self.on and self._drawn >= 0:
            self.stream.write("\n")
            self.stream.flush()


def announce(text: str) -> None:
    """Write one line about a stage of long work to stderr, on terminals only."""
    if sys.stderr.isatty():
        sys.stderr.write(text + "\n")


def warn(text: str) -> None:
    """Write one line that has to be seen to stderr, terminal or not."""
    sys.stderr.write(f"edgekd: {text}\n")


def duration(seconds: float) -> str:
    """Write seconds as 45s, 3m20s or 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class MetricsLog:
    """`metrics.jsonl`: one JSON object a line, each with its `step` (finished optimiser steps).

    Opening it for a run that resumes at `step` drops the lines of the steps that will be done again.
    """

    def __init__(self, path: Path, step: int, tensorboard: Path | None = None) -> None:
        self.path = path
        self._events = _event_writer(tensorboard, step) if tensorboard else None
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step] if step else []
        self.history: list[dict[str, Any]] = [json.loads(line) for line in kept]
        write_bytes(path, "".join(line + "\n" for line in kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line and, where asked for, TensorBoard scalars of the same names."""
        self._append({"step": step, **values})
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def warn(self, step: int, text: str) -> None:
        """Append one line with a warning."""
        self._append({"step": step, "warning": text})

    def _append(self, row: Mapping[str, Any]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Flush to the disk and close."""
        with writing(self.path):
            os.fsync(self._file.fileno())
            self._file.close()
        if self._events is not None:
            self._events.close()


def _lines(path: Path) -> list[str]:
    """Return the complete lines of a log; a process that was killed may have left half a line at the end."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def _event_writer(folder: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingPackageError("--tensorboard needs tensorboard: pip install tensorboard") from error
    return SummaryWriter(str(folder), purge_step=step + 1)
