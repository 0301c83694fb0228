"""`flash`, `rollback`, `status`, `guard`: what users call. What does the work is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError

if TYPE_CHECKING:
    from ..device import Device
    from .host import Conversation

ROOT, NAME = "/var/lib/edgekd", "model"

Progress = Callable[["Step"], None]
"""Told each step as it begins, as it goes on where that takes long, and as it ends."""


@dataclass(frozen=True)
class Step:
    """One step of a flash.

    Attributes:
        name: "preflight", "upload", "assemble", "verify", "build", "golden", "latency", "arm", "switch", "watch",
            "commit"; "bootstrap", "recover", "roll back" and "clean" where there was something to do.
        state: "begun", "running", "ok" or "failed".
        detail: how far it is, what was found, or why it failed.
        seconds: it took; 0 while it runs.
    """

    name: str
    state: str
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class FlashReport:
    """What a flash did.

    Attributes:
        device: as it was named.
        name: under which the board serves the model.
        release: that is in service now.
        before: the release that was; None: there was none.
        changed: False: it was in service already, and nothing was done.
        size_bytes: of the bundle.
        sent_bytes: of it that travelled; the board had the rest.
        steps: one each, in order.
        facts: what the board said about itself.
        record: what the board noted about the release: signer, artifact, times with their raw samples.
        model: path on the board to load; it leads to the version in service, whichever that is.
    """

    device: str
    name: str
    release: str
    before: str | None
    changed: bool
    size_bytes: int
    sent_bytes: int
    steps: tuple[Step, ...]
    facts: dict[str, Any]
    record: dict[str, Any]
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        report = asdict(self)
        return {**report, "steps": list(report["steps"])}


@dataclass(frozen=True)
class Guarded:
    """What a service may load.

    Attributes:
        model: path of the bundle in service; it leads to whichever that is.
        done: what had to be done first, one line each; empty: nothing.
    """

    model: str
    done: tuple[str, ...]


def flash(
    path: str | Path,
    device: str | Device,
    *,
    name: str = NAME,
    root: str = ROOT,
    python: str = "python3",
    build: Sequence[str] = (),
    require: Mapping[str, str] | None = None,
    max_p99_ms: float | None = None,
    max_slowdown: float = 0.5,
    runs: int = 100,
    watch_s: float = 5.0,
    restart: str | None = None,
    health: str | None = None,
    allow_downgrade: bool = False,
    keep: int = 3,
    quota_bytes: int = 1 << 40,
    wait_s: float = 30.0,
    bootstrap: str | Path | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> FlashReport:
    """Make a bundle the version that a board serves; killed anywhere, it leaves the old or the new in service.

    Args:
        path: `model.bin`.
        device: "user@board" (whatever `ssh` reaches without a question), "local", or a `Device`.
        name: of the model on the board; each has its own versions.
        root: folder on the board; `~` is the board's.
        python: interpreter on the board that has edgekd.
        build: "target" or "target:precision", built on the board before the tests.
        require: facts that the board must have, by prefix: {"l4t": "36.4", "python": "3.10"}.
        max_p99_ms: the 99th percentile of `predict` on the board must not be above it; None: not asked.
        max_slowdown: how much slower than the version in service the median may be; 0.5: half as slow again.
        runs: of `predict` that are timed.
        watch_s: seconds to watch after the switch.
        restart: command that restarts your service on the board, run by `sh` there after the switch.
        health: command that must succeed there during the watch.
        allow_downgrade: whether a bundle that was made before the one in service may replace it.
        keep: releases to keep on the board, those in service and before it included.
        quota_bytes: that releases may take together; the one in service and the one before it always stay.
        wait_s: seconds to wait for another flash of the same name to end.
        bootstrap: folder of wheels; edgekd and all that it needs on the board is installed there from them first, into
            `ROOT/.runtime`, and used. None: the board has edgekd.
        sha256: of the file, in hexadecimal: another one is not sent. None: whatever it is.
        progress: told each step.

    Raises:
        BundleError: the file is not a sound bundle; SignatureError where the board wants another signature.
        UsageError: a downgrade, another file than `sha256` says, or an argument that the board refuses.
        GateError: golden test, latency, restart, health or watch failed on the board.
        DeviceError: no connection, no room, a fact that is not as required, another flash in progress.
    """
    from .host import Wanted, run

    wanted = Wanted(
        build=build, max_p99_ms=max_p99_ms, max_slowdown=max_slowdown, runs=runs, watch_s=watch_s, restart=restart,
        health=health, allow_downgrade=allow_downgrade, keep=keep, quota_bytes=quota_bytes, wait_s=wait_s,
    )  # fmt: skip
    talk = _talk(device, python, root, name)
    wheels = None if bootstrap is None else Path(bootstrap)
    return run(Path(path), talk, wanted, dict(require or {}), progress, wheels, sha256)


def rollback(
    device: str | Device,
    *,
    name: str = NAME,
    root: str = ROOT,
    python: str = "python3",
    to: str | None = None,
    restart: str | None = None,
    wait_s: float = 30.0,
) -> dict[str, Any]:
    """Return a board to the release that was in service before, or to another that it keeps.

    Args:
        device: as `flash`.
        name: as `flash`.
        root: as `flash`.
        python: as `flash`.
        to: a release that `status` lists; None: the one before.
        restart: command that restarts your service on the board; without it the service keeps what it has open.
        wait_s: as `flash`.

    Returns:
        `release` (in service now), `before`, and the `record` of the release.

    Raises:
        BundleError: there is no such release, or it is damaged.
        GateError: it fails its golden test, and what is in service stays; or it is in service, and `restart` failed.
        DeviceError: no connection, or nothing to go back to.
    """
    from .host import ident

    return _talk(device, python, root, name).ask(
        "rollback", {"to": to, "restart": restart, "wait_s": wait_s, **ident()}
    )


def status(device: str | Device, *, name: str = NAME, root: str = ROOT, python: str = "python3") -> dict[str, Any]:
    """Ask a board what it serves. Changes nothing.

    Args:
        device: as `flash`.
        name: as `flash`.
        root: as `flash`.
        python: as `flash`.

    Returns:
        `in_service`, `whole`, `previous`, `releases`, `trial`, `flashing` (who, or None), `keys`, `journal`, `model`.

    Raises:
        DeviceError: no connection.
    """
    return _talk(device, python, root, name).ask("status")


def guard(name: str = NAME, *, root: str = ROOT) -> Guarded:
    """Run on the board before a service loads its model: end what was interrupted, leave what is damaged.

    Args:
        name: of the model.
        root: folder of the models.

    Raises:
        DeviceError: nothing is in service.
        UsageError: no name for a model.
    """
    from ..device import Disk
    from .recovery import guard as recovered
    from .store import Store

    try:
        path, done = recovered(Store(Path(root).expanduser(), name, Disk()))
    except OSError as error:
        raise DeviceError(
            f"cannot look after {root}/{name}: {error.strerror or error}; run the guard as the user who flashes"
        ) from error
    return Guarded(str(path), tuple(done))


def guard_unit(name: str = NAME, *, root: str = ROOT) -> str:
    """Return a drop-in for a systemd service that serves this model; nothing is installed."""
    return (
        f"# /etc/systemd/system/YOUR.service.d/edgekd-{name}.conf, then: systemctl daemon-reload\n"
        "[Service]\n"
        f"ExecStartPre={sys.executable} -m edgekd.cli.main guard --root {root} {name}\n"
        "Restart=on-failure\n"
    )


def _talk(device: str | Device, python: str, root: str, name: str) -> Conversation:
    from ..device import open_device
    from .host import Conversation

    return Conversation(open_device(device) if isinstance(device, str) else device, python, root, name)
