"""The host's side of a flash: it sends what the board lacks; every decision is the board's own."""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .._bundle import Bundle
from .._remote import ask
from .._select import all_artifacts
from ..errors import DeviceError, UsageError
from . import wire
from .chunks import Piece, mapped, split
from .verbs import FlashReport, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ..device import Device
    from .verbs import Progress

MODULE = "edgekd._flash.board"
ROUNDS = 5  # of sending the same chunk, or of a transaction that lacks some
SKEW_S = 300.0
REQUIRED = ("board", "edgekd", "l4t", "machine", "power_mode", "python", "sm", "tensorrt")
RAM_MARGIN_BYTES, DISK_MARGIN_BYTES = 64 << 20, 16 << 20
LIMITS = {"max_p99_ms": 0, "max_slowdown": 0, "runs": 1, "watch_s": 0, "keep": 1, "quota_bytes": 0, "wait_s": 0}


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
        fields: Mapping[str, Any] | None = None,
        frames: Iterable[bytes] = (),
        told: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and return its result.

        Raises:
            EdgekdError: the board's own error, or DeviceError where there was no answer.
        """

        def listen(found: dict[str, Any]) -> None:
            if "step" in found and told is not None:
                told(found)

        def stdin() -> Iterable[bytes]:
            yield wire.request(**(fields or {}), root=self.root, name=self.name)
            yield from frames

        return ask(self.device, [self.python, "-m", MODULE, verb], stdin(), listen)


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

    def running(self, name: str, detail: str) -> None:
        if self.progress is not None:
            self.progress(Step(name, "running", detail))

    def end(self, name: str, detail: str) -> None:
        self.told({"step": name, "state": "ok", "detail": detail})


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the board is asked to do; the arguments of `flash` of the same names."""

    build: Sequence[str]
    max_p99_ms: float | None
    max_slowdown: float
    runs: int
    watch_s: float
    restart: str | None
    health: str | None
    allow_downgrade: bool
    keep: int
    quota_bytes: int
    wait_s: float

    def __post_init__(self) -> None:
        check_limits(vars(self))


def check_limits(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers that no gate could hold.

    Raises:
        UsageError: one is out of its range.
    """
    for name, low in LIMITS.items():
        value = arguments.get(name)
        if value is not None and not low <= value < math.inf:  # a NaN would pass every comparison of a gate
            raise UsageError(f"{name} should be a number from {low:g} on, got {value}")


def run(
    path: Path,
    talk: Conversation,
    wanted: Wanted,
    require: Mapping[str, str],
    progress: Progress | None,
    wheels: Path | None = None,
    sha256: str | None = None,
) -> FlashReport:
    """Do what `flash` says, with its errors."""
    steps = _Steps(progress)
    with Bundle.read(path) as bundle:
        targets = {item.target for item in all_artifacts(bundle)}
    built = {item.partition(":")[0] for item in wanted.build}
    with mapped(path) as view:
        size_bytes, file = len(view), hashlib.sha256(view).hexdigest()
        if sha256 not in (None, file):
            raise UsageError(f"{path} is not what it was: its SHA-256 is {file}, not {sha256}; nothing was sent")
        if wheels is not None:
            talk = replace(talk, python=_bootstrapped(talk, steps, wheels))
        steps.begin("preflight")
        facts = talk.ask("facts")
        served = (facts["in_service"] or {}).get("sha256") == file and not wanted.build  # then nothing is put together
        steps.end("preflight", preflight(facts, talk, targets, built, require, 0 if served else size_bytes))
        order = {"file": file, **ident(), **asdict(wanted)}
        sent, result = _transfer(talk, steps, view, order)
    return FlashReport(
        talk.device.name, talk.name, str(result["release"]), result["before"], bool(result["changed"]), size_bytes,
        sent, tuple(steps.done), facts, result.get("record") or {}, str(result["model"]),
    )  # fmt: skip


def _bootstrapped(talk: Conversation, steps: _Steps, wheels: Path) -> str:
    """Install edgekd on the board; return its interpreter there."""
    from .bootstrap import bootstrap

    steps.begin("bootstrap")
    found = bootstrap(talk.device, wheels, talk.root, talk.python, lambda line: steps.running("bootstrap", line))
    said = "there already" if found.known else f"edgekd {found.version}, {found.sent_bytes} bytes of wheels sent"
    steps.end("bootstrap", f"{found.python}: {said}")
    return found.python


def preflight(
    facts: Mapping[str, Any],
    talk: Conversation,
    targets: set[str],
    built: set[str],
    require: Mapping[str, str],
    size_bytes: int,
) -> str:
    """Refuse a board on which the flash would fail, before a byte is sent; return what is worth knowing about it.

    `targets`: of the bundle's artifacts; `built`: of those that are to be built there; `size_bytes`: what may have to
    be sent.

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
    unknown = f"its edgekd has no such target; possible: {', '.join(facts['targets'])}"
    reasons = {name: facts["targets"].get(name, unknown) for name in sorted(targets | built)}
    problems += [f"--build {name}: {reasons[name]}" for name in sorted(built) if reasons[name]]
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
        now, resent = _upload(talk, steps, view, pieces, order["file"])
        sent += now
        again = f"; {resent} chunks once more" if resent else ""
        steps.end("upload", f"{now} of {len(view)} bytes sent, the board had the rest{again}")
        result = talk.ask("apply", order, told=steps.told)
        if not result.get("again"):
            return sent, result
    raise DeviceError(f"{talk.device.name}: what it received was damaged {ROUNDS} times: check its disk and the link")


def _upload(talk: Conversation, steps: _Steps, view: memoryview, pieces: Sequence[Piece], file: str) -> tuple[int, int]:
    """Send until nothing is missing; return the bytes sent and how many chunks had to be sent again.

    The board names so many at a time, so that there is no end to the rounds that bring something new.
    """
    where = {piece.sha256: piece for piece in pieces}
    listed = [[piece.sha256, piece.length] for piece in pieces]
    times: Counter[str] = Counter()
    while True:
        missing = [where[sha256] for sha256 in talk.ask("offer", {"file": file, "chunks": listed})["missing"]]
        if not missing:
            again = sum(count - 1 for count in times.values())
            return sum(count * where[sha256].length for sha256, count in times.items()), again
        times.update(piece.sha256 for piece in missing)
        if max(times.values()) > ROUNDS:
            raise DeviceError(f"{talk.device.name}: chunks arrived damaged {ROUNDS} times: check the link")
        talk.ask("receive", {"file": file}, wire.frames(_told(steps, view, missing)))


def _told(steps: _Steps, view: memoryview, missing: Sequence[Piece]) -> Iterator[tuple[str, memoryview]]:
    """Yield chunks, and say how far they are, once for each percent."""
    total, sent, percent = sum(piece.length for piece in missing), 0, -1
    for piece in missing:
        if 100 * sent // total > percent:
            percent = 100 * sent // total
            steps.running("upload", f"{percent} % of {total} bytes")
        yield piece.sha256, view[piece.offset : piece.offset + piece.length]
        sent += piece.length


def ident() -> dict[str, str]:
    """Return who this is, for the journal, and a new name for what is begun."""
    return {"who": _who(), "flash": secrets.token_hex(4)}


def _who() -> str:
    """Return user@host for the journal."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
