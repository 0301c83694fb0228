"""`Engine`: a started session and who uses it: calls that are counted, threads for `submit`, close, and fork."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ClosedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._bundle import Bundle
    from ._pool import Pool
    from ._session import Session

QUIET_S = 10.0  # a fork waits no longer for calls that run: the one that forks may be amid one
CLOSED = "this detector was closed; load the bundle again: edgekd.load(...)"


class Engine:
    """A session that is closed when nobody uses it any more, and started again in the child of a fork."""

    def __init__(self, session: Session, start: Callable[[], Session] | None) -> None:
        """Own a session; `start` makes another like it, None: that cannot be."""
        self._session: Session | None = session
        self._start = start
        self._closed = False
        self._reset()
        _engines.add(self)

    def _reset(self) -> None:
        self._pool: Pool | None = None
        self._busy = 0
        self._forking = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def use(self) -> Iterator[Session]:
        """Lend the session for a call, which `close` waits for.

        Raises:
            ClosedError: after `close`.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self.check_open()
            if self._session is None:
                if self._start is None:
                    raise ClosedError("the engine stayed in the parent process; load the bundle in this one")
                self._session = self._start()
            self._busy += 1
            session = self._session
        try:
            yield session
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def check_open(self) -> None:
        """Refuse what comes after `close`.

        Raises:
            ClosedError: after `close`.
        """
        if self._closed:
            raise ClosedError(CLOSED)

    def check_wanted(self) -> None:
        """Say whether to go on: a call that takes long asks now and then.

        Raises:
            ClosedError: `close` waits for it.
            DeadlineError: it runs in a thread of the pool, and its time is over.
        """
        self.check_open()
        if self._pool is not None:
            self._pool.check_wanted()

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return 0 if self._pool is None else self._pool.waiting

    def workers(self) -> int:
        """Return how many calls at once are worth it: what the engine serves, and one that prepares its picture."""
        with self.use() as session:
            return session.parallel + 1

    def pool(self) -> Pool:
        """Return the threads for calls that somebody waits for elsewhere; made when first asked for."""
        from ._pool import Pool  # what `predict` does without

        workers = self.workers()
        with self._changed:
            self.check_open()
            if self._pool is None:
                self._pool = Pool(workers, 2 * workers)
                weakref.finalize(self, self._pool.close, join=False).atexit = False
            return self._pool

    def close(self) -> bool:
        """Refuse new calls, wait for those that run, and free the session; False: that was done before."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
        if self._pool is not None:
            self._pool.close()
        with self._changed:
            self._changed.wait_for(lambda: self._busy == 0)
        if self._session is not None:
            self._session.close()
        return True

    def pause(self) -> None:
        """Before a fork: wait for the calls that run. A runtime has locks of its own, and one that is held stays so."""
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: self._busy == 0, QUIET_S)

    def resume(self) -> None:
        """After a fork, in the parent."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def leave_behind(self) -> None:
        """In the child of a fork: whatever has threads or locks is the parent's."""
        _left_behind.append((self._session, self._pool, self._changed))
        self._session = None
        self._reset()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_left_behind: list[object] = []  # freeing an engine of the parent would wait for threads that are not here


def _before_fork() -> None:
    for engine in list(_engines):
        engine.pause()


def _after_fork_in_parent() -> None:
    for engine in list(_engines):
        engine.resume()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.leave_behind()


def _at_exit() -> None:
    """Let calls that run in other threads finish: the interpreter would end them inside the engine, and abort."""
    for engine in list(_engines):
        engine.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def cache_folder(cache: str | Path | None, bundle: Bundle) -> Path | None:
    """Return a folder for what a target compiles, made if need be; None: it cannot be made here, so nothing is kept.

    Raises:
        UsageError: it is a file, or the folder of a signed bundle, beside which nothing unsigned should lie.
    """
    if cache is None:
        return None
    folder = Path(cache)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"cache={str(cache)!r} is a file; it should be a folder")
    beside = bundle.path is not None and folder.resolve() == Path(bundle.path).resolve().parent
    if bundle.signature is not None and beside:
        raise UsageError(
            f"cache={str(cache)!r} holds the signed bundle, whose signature does not cover what would be kept beside "
            "it; name another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # a read-only system: loading goes on without
    return folder
