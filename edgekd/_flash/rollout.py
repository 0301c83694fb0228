"""A rollout as it goes: boards flashed side by side, stage after stage.

What happened is in a state file, written anew after every change: whoever is killed goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .._bundle import Bundle
from .._container import write_file
from ..errors import DeviceError, EdgekdError, UsageError
from .fleet import FAILED, RUNNING, SERVES, BoardResult, FleetReport
from .fleet_file import Board, batch_size, read_fleet, stages
from .host import check_limits, ident
from .lock import locked
from .verbs import flash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .fleet import FleetProgress
    from .verbs import FlashReport, Step

FORMAT = 1


@dataclass
class Rollout:
    """One run: the rows, what is written about them, and whether it goes on."""

    path: Path
    boards: Sequence[Board]
    common: Mapping[str, Any]
    rows: list[BoardResult]
    state: Path
    bundle: str
    stop_on: int
    progress: FleetProgress | None
    stopped: str = ""
    failures: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def tell(self, index: int, happened: Step | None = None, **changes: Any) -> None:
        """Change a row, write the state where it has another state, and say so."""
        with self._lock:
            self.rows[index] = replace(self.rows[index], **changes)
            if happened is None:
                self.write()
            if self.progress is not None:
                self.progress(self.rows[index], happened)

    def write(self) -> None:
        rows = {board.key(dict(self.common)): asdict(row) for board, row in zip(self.boards, self.rows, strict=True)}
        state = {"format": FORMAT, "bundle": self.bundle, "boards": rows}
        write_file(self.state, [(json.dumps(state, indent=1) + "\n").encode()])

    def stage(self, indices: Sequence[int], parallel: int) -> None:
        """Flash the boards of one stage, so many at a time; after the last failure allowed no further one begins."""
        waiting = [index for index in indices if self.rows[index].state != SERVES]
        with ThreadPoolExecutor(parallel, thread_name_prefix="edgekd-fleet") as pool:
            futures = [pool.submit(self.board, index) for index in waiting]
            try:
                for future in futures:
                    future.result()
            except BaseException:  # an interrupt: what runs ends, nothing new begins
                self.stopped = self.stopped or "interrupted"
                raise

    def board(self, index: int) -> None:
        """Flash one board, unless the rollout has stopped; keep what became of it."""
        with self._lock:
            if self.stopped:
                return
            self.tell(index, state=RUNNING, step="", reason="")
        begin = time.monotonic()
        board = self.boards[index]

        def told(step: Step) -> None:
            self.tell(index, step, step=step.name)

        try:
            options = {**self.common, **board.options, "sha256": self.bundle}  # no board gets what the first did not
            report = flash(self.path, board.device, **options, progress=told)
            self.tell(index, **_served(report), seconds=round(time.monotonic() - begin, 3))
        except EdgekdError as error:
            self.failed(index, str(error), time.monotonic() - begin)
        except Exception as error:  # of one board, whatever it is: the others are looked after
            self.failed(index, f"{type(error).__name__}: {error}", time.monotonic() - begin)

    def failed(self, index: int, reason: str, seconds: float) -> None:
        with self._lock:
            self.failures += 1
            if self.failures >= self.stop_on and not self.stopped:
                self.stopped = f"{self.failures} failed, --stop-on {self.stop_on}"
            self.tell(index, state=FAILED, reason=reason, seconds=round(seconds, 3))


def run(
    path: Path,
    fleet: Path,
    place: Path,
    common: dict[str, Any],
    canary: int,
    batch: str,
    stop_on: int,
    parallel: int,
    progress: FleetProgress | None,
) -> FleetReport:
    """Do what `flash_fleet` says, with its errors; `common`: arguments of `flash`, `place`: the state file."""
    boards = read_fleet(fleet)
    plan = stages(len(boards), canary, batch_size(batch, len(boards)))
    inspect.signature(flash).bind(path, "", **common)  # a name that `flash` does not know is no failure of a board
    check_limits(common)
    _distinct(boards, common)
    Bundle.read(path).close()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    began = time.monotonic()
    with _alone(place):
        rows = _rows(boards, common, plan, _earlier(place, sha256))
        resumed = sum(row.state == SERVES for row in rows)
        rollout = Rollout(path, boards, common, rows, place, sha256, stop_on, progress)
        rollout.write()
        for stage in plan:
            if not rollout.stopped:
                rollout.stage(stage, parallel)
    return FleetReport(
        bundle=sha256, stages=len(plan), stopped=rollout.stopped, boards=tuple(rollout.rows), resumed=resumed,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


def _served(report: FlashReport) -> dict[str, Any]:
    check = report.record.get("check")
    p99 = check.get("p99_ms") if isinstance(check, dict) else None
    return {
        "state": SERVES, "release": report.release, "before": report.before, "changed": report.changed,
        "sent_bytes": report.sent_bytes, "p99_ms": p99,
    }  # fmt: skip


def _distinct(boards: Sequence[Board], common: dict[str, Any]) -> None:
    seen: set[str] = set()
    for board in boards:
        key = board.key(common)
        if key in seen:
            raise UsageError(f"the fleet file names {board.device} twice with the same root and name")
        seen.add(key)


def _rows(
    boards: Sequence[Board], common: Mapping[str, Any], plan: Sequence[range], earlier: Mapping[str, dict[str, Any]]
) -> list[BoardResult]:
    """Return one row a board; of an earlier run count those that serve the bundle."""
    number = {index: stage for stage, indices in enumerate(plan, 1) for index in indices}
    rows = []
    for index, board in enumerate(boards):
        known = {**common, **board.options}
        row = BoardResult(device=board.device, name=known["name"], root=known["root"], stage=number[index])
        before = earlier.get(board.key(dict(common)), {})
        if before.get("state") == SERVES:
            with contextlib.suppress(TypeError):  # a file of another version: the board is asked again
                row = BoardResult(**{**before, "stage": row.stage})
        rows.append(row)
    return rows


def _earlier(place: Path, bundle: str) -> dict[str, dict[str, Any]]:
    """Return the rows of an earlier run with the same bundle; empty if there is none, or if it came to its end.

    Boards change after a rollout (somebody rolls one back), so one that is over is not believed for ever. A file that
    is no state is not overwritten.
    """
    try:
        raw = json.loads(place.read_bytes())
        rows = dict(raw["boards"]) if raw["format"] == FORMAT else {}
        over = all(row["state"] == SERVES for row in rows.values())
        return rows if raw["bundle"] == bundle and not over else {}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read the state file {place}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{place} is no state of a rollout: remove it, or name another with --state") from error


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the lock of a state file."""
    try:
        with locked(place.with_name(f"{place.name}.lock"), ident()["who"], 0):
            yield
    except OSError as error:
        raise DeviceError(f"cannot write beside {place}: {error.strerror}; name another file with --state") from error
