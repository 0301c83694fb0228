"""What the training evidence has in common: folders that one process works on, and the log of a run."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Say whether this process may work on a folder; another one that does so is left alone."""
    lock = folder.with_name(folder.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        holder = lock.read_text()
        if not holder or Path(f"/proc/{holder}").exists():
            yield False
            return
        lock.write_text(str(os.getpid()))
    try:
        yield True
    finally:
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works on a folder, then keep others away."""
    while True:
        with claimed(folder) as free:
            if free:
                yield
                return
        time.sleep(1)


def log_rows(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def trained_s(rows: list[dict[str, Any]]) -> float:
    """Return the seconds that the steps of a whole run took, resumed or not."""
    total, before = 0.0, 0
    for row in rows:
        if "step_ms" in row:
            total += row["step_ms"] * (row["step"] - before) / 1e3
            before = row["step"]
    return total
