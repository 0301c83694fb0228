"""`flash_fleet`: one bundle onto many boards, in stages, until it is done or too many have failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .verbs import NAME, ROOT, Step

WAITING, RUNNING, SERVES, FAILED = "waiting", "running", "serves it", "failed"
STATES = (WAITING, RUNNING, SERVES, FAILED)


@dataclass(frozen=True, kw_only=True)
class BoardResult:
    """What became of one board.

    Attributes:
        device: as the fleet file names it.
        name: of the model there.
        root: folder there.
        stage: 1 for the first.
        state: "waiting" (nothing was begun), "running" (or interrupted there), "serves it" or "failed".
        step: the last one of its flash.
        reason: why it failed.
        release: in service, of one that serves it.
        before: the release before.
        changed: whether it had to be flashed.
        sent_bytes: that travelled.
        seconds: that its flash took.
        p99_ms: of `predict` there; None: not measured.
    """

    device: str
    name: str
    root: str
    stage: int
    state: str = WAITING
    step: str = ""
    reason: str = ""
    release: str = ""
    before: str | None = None
    changed: bool = False
    sent_bytes: int = 0
    seconds: float = 0.0
    p99_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class FleetReport:
    """What a rollout did.

    Attributes:
        bundle: SHA-256 of the file.
        stages: how many there are.
        stopped: why no further board was begun; empty: all were.
        boards: one each, in the order of the file.
        resumed: boards that an earlier, interrupted or stopped run had done.
        seconds: of this run.
    """

    bundle: str
    stages: int
    stopped: str
    boards: tuple[BoardResult, ...]
    resumed: int
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """State -> how many boards are in it."""
        return {state: sum(board.state == state for board in self.boards) for state in STATES}

    @property
    def complete(self) -> bool:
        """Whether every board serves the bundle."""
        return all(board.state == SERVES for board in self.boards)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        fields = asdict(self)
        return {**fields, "boards": list(fields["boards"]), "counts": self.counts, "complete": self.complete}


FleetProgress = Callable[[BoardResult, "Step | None"], None]
"""Told each board when its state changes (step None), and each step of its flash; by several threads, one at a time."""


def flash_fleet(
    path: str | Path,
    fleet: str | Path,
    *,
    canary: int = 1,
    batch: str = "10%",
    stop_on: int = 1,
    parallel: int = 8,
    state: str | Path | None = None,
    name: str = NAME,
    root: str = ROOT,
    python: str = "python3",
    progress: FleetProgress | None = None,
    **options: Any,
) -> FleetReport:
    """Flash every board of a fleet: first the canaries, then batch after batch, until too many have failed.

    A stage begins when the one before has ended. Each flash is the transaction of `flash`: a board that fails serves
    what it served. A run that was killed or has stopped goes on when it is started again with the same bundle: boards
    that serve it are left alone, those that failed are tried again, and failures count anew.

    Args:
        path: `model.bin`.
        fleet: file that names the boards, see docs/fleet.md.
        canary: boards of the first stage, the first of the file; 0: none.
        batch: boards of each further stage: "5", or "10%" of the fleet.
        stop_on: failures after which no further board is begun; boards that are being flashed go on to their end.
        parallel: boards flashed at once.
        state: file for what happened; None: the fleet file's name with ".state.json" behind it.
        name: as `flash`; of boards for which the file has no other.
        root: as `flash`; the same.
        python: as `flash`; the same.
        progress: told what happens.
        **options: the other arguments of `flash`, for boards for which the file has no other.

    Returns:
        One row a board. Nothing is raised for a board that fails: look at `complete`.

    Raises:
        UsageError: a number out of its range, a wrong fleet file, or one board twice.
        BundleError: the bundle is not sound.
        DeviceError: another rollout with this state file is going on.
    """
    from .rollout import run

    for label, value, least in (("canary", canary, 0), ("stop_on", stop_on, 1), ("parallel", parallel, 1)):
        if value < least:
            raise UsageError(f"{label} should be at least {least}, got {value}")
    common = {"name": name, "root": root, "python": python, **options}
    place = Path(f"{fleet}.state.json" if state is None else state)
    return run(Path(path), Path(fleet), place, common, canary, batch, stop_on, parallel, progress)
