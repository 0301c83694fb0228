"""What the training evidence has in common: folders that one process works on, and the log of a run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Say whether this process may work on a folder; another one that does so is left alone.

    The kernel lets go of the lock with the process, however that ends. Its file stays: who unlinks one that another
    process has just opened gives it away twice.
    """
    lock = folder.with_name(folder.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works on a folder, then keep others away."""
    while True:
        with claimed(folder) as free:
            if free:
                yield
                return
        time.sleep(1)


def named(option: str, asked: str, possible: Iterable[str]) -> list[str]:
    """Return the names of a list with commas; an unknown one ends the script."""
    names = asked.split(",")
    unknown = [name for name in names if name not in possible]
    if unknown:
        raise SystemExit(f"{option}: no {', '.join(unknown)}; possible: {', '.join(possible)}")
    return names


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
