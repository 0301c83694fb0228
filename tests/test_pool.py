"""`Pool`: every call has one end, what waits is bounded, deadlines free their place."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd._pool import Pool
from edgekd.errors import ClosedError, DeadlineError, UsageError

LIMIT_S = 10


class Gate:
    """Work that starts, says so, and ends when it may."""

    def __init__(self) -> None:
        self.started, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.started.set()
        assert self.may_end.wait(LIMIT_S)
        return "done"


def blocked(pool: Pool) -> Gate:
    """Occupy a thread of the pool."""
    gate = Gate()
    gate.future = pool.submit(gate, None)  # type: ignore[attr-defined]
    assert gate.started.wait(LIMIT_S)
    return gate


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["quick", "raises", "slow", "late", "cancel"]), max_size=12), st.integers(1, 3))
def test_every_call_has_one_end_and_the_threads_stay(kinds: list[str], workers: int) -> None:
    pool = Pool(workers, waiting=2)

    def work(kind: str) -> str:
        if kind == "raises":
            raise ValueError(kind)
        time.sleep(0.003 if kind in ("slow", "late") else 0)
        return kind

    futures = [pool.submit(lambda kind=kind: work(kind), 1 if kind == "late" else None) for kind in kinds]  # type: ignore[misc]
    for kind, future in zip(kinds, futures, strict=True):
        if kind == "cancel":
            future.cancel()
    assert not wait(futures, LIMIT_S).not_done
    for kind, future in zip(kinds, futures, strict=True):
        if kind == "raises":
            assert isinstance(future.exception(), ValueError)
        elif kind == "late":
            assert future.exception() is None or isinstance(future.exception(), DeadlineError)
        elif not future.cancelled():
            assert future.result() == kind
    assert pool.submit(lambda: 7, None).result(LIMIT_S) == 7
    pool.close()
    assert pool.waiting == pool.running == 0
    assert not [thread for thread in pool._threads if thread.is_alive()]


def test_calls_run_at_once_and_in_turn() -> None:
    pool = Pool(2, waiting=8)
    meeting = threading.Barrier(2, timeout=LIMIT_S)
    assert {pool.submit(meeting.wait, None) for _ in range(2)}  # one thread alone would wait for ever
    gates = [blocked(pool), blocked(pool)]
    order: list[int] = []
    rest = [pool.submit(lambda n=n: order.append(n), None) for n in range(5)]  # type: ignore[misc]
    gates[0].may_end.set()
    wait(rest, LIMIT_S)
    gates[1].may_end.set()
    assert order == [0, 1, 2, 3, 4]
    pool.close()


def test_submit_waits_for_a_place_and_a_deadline_ends_that_too() -> None:
    pool = Pool(1, waiting=1)
    gate = blocked(pool)
    pool.submit(lambda: None, None)
    late = pool.submit(lambda: None, 20)
    with pytest.raises(DeadlineError, match=r"timeout_ms=20; 1 calls run and 1 wait"):
        late.result(0)
    placed = threading.Event()
    thread = threading.Thread(target=lambda: (pool.submit(lambda: None, None), placed.set()))
    thread.start()
    assert not placed.wait(0.05)
    gate.may_end.set()
    assert placed.wait(LIMIT_S)
    thread.join()
    assert not pool.submit(lambda: None, None, bounded=False).exception(LIMIT_S)
    pool.close()


def test_deadline_of_a_waiting_call_frees_its_place_and_it_never_runs() -> None:
    pool = Pool(1, waiting=1)
    gate = blocked(pool)
    ran = []
    late = pool.submit(lambda: ran.append(1), 20)
    assert isinstance(late.exception(LIMIT_S), DeadlineError)
    assert pool.waiting == 0
    after = pool.submit(lambda: "after", None)  # would wait for ever if the place were taken
    gate.may_end.set()
    assert after.result(LIMIT_S) == "after"
    assert not ran
    pool.close()


def test_deadline_of_a_running_call_is_told_in_time_and_its_result_is_dropped() -> None:
    pool = Pool(1, waiting=1)
    gate = Gate()
    start = time.monotonic()
    late = pool.submit(gate, 50)
    assert isinstance(late.exception(LIMIT_S), DeadlineError)
    assert 0.04 < time.monotonic() - start < 5
    gate.may_end.set()
    assert pool.submit(lambda: 1, None).result(LIMIT_S) == 1, "the thread serves on"
    pool.close()


def test_earlier_deadline_that_comes_later_is_told_first() -> None:
    pool = Pool(1, waiting=4)
    gate = blocked(pool)
    far, near = pool.submit(lambda: 1, 60_000), pool.submit(lambda: 2, 20)
    assert isinstance(near.exception(LIMIT_S), DeadlineError)
    gate.may_end.set()
    assert far.result(LIMIT_S) == 1
    pool.close()


def test_deadline_in_some_hundred_years_hinders_nobody() -> None:
    pool = Pool(1, waiting=1)
    gate = Gate()
    far = pool.submit(gate, 1e13)
    assert gate.started.wait(LIMIT_S)
    waiting = pool.submit(lambda: 1, 1e300)
    placed: list[object] = []
    thread = threading.Thread(target=lambda: placed.append(pool.submit(lambda: 2, 1e13)))  # waits for a place
    thread.start()
    near = pool.submit(lambda: 3, 20, bounded=False)
    assert isinstance(near.exception(LIMIT_S), DeadlineError), "who watches deadlines lives"
    gate.may_end.set()
    thread.join(LIMIT_S)
    assert len(placed) == 1
    assert (far.result(LIMIT_S), waiting.result(LIMIT_S)) == ("done", 1)
    pool.close()


def test_cancelled_call_gives_its_place_away() -> None:
    pool = Pool(1, waiting=1)
    gate = blocked(pool)
    first = pool.submit(lambda: 1, None)
    assert first.cancel()
    assert pool.waiting == 0
    second = pool.submit(lambda: 2, None)
    gate.may_end.set()
    assert second.result(LIMIT_S) == 2
    with pytest.raises(CancelledError):
        first.result(0)
    pool.close()


def test_close_ends_what_runs_with_its_result_and_what_waits_with_closed_error() -> None:
    pool = Pool(1, waiting=1)
    gate = blocked(pool)
    waiting = pool.submit(lambda: 1, None)
    outside: list[BaseException] = []

    def late() -> None:
        try:
            pool.submit(lambda: 2, None)  # waits for a place
        except ClosedError as error:
            outside.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    closing = threading.Thread(target=pool.close)
    closing.start()
    with pytest.raises(ClosedError, match="waited for its turn"):
        waiting.result(LIMIT_S)
    thread.join(LIMIT_S)
    assert len(outside) == 1
    assert closing.is_alive(), "close waits for what runs"
    gate.may_end.set()
    closing.join(LIMIT_S)
    assert not closing.is_alive()
    assert gate.future.result(0) == "done"  # type: ignore[attr-defined]
    with pytest.raises(ClosedError, match="load the bundle again"):
        pool.submit(lambda: 1, None)
    pool.close()


def test_call_that_submits_from_a_full_pool_does_not_wait_for_itself() -> None:
    pool = Pool(1, waiting=1)

    def outer() -> list[object]:
        return [pool.submit(lambda n=n: n, None) for n in range(5)]  # type: ignore[misc]

    inner = pool.submit(outer, None).result(LIMIT_S)
    assert [future.result(LIMIT_S) for future in inner] == [0, 1, 2, 3, 4]
    pool.close()


def test_callback_that_submits_and_waits_has_a_thread_started() -> None:
    pool = Pool(2, waiting=1)
    gate = blocked(pool)
    got: list[object] = []
    gate.future.add_done_callback(lambda _: got.append(pool.submit(lambda: 7, None).result(LIMIT_S)))  # type: ignore[attr-defined]
    gate.may_end.set()
    end = time.monotonic() + LIMIT_S
    while not got and time.monotonic() < end:
        time.sleep(0.01)
    pool.close()
    assert got == [7]


def test_threads_start_when_more_calls_wait_than_threads() -> None:
    pool = Pool(3, waiting=8)
    pool.submit(lambda: 1, None).result(LIMIT_S)
    end = time.monotonic() + LIMIT_S
    while not pool._idle and time.monotonic() < end:
        time.sleep(0.01)
    pool.submit(lambda: 1, None).result(LIMIT_S)
    assert len(pool._threads) == 1, "the one that waits takes it"
    gates = [blocked(pool) for _ in range(3)]
    assert len(pool._threads) == 3
    for gate in gates:
        gate.may_end.set()
    pool.close()


def test_pool_keeps_no_call_that_is_over() -> None:
    class Picture:
        def __call__(self) -> int:
            return 1

    pool, picture = Pool(1, waiting=1), Picture()
    gone = weakref.ref(picture)
    future = pool.submit(picture, 60_000)  # its deadline is far, and its future is held
    assert future.result(LIMIT_S) == 1
    del picture
    end = time.monotonic() + LIMIT_S
    while gone() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
    pool.close()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5"])
def test_timeout_that_is_no_number_of_milliseconds_is_refused(timeout: object) -> None:
    with pytest.raises(UsageError, match="timeout_ms should be a number of milliseconds above 0"):
        Pool(1, 1).submit(lambda: 1, timeout)  # type: ignore[arg-type]
