"""The board's program: `python -m edgekd._flash.board VERB`, a request on its input, lines of JSON on its output.

Needs what `edgekd.load` needs on the board, and `cryptography` where keys are set.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .._signature import key_id
from ..device import Disk
from ..errors import DeviceError, EdgekdError, GateError, UsageError
from . import wire
from .check import check_apart
from .chunks import Piece
from .facts import facts
from .lock import holder, locked
from .recovery import recover, trial
from .store import MODEL, MissingChunksError, Store, checked_chunks, require_whole, summary
from .transaction import RESTART_S, Check, Order, Transaction, shell
from .trust import allowed_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..device.fake import Program

JOURNAL_SHOWN = 20
MOST_NAMED = 30_000  # missing chunks in one answer, which is one line: the host cuts what is longer than 4 MiB
OFFERS = 3  # attempts to note a file that somebody else tidies up


class Board:
    """The verbs. Each takes the request's fields and returns the result's."""

    def __init__(self, store: Store, stdin: BinaryIO, tell: wire.Tell, check: Check, system: Path) -> None:
        """Take the store of one name, what the host sends behind the request, and what takes lines to it."""
        self.store, self.stdin, self.tell, self.check, self.system = store, stdin, tell, check, system

    def facts(self, _fields: dict[str, Any]) -> dict[str, Any]:
        """Say what this board is, and what is in service."""
        found = facts(self.store.root, self.system)
        return {**found, "in_service": summary(self.store, self.store.in_service())}

    def offer(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Note what a file consists of, and say which chunks are missing; of very many, the first.

        No lock is held while chunks come in: another flash of the same file may end and tidy up in between. Whoever
        then misses something is told so, and sends it again.
        """
        chunks = [Piece(sha256, 0, length) for sha256, length in checked_chunks(fields.get("chunks"))]
        self.store.prepare()
        for _ in range(OFFERS):
            with contextlib.suppress(FileNotFoundError):
                return {"missing": self.store.expect(str(fields.get("file")), chunks)[:MOST_NAMED]}
        raise DeviceError("the same file is being flashed by others again and again: try later")

    def receive(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Keep the chunks that are expected and whole. One that is neither is not kept, and is asked for again."""
        file = str(fields.get("file"))
        expected: set[str] = set()
        with contextlib.suppress(MissingChunksError):
            expected = {sha256 for sha256, _ in self.store.expected(file)}
        kept = refused = 0
        for sha256, content, fits in wire.read_frames(self.stdin):
            refused += 1
            if fits and sha256 in expected:
                with contextlib.suppress(FileNotFoundError):
                    self.store.disk.write_unsynced(self.store.incoming(file) / sha256, content)
                    kept, refused = kept + len(content), refused - 1
        return {"kept_bytes": kept, "refused": refused}

    def apply(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Run the transaction; `again` says that chunks are missing."""
        known = {name: fields[name] for name in Order.__dataclass_fields__ if name in fields}
        try:
            order = Order(**known)
            self.store.incoming(order.file)
        except TypeError as error:
            raise UsageError(f"the order is not complete: {error}") from error

        def say(step: str, state: str, detail: str) -> None:
            wire.reply(self.tell, step=step, state=state, detail=detail)

        try:
            return {**Transaction(self.store, order, self.check, say).run(), "model": self._model()}
        except MissingChunksError:
            return {"again": True}

    def _model(self) -> str:
        """Return the path to load on the board."""
        return str("/" / (self.store.current / MODEL).relative_to(self.system))

    def rollback(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return to an earlier release: it must be whole and pass its golden test here."""
        store, who, flash = self.store, str(fields.get("who", "")), str(fields.get("flash", ""))
        if not store.folder.is_dir():
            raise DeviceError(f"nothing was ever flashed as {store.name} below {store.root}")
        with locked(store.folder / "lock", who, float(fields.get("wait_s", 0))):
            recover(store, flash, who)
            before = store.in_service()
            wanted = _chosen(store, str(fields["to"])) if fields.get("to") else store.previous()
            if wanted is None:
                raise DeviceError(f"no earlier release of {store.name} is kept on this board: flash one")
            require_whole(store, wanted)
            self.check(store.release(wanted) / MODEL, 1)
            store.disk.link(store.current, f"releases/{wanted}")
            store.journal.add("rollback", "ok", f"from {before}", flash=flash, who=who, release=wanted)
            code = shell(fields.get("restart"), RESTART_S)
            if code:
                raise GateError(
                    f"release {wanted} is in service again, but the restart command ended with status {code}"
                )
            return {"release": wanted, "before": before, "record": summary(store, wanted)}

    def status(self, _fields: dict[str, Any]) -> dict[str, Any]:
        """Say what is in service, what else is kept, who may sign, what happened last. Changes nothing."""
        store = self.store
        now, previous = store.in_service(), store.previous()
        try:
            keys: dict[str, str] | str = {
                name: key_id(content) for name, content in allowed_keys(store.root / "keys").items()
            }
        except EdgekdError as error:
            keys = str(error)
        return {
            "in_service": summary(store, now), "whole": now is not None and store.whole(now), "previous": previous,
            "releases": [summary(store, name) for name in store.releases()], "trial": trial(store),
            "flashing": holder(store.folder / "lock"), "keys": keys,
            "journal": store.journal.entries()[-JOURNAL_SHOWN:], "model": self._model(),
        }  # fmt: skip


def _chosen(store: Store, start: str) -> str:
    """Return the release whose name begins so; the text itself if there is not exactly one."""
    found = [name for name in store.releases() if name.startswith(start)]
    return found[0] if len(found) == 1 else start


VERBS = ("facts", "offer", "receive", "apply", "rollback", "status")


def serve(
    argv: Sequence[str], stdin: BinaryIO, tell: wire.Tell, disk: Disk, system: Path, check: Check = check_apart
) -> int:
    """Answer one request.

    Args:
        argv: one verb.
        stdin: the request, and what follows it.
        tell: takes each line of the answer.
        disk: through which everything is changed.
        system: "/", or the folder that stands for it.
        check: golden test and timing.

    Returns:
        The exit status: that of the error, or 0.
    """
    try:
        if len(argv) != 1 or argv[0] not in VERBS:
            raise UsageError(f"expected one of {', '.join(VERBS)}; got {' '.join(argv) or 'nothing'}")
        fields = wire.read_request(stdin)
        root = Path(str(fields.get("root"))).expanduser()
        if not root.is_absolute():
            raise UsageError(f"--root should be an absolute path on the board, got {root}")
        store = Store(system / root.relative_to("/"), str(fields.get("name")), disk)
        verb: Callable[[dict[str, Any]], dict[str, Any]] = getattr(Board(store, stdin, tell, check, system), argv[0])
        wire.reply(tell, result=verb(fields))
    except EdgekdError as error:
        wire.reply_error(tell, error)
        return error.exit_code
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        wire.reply_error(tell, DeviceError(f"{error.strerror or error}{where}"))
        return DeviceError.exit_code
    return 0


def program(check: Check) -> Program:
    """Return `serve` as a program of a `FakeDevice`, with another check: one that starts no process."""

    def run(argv: Sequence[str], stdin: io.RawIOBase, tell: wire.Tell, disk: Disk, system: Path) -> int:
        return serve(argv, io.BufferedReader(stdin), tell, disk, system, check)

    return run


def _print(line: str) -> None:
    """Print for the host; one that is gone does not stop what was begun."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> int:
    """Serve one request on standard input and output, to the end even if the link breaks."""
    import signal

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return serve(sys.argv[1:], sys.stdin.buffer, _print, Disk(), Path("/"))


if __name__ == "__main__":
    status = main()
    with contextlib.suppress(OSError):  # what Python would flush at its end goes to a link that may be gone
        sys.stdout.close()
    sys.exit(status)
