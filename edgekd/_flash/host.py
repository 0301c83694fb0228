"""`flash`, `rollback`, `status`: the host's side. It sends what the board lacks; every decision is the board's own."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._bundle import Bundle
from .._detector import check_detector
from .._select import all_artifacts
from ..errors import DeviceError
from . import wire
from .chunks import Piece, mapped, split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..device import Device

ROOT, NAME = "/var/lib/edgekd", "model"
MODULE = "edgekd._flash.board"
ROUNDS = 5  # of sending what is missing; each but the last must bring something
SKEW_S = 300.0
REQUIRED = ("board", "edgekd", "l4t", "machine", "power_mode", "python", "sm", "tensorrt")
RAM_MARGIN_BYTES, DISK_MARGIN_BYTES = 64 << 20, 16 << 20

Progress = Callable[["Step"], None]
"""Told each step as it begins and as it ends."""


@dataclass(frozen=True)
class Step:
    """One step of a flash.

    Attributes:
        name: "preflight", "upload", "assemble", "verify", "build", "golden", "latency", "arm", "switch", "watch",
            "commit"; "recover", "roll back" and "clean" where there was something to do.
        state: "begun", "ok" or "failed".
        detail: what was found, or why it failed.
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


@dataclass
class Conversation:
    """One board, one name: requests and their answers."""

    device: Device
    python: str
    root: str
    name: str

    def ask(
        self,
        verb: str,
        frames: Iterable[bytes] = (),
        told: Callable[[dict[str, Any]], None] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Send a request and return its result.

        Raises:
            EdgekdError: the board's own error, or DeviceError where there was no answer.
        """
        last: dict[str, Any] = {}

        def listen(line: str) -> None:
            found = wire.parse_reply(line)
            if found is None:
                return
            if "step" in found and told is not None:
                told(found)
            last.update(found)

        def stdin() -> Iterable[bytes]:
            yield wire.request(root=self.root, name=self.name, **fields)
            yield from frames

        done = self.device.run([self.python, "-m", MODULE, verb], stdin=stdin(), listen=listen)
        if "error" in last:
            raise wire.remote_error(last["error"], self.device.name)
        if isinstance(last.get("result"), dict):
            return dict(last["result"])
        raise DeviceError(self._no_answer(done.code, done.errors))

    def _no_answer(self, code: int, errors: str) -> str:
        reason = errors.splitlines()[-1] if errors else "it gave no reason"
        if "No module named" in errors or code in (126, 127):
            return (
                f"{self.device.name}: {self.python} there has no edgekd of this version ({reason}): install it on the "
                "board (`pip install edgekd` and the runtime of your target), or name its interpreter with --python"
            )
        return f"{self.device.name}: the board's program ended with status {code} and no answer: {reason}"


@dataclass
class _Steps:
    """The steps so far, passed on as they come."""

    progress: Progress | None
    done: list[Step] = field(default_factory=list)
    _begun: dict[str, float] = field(default_factory=dict)

    def told(self, fields: Mapping[str, Any]) -> None:
        name, state = str(fields["step"]), str(fields.get("state"))
        now = time.monotonic()
        seconds = 0.0
        if state == "begun":
            self._begun[name] = now
        else:
            seconds = now - self._begun.get(name, now)
        step = Step(name, state, str(fields.get("detail", "")), round(seconds, 3))
        if state != "begun":
            self.done.append(step)
        if self.progress is not None:
            self.progress(step)

    def begin(self, name: str, detail: str = "") -> None:
        self.told({"step": name, "state": "begun", "detail": detail})

    def end(self, name: str, detail: str) -> None:
        self.told({"step": name, "state": "ok", "detail": detail})


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
        progress: told each step.

    Raises:
        BundleError: the file is not a sound bundle; SignatureError where the board wants another signature.
        UsageError: a downgrade, or an argument that the board refuses.
        GateError: golden test, latency, restart, health or watch failed on the board.
        DeviceError: no connection, no room, a fact that is not as required, another flash in progress.
    """
    path = Path(path)
    steps = _Steps(progress)
    talk = Conversation(_opened(device), python, root, name)
    who, ident = _who(), secrets.token_hex(4)
    with Bundle.read(path) as bundle:
        check_detector(bundle)
        targets = {item.target for item in all_artifacts(bundle)}
    with mapped(path) as view:
        steps.begin("preflight")
        facts = talk.ask("facts")
        steps.end("preflight", preflight(facts, talk, targets | {item.partition(":")[0] for item in build},
                                         dict(require or {}), len(view)))  # fmt: skip
        order = {
            "file": hashlib.sha256(view).hexdigest(), "flash": ident, "who": who, "build": list(build),
            "max_p99_ms": max_p99_ms, "max_slowdown": max_slowdown, "runs": runs, "watch_s": watch_s,
            "restart": restart, "health": health, "allow_downgrade": allow_downgrade, "keep": keep,
            "quota_bytes": quota_bytes, "wait_s": wait_s,
        }  # fmt: skip
        sent, result = _transfer(talk, steps, view, order)
    return FlashReport(
        talk.device.name, name, str(result["release"]), result["before"], bool(result["changed"]), path.stat().st_size,
        sent, tuple(steps.done), facts, result.get("record") or {}, f"{root}/{name}/current/model.bin",
    )  # fmt: skip


def rollback(
    device: str | Device,
    *,
    name: str = NAME,
    root: str = ROOT,
    python: str = "python3",
    to: str | None = None,
    wait_s: float = 30.0,
) -> dict[str, Any]:
    """Return a board to the release that was in service before, or to another that it keeps.

    Args:
        device: as `flash`.
        name: as `flash`.
        root: as `flash`.
        python: as `flash`.
        to: a release that `status` lists; None: the one before.
        wait_s: as `flash`.

    Returns:
        `release` (in service now), `before`, and the `record` of the release.

    Raises:
        BundleError: there is no such release, or it is damaged.
        GateError: it fails its golden test; what is in service stays.
        DeviceError: no connection, or nothing to go back to.
    """
    talk = Conversation(_opened(device), python, root, name)
    return talk.ask("rollback", to=to, who=_who(), flash=secrets.token_hex(4), wait_s=wait_s)


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
    return Conversation(_opened(device), python, root, name).ask("status")


def preflight(
    facts: Mapping[str, Any], talk: Conversation, targets: set[str], require: Mapping[str, str], size_bytes: int
) -> str:
    """Refuse a board on which the flash would fail, before a byte is sent; return what is worth knowing about it.

    Raises:
        DeviceError: what is wrong, all of it, one line each.
    """
    problems = []
    for key, wanted in require.items():
        found = facts.get(key) if key in REQUIRED else None
        if key not in REQUIRED:
            problems.append(f"--require knows no {key!r}; possible: {', '.join(REQUIRED)}")
        elif not _begins(str(found), wanted):
            problems.append(f"{key} is {found or 'unknown'}, {wanted} was required")
    if not facts["writable"]:
        problems.append(
            f"{talk.root} cannot be written: on the board, sudo install -d -o $USER {talk.root}; or --root '~/edgekd'"
        )
    needed = 2 * size_bytes + DISK_MARGIN_BYTES  # the chunks on their way in, and the file put together
    if facts["disk_free_bytes"] < needed:
        problems.append(f"{facts['disk_free_bytes'] >> 20} MiB free on its disk, {needed >> 20} MiB are needed")
    ram = facts["ram_available_bytes"]
    if ram is not None and ram < size_bytes + RAM_MARGIN_BYTES:
        problems.append(f"{ram >> 20} MiB of memory available, {(size_bytes + RAM_MARGIN_BYTES) >> 20} MiB are needed")
    reasons = {name: facts["targets"].get(name, "its edgekd has no such target") for name in sorted(targets)}
    if all(reasons.values()):
        problems.append("nothing in the bundle can run there: " + "; ".join(f"{k}: {v}" for k, v in reasons.items()))
    if problems:
        raise DeviceError(f"{talk.device.name}: " + "\n  ".join(problems))
    skew = facts["time"] - time.time()
    words = [f"edgekd {facts['edgekd']}, Python {facts['python']}, {facts['machine']}"]
    words += [f"{key} {facts[key]}" for key in ("board", "l4t", "tensorrt", "sm", "power_mode") if facts[key]]
    words.append(f"{facts['disk_free_bytes'] / (1 << 30):.1f} GiB free")
    if abs(skew) > SKEW_S:  # nothing is decided by a clock, so it is only said
        words.append(f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}")
    return ", ".join(words)


def _begins(found: str, wanted: str) -> bool:
    """Whether a version is the wanted one or finer: "36.4" takes 36.4.0 and not 36.40."""
    return found == wanted or (found.startswith(wanted) and not found[len(wanted)].isdigit())


def _transfer(talk: Conversation, steps: _Steps, view: memoryview, order: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Send what is missing and let the board run the transaction, again if chunks were damaged on their way."""
    pieces = split(view)
    sent = 0
    for _ in range(ROUNDS):
        steps.begin("upload")
        now, resent = _upload(talk, view, pieces, order["file"])
        sent += now
        again = f"; {resent} chunks once more" if resent else ""
        steps.end("upload", f"{now} of {len(view)} bytes sent, the board had the rest{again}")
        result = talk.ask("apply", told=steps.told, **order)
        if not result.get("again"):
            return sent, result
    raise DeviceError(f"{talk.device.name}: what it received was damaged {ROUNDS} times: check its disk and the link")


def _upload(talk: Conversation, view: memoryview, pieces: Sequence[Piece], file: str) -> tuple[int, int]:
    """Send until nothing is missing; return the bytes sent and how many chunks had to be sent again."""
    where = {piece.sha256: piece for piece in pieces}
    listed = [[piece.sha256, piece.length] for piece in pieces]
    sent = resent = 0
    for turn in range(ROUNDS):
        missing = [where[sha256] for sha256 in talk.ask("offer", file=file, chunks=listed)["missing"]]
        if not missing:
            return sent, resent
        resent += len(missing) if turn else 0
        sent += sum(piece.length for piece in missing)
        content = ((p.sha256, view[p.offset : p.offset + p.length]) for p in missing)
        talk.ask("receive", wire.frames(content), file=file)
    raise DeviceError(f"{talk.device.name}: chunks arrived damaged {ROUNDS} times: check the link")


def _opened(device: str | Device) -> Device:
    if not isinstance(device, str):
        return device
    from ..device import open_device

    return open_device(device)


def _who() -> str:
    """Return user@host for the journal."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
