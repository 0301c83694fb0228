"""The transaction on the board: from received chunks to a committed release, or back to where it began.

Each step is journalled when it is done. Until `switch` nothing that is served changes; from `arm` on, whoever finds the
trial unfinished goes back; `commit` ends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._build import build
from .._bundle import Bundle
from ..errors import DeviceError, EdgekdError, GateError
from .check import Checked
from .lock import locked
from .recovery import STARTS_ALLOWED, arm, commit, drop_refused, recover, roll_back, starts
from .store import MODEL, MissingChunksError, Store, require_whole, summary
from .trust import allowed_keys, check_order, check_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

Check = Callable[[Path, int], Checked]
"""Runs golden test and timing of one bundle; see `check.check`."""
Tell = Callable[[str, str, str], None]
"""Told (step, state, detail)."""
POLL_S = 0.5
LOOKS = 3
"""At the times of both versions, before the new one is called slower."""
RESTART_S, HEALTH_S = 60, 10


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a flash was asked for; every field but the first three has the default of `edgekd flash`."""

    file: str
    flash: str
    who: str
    build: Sequence[str] = ()  # "target:precision", built on the board
    max_p99_ms: float | None = None
    max_slowdown: float = 0.5  # of the median against the version in service: 0.5 is half as slow again
    runs: int = 100
    watch_s: float = 5.0
    restart: str | None = None
    health: str | None = None
    allow_downgrade: bool = False
    keep: int = 3
    quota_bytes: int = 1 << 40
    wait_s: float = 30.0


@dataclass
class Transaction:
    """One flash on the board, under the lock of its name."""

    store: Store
    order: Order
    check: Check
    tell: Tell
    _facts: dict[str, Any] = field(default_factory=dict)
    _complete: bool = False
    _armed: bool = False

    @property
    def release(self) -> str:
        """The name of the release: of the file sent and of what is to be built from it."""
        words = [self.order.file, *sorted(self.order.build)]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]

    def run(self) -> dict[str, Any]:
        """Go through the steps. Whatever fails, what was in service stays, and the reason is in the journal.

        Returns:
            What is in service now, and what was before.

        Raises:
            EdgekdError: a step failed; the message names it.
            MissingChunksError: chunks have to be sent again; nothing was journalled.
        """
        store, order = self.store, self.order
        store.prepare()
        with locked(store.folder / "lock", order.who, order.wait_s):
            for line in recover(store, order.flash, order.who):
                self.tell("recover", "ok", line)
            before = store.in_service()
            if before == self.release:
                store.disk.remove(store.incoming(order.file))
                return {"release": before, "before": before, "changed": False, "record": summary(store, before)}
            try:
                for step in self._steps():
                    self._do(step, before)
            except BaseException:  # an interrupt as well
                self._undo()
                raise
            self._clean()
            return {
                "release": self.release, "before": before, "changed": True, "record": summary(store, self.release)
            }  # fmt: skip

    def _steps(self) -> tuple[Callable[[str | None], str], ...]:
        built = (self.build,) if self.order.build else ()
        tests = (self.golden, self.latency)
        return (self.assemble, self.verify, *built, *tests, self.arm, self.switch, self.watch, self.commit)

    def _clean(self) -> None:
        """Drop what nobody needs; the flash has succeeded whether or not this does."""
        with contextlib.suppress(OSError):
            self.store.disk.remove(self.store.incoming(self.order.file))
            dropped = self.store.drop_unused(self.order.keep, self.order.quota_bytes)
            self.store.journal.trim()
            if dropped:
                self._note("clean", "ok", f"dropped {', '.join(dropped)}")
                self.tell("clean", "ok", f"dropped {len(dropped)} old releases")

    def _do(self, step: Callable[[str | None], str], before: str | None) -> None:
        """Run one step, journal how it ended, and say so."""
        name = step.__name__
        self.tell(name, "begun", "")
        try:
            detail = step(before)
            with contextlib.suppress(OSError) if name == "commit" else contextlib.nullcontext():
                self._note(name, "ok", detail)  # what is committed stays; the next transaction adds a lost line
        except MissingChunksError:
            raise
        except (EdgekdError, OSError) as error:
            reason = str(error)
            with contextlib.suppress(OSError):  # a full disk: the host is told all the same
                self._note(name, "failed", reason)
            self.tell(name, "failed", reason)
            if isinstance(error, OSError):
                raise DeviceError(f"{name}: {error.strerror or error}; what was in service stays") from error
            raise type(error)(f"{name}: {reason}; what was in service stays") from error
        self.tell(name, "ok", detail)

    def _note(self, step: str, state: str, detail: str) -> None:
        order = self.order
        self.store.journal.add(step, state, detail, flash=order.flash, who=order.who, release=self.release)

    def _undo(self) -> None:
        """Go back, and make room: as far as the disk allows. What is left, the next transaction finds."""
        with contextlib.suppress(OSError):
            if self._armed:
                now = roll_back(self.store)
                shell(self.order.restart, RESTART_S)
                self.tell("roll back", "ok", f"in service: {now or 'nothing'}")
        with contextlib.suppress(OSError):
            drop_refused(self.store, self.release)
            self.store.disk.remove(self.store.staging)
            if self._complete:  # it was all here and was refused: nothing is left to go on with
                self.store.disk.remove(self.store.incoming(self.order.file))

    def assemble(self, _before: str | None) -> str:
        """Put the file together; every chunk and the whole are checked by hash."""
        store = self.store
        store.disk.folder(store.staging)
        store.assemble(self.order.file, store.staging / MODEL)
        self._complete = True
        return f"{(store.staging / MODEL).stat().st_size} bytes, SHA-256 {self.order.file[:16]}"

    def verify(self, before: str | None) -> str:
        """Check the container, the signature where keys are set, and that it is no downgrade."""
        keys = allowed_keys(self.store.root / "keys")
        with Bundle.read(self.store.staging / MODEL) as bundle:
            signed_by = check_signature(bundle, keys)
            if before is not None and not self.order.allow_downgrade:
                check_order(bundle.manifest.created, str(self.store.record(before).get("created", "")))
        self._facts |= {"sha256": self.order.file, "signed_by": signed_by, "flashed_by": self.order.who}
        return f"signed by {signed_by[:16]}" if signed_by else "this board asks for no signature"

    def build(self, _before: str | None) -> str:
        """Build the artifacts that are to be built here; the golden set decides which are kept."""
        pairs: dict[str, list[str]] = {}
        for words in self.order.build:
            target, _, precision = words.partition(":")
            pairs.setdefault(target, []).append(precision or "fp32")
        for target, precisions in pairs.items():
            build(self.store.staging / MODEL, targets=[target], precisions=precisions)
        return ", ".join(self.order.build)

    def golden(self, _before: str | None) -> str:
        """Run the golden set in a process of its own: the decisions must be those of the reference."""
        checked = self.check(self.store.staging / MODEL, self.order.runs)
        self._facts["check"] = {
            "target": checked.target, "precision": checked.precision, "compute": checked.compute,
            "p50_ms": checked.percentile(0.5), "p99_ms": checked.percentile(0.99), "samples_ms": checked.samples_ms,
        }  # fmt: skip
        return (
            f"{checked.target} {checked.precision}: {checked.same} decisions on {checked.images} images as they should "
            f"be, {checked.borderline} borderline"
        )

    def latency(self, before: str | None) -> str:
        """Compare the times of `predict` with the limit and with the version in service, measured now."""
        found, limit = self._facts["check"], self.order.max_p99_ms
        said = f"p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms of {self.order.runs} runs"
        if limit is not None and found["p99_ms"] > limit:
            raise GateError(f"{said}: more than --max-p99 {limit:g} ms")
        if before is None:
            return f"{said}; nothing in service to compare with"
        fresh = found["p50_ms"]
        for look in range(1, LOOKS + 1):  # other work may have fallen on one of the two: slower each time is slower
            try:
                old = self._median_ms(self.store.release(before))
            except EdgekdError as error:  # the new version may be the cure
                return f"{said}; the version in service does not run: {error}"
            if fresh <= old * (1 + self.order.max_slowdown):
                again = f"; in look {look} p50 {fresh:.2f} ms" if look > 1 else ""
                return f"{said}{again}; in service p50 {old:.2f} ms"
            if look < LOOKS:
                fresh = self._median_ms(self.store.staging)
        raise GateError(
            f"{said}: slower than the version in service (p50 {old:.2f} ms) by more than "
            f"{self.order.max_slowdown:.0%}, {LOOKS} times out of {LOOKS}; --max-slowdown allows more"
        )

    def _median_ms(self, release: Path) -> float:
        return self.check(release / MODEL, self.order.runs).percentile(0.5)

    def arm(self, before: str | None) -> str:
        """Move the release to its place, and prepare the way back."""
        store, target = self.store, self.store.release(self.release)
        store.describe(store.staging / MODEL, **self._facts)
        store.disk.remove(target)
        store.disk.rename(store.staging, target)
        require_whole(store, self.release)
        self._armed = True
        arm(store, self.release, before)
        return f"way back: {before or 'nothing in service'}"

    def switch(self, _before: str | None) -> str:
        """Let `current` lead to the new release, by one rename; then restart the service, if asked to."""
        self.store.disk.link(self.store.current, f"releases/{self.release}")
        if self.order.restart is None:
            return self.release
        code = shell(self.order.restart, RESTART_S)
        if code:
            raise GateError(f"the restart command ended with status {code}")
        return f"{self.release}; restarted"

    def watch(self, _before: str | None) -> str:
        """Wait and see: the service must not start again and again, and the health command must succeed."""
        deadline = time.monotonic() + self.order.watch_s
        while True:
            count = starts(self.store)
            if count > STARTS_ALLOWED:
                raise GateError(f"the service started {count} times within {self.order.watch_s:g} s: it crashes")
            code = shell(self.order.health, HEALTH_S)
            if code:
                raise GateError(f"the health command ended with status {code}")
            if time.monotonic() >= deadline:
                return f"{self.order.watch_s:g} s, in which the guard counted {count} starts"
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))

    def commit(self, _before: str | None) -> str:
        """Keep it. From here on nobody goes back by himself."""
        commit(self.store)
        self._armed = False
        return self.release


def shell(command: str | None, seconds: float) -> int:
    """Run the user's command; 0 if there is none, 124 if it took too long. It may hold secrets."""
    if command is None:
        return 0
    import subprocess

    try:
        done = subprocess.run(
            ["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124
    return done.returncode
