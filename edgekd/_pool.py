"""`Pool`: calls that run on a few threads, in turn, with deadlines; how many wait is bounded.

`concurrent.futures.ThreadPoolExecutor` would let any number wait and knows no deadlines.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from .errors import ClosedError, DeadlineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSED = "this detector was closed; load the bundle again: edgekd.load(...)"
JOIN_S = 60.0  # close waits so long for a call that runs


class _Call:
    """One call on its way."""

    def __init__(self, work: Callable[[], Any], timeout_ms: float | None) -> None:
        self.work: Callable[[], Any] | None = work
        self.future: Future[Any] = Future()
        self.timeout_ms = timeout_ms
        self.end = math.inf if timeout_ms is None else time.monotonic() + timeout_ms / 1e3

    def begin(self) -> bool:
        """Whether a call that was waiting is still wanted; said once, by who took it out of the queue."""
        return self.future.set_running_or_notify_cancel()

    def settle(self, result: Any = None, error: BaseException | None = None) -> None:
        """Give the future its end, unless it has one already: a deadline that passed, a caller who lost interest."""
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)


class Pool:
    """A few threads that take calls in turn. They hold no detector, so that one that is dropped can be collected."""

    def __init__(self, workers: int, waiting: int) -> None:
        """Run `workers` calls at once; `waiting` more may wait. Threads start when they are needed."""
        self._workers, self._room = workers, waiting
        self._waiting: deque[_Call] = deque()
        self._deadlines: list[tuple[float, int, weakref.ref[_Call]]] = []
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._watcher: threading.Thread | None = None
        self._running = self._idle = 0
        self._mine = threading.local()  # .call: what a thread of this pool runs
        self._closed = False
        lock = threading.RLock()
        self._changed, self._earlier = threading.Condition(lock), threading.Condition(lock)

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Calls that run now."""
        return self._running

    def submit(self, work: Callable[[], Any], timeout_ms: float | None, *, bounded: bool = True) -> Future[Any]:
        """Add a call.

        Args:
            work: is called without arguments.
            timeout_ms: from now until its result, waiting included; None: as long as it takes.
            bounded: wait here while as many calls wait as may. A caller that waits for the result anyway says no, and
                so does this for its own threads, which would wait for themselves.

        Raises:
            UsageError: `timeout_ms` is no positive number.
            ClosedError: after `close`, or while this waited for a place.
        """
        _check(timeout_ms)
        call = _Call(work, timeout_ms)
        with self._changed:
            bounded = bounded and threading.current_thread() not in self._threads
            while bounded and not self._closed and len(self._waiting) >= self._room:
                left = call.end - time.monotonic()
                if left <= 0:
                    call.settle(error=self._late(call))
                    return call.future
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            if self._closed:
                raise ClosedError(CLOSED)
            self._add(call)
        future, reference = call.future, weakref.ref(call)  # a future that holds its call would be a circle
        future.add_done_callback(lambda _: self._cancelled(reference()))
        return future

    def close(self, *, join: bool = True) -> None:
        """Let the calls that run finish and end those that wait in ClosedError; a second call does nothing."""
        with self._changed:
            self._closed = True
            refused = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            self._earlier.notify_all()
        for call in refused:
            if call.begin():
                call.settle(error=ClosedError("the detector was closed while this call waited for its turn"))
        for thread in [*self._threads, self._watcher] if join else ():
            if thread is not None and thread is not threading.current_thread():
                thread.join(JOIN_S)

    def check_wanted(self) -> None:
        """Say whether somebody still waits for the call that this thread runs: one that takes long asks now and then.

        Raises:
            DeadlineError: its time was over before it was done; nobody will see this error.
        """
        call: _Call | None = getattr(self._mine, "call", None)
        if call is not None and call.future.done():
            raise DeadlineError(f"given up: no result within timeout_ms={call.timeout_ms}")

    def _add(self, call: _Call) -> None:
        self._waiting.append(call)
        if len(self._waiting) > self._idle and len(self._threads) < self._workers:
            self._threads.append(_started(self._work, f"edgekd-call-{len(self._threads)}"))
        if call.end != math.inf:
            self._watcher = self._watcher or _started(self._watch, "edgekd-deadlines")
            heapq.heappush(self._deadlines, (call.end, next(self._numbers), weakref.ref(call)))
            self._earlier.notify_all()
        self._changed.notify_all()

    def _drop(self, call: _Call) -> bool:
        """Take a call out of the queue, if it is there."""
        with self._changed:
            if call not in self._waiting:
                return False
            self._waiting.remove(call)
            self._changed.notify_all()
            return True

    def _cancelled(self, call: _Call | None) -> None:
        """Give the place of a call away that was waiting."""
        if call is not None and self._drop(call):
            call.begin()

    def _late(self, call: _Call) -> DeadlineError:
        return DeadlineError(
            f"no result within timeout_ms={call.timeout_ms:g}; {self._running} calls run and {len(self._waiting)} "
            "wait: send fewer at once, or give them longer"
        )

    def _take(self) -> _Call | None:
        """Return the next call; None: the pool was closed."""
        with self._changed:
            while not self._closed:
                while self._waiting:
                    call = self._waiting.popleft()
                    self._changed.notify_all()
                    if call.begin():
                        self._running += 1
                        return call
                self._idle += 1  # a thread that runs callbacks of a future is not
                self._changed.wait()
                self._idle -= 1
            return None

    def _work(self) -> None:
        while (call := self._take()) is not None:
            work, call.work = call.work, None  # a deadline that is far keeps no picture
            result, error = None, None
            self._mine.call = call
            try:
                result = work() if work is not None else None
            except BaseException as caught:  # raised again where the result is asked for
                error = caught
            self._mine.call = None
            with self._changed:
                self._running -= 1
            call.settle(result, error)
            del call, work, result, error

    def _watch(self) -> None:
        """End the calls whose time is over, when it is."""
        while True:
            with self._changed:
                while not self._closed and (left := self._next_s()) > 0:
                    self._earlier.wait(min(left, threading.TIMEOUT_MAX))
                if self._closed:
                    return
                call = heapq.heappop(self._deadlines)[2]()
                error = None if call is None else self._late(call)
                waited = call is not None and self._drop(call)
            if call is not None and (not waited or call.begin()):
                call.settle(error=error)  # outside the lock: callbacks do as they like
            del call, error

    def _next_s(self) -> float:
        return self._deadlines[0][0] - time.monotonic() if self._deadlines else math.inf


def _started(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def _check(timeout_ms: float | None) -> None:
    if timeout_ms is None:
        return
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)) or not 0 < timeout_ms < math.inf:
        raise UsageError(f"timeout_ms should be a number of milliseconds above 0, or None; got {timeout_ms!r}")
