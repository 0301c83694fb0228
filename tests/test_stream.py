"""Streams: order, bounds, drops, errors, and no thread left behind."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd._detections import Detections
from edgekd._stream import Stream
from edgekd.errors import ClosedError, ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

LIMIT_S = 10


def numbered(count: int) -> list[NDArray[np.uint8]]:
    return [np.full((2, 2, 3), index, np.uint8) for index in range(count)]


def number(frame: NDArray[np.uint8]) -> int:
    return int(frame[0, 0, 0])


def detections(value: float) -> Detections:
    boxes, scores = np.zeros((1, 4), np.float32), np.array([value], np.float32)
    return Detections(boxes, scores, np.zeros(1, np.int64), ("a",), (2, 2), {"infer": 1.0, "total": 1.0})


def seen(frame: NDArray[np.uint8]) -> Detections:
    return detections(number(frame))


def stream(predict: Callable[[Any], Detections], source: Any, **options: Any) -> Stream:
    return Stream(predict, source, **{"color": "bgr", "queue": 2, "drop": "auto", "workers": 2, **options})


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("edgekd-")}


def assert_nobody_is_left() -> None:
    end = time.monotonic() + LIMIT_S
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads()


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(0, 12),
    queue=st.integers(1, 4),
    workers=st.integers(1, 4),
    sleeps=st.lists(st.sampled_from([0, 0, 0.001, 0.004]), min_size=12, max_size=12),
)
def test_every_picture_once_and_in_order(count: int, queue: int, workers: int, sleeps: list[float]) -> None:
    def predict(frame: NDArray[np.uint8]) -> Detections:
        time.sleep(sleeps[number(frame)])
        return seen(frame)

    found = [
        (number(frame), r.scores[0]) for frame, r in stream(predict, numbered(count), queue=queue, workers=workers)
    ]
    assert found == [(index, index) for index in range(count)]
    assert_nobody_is_left()


def test_pictures_are_predicted_at_once() -> None:
    """Two workers meet inside predict; one alone would wait for ever."""
    barrier = threading.Barrier(2, timeout=LIMIT_S)

    def predict(frame: NDArray[np.uint8]) -> Detections:
        barrier.wait()
        return seen(frame)

    assert len(list(stream(predict, numbered(6)))) == 6


def test_reading_stays_ahead_but_not_far() -> None:
    read: list[int] = []

    def source() -> Iterator[NDArray[np.uint8]]:
        for index, frame in enumerate(numbered(50)):
            read.append(index)
            yield frame

    results = stream(seen, source(), queue=3, workers=2)
    next(results)
    time.sleep(0.1)
    assert 2 <= len(read) <= 1 + (3 + 2) + 3 + 1  # handed out, taken, waiting, in the reader's hand
    results.close()
    assert_nobody_is_left()


def test_a_slow_reader_of_a_live_source_gets_the_newest() -> None:
    """With "oldest", what waits is replaced: after the first picture comes one of the last."""
    gate = threading.Event()
    drained = threading.Event()

    def source() -> Iterator[NDArray[np.uint8]]:
        yield from numbered(20)
        drained.set()

    def predict(frame: NDArray[np.uint8]) -> Detections:
        gate.wait(LIMIT_S)
        return seen(frame)

    results = stream(predict, source(), queue=2, workers=1, drop="oldest")
    opener = threading.Thread(target=lambda: (drained.wait(LIMIT_S), gate.set()))
    opener.start()
    found = [number(frame) for frame, _ in results]
    opener.join()
    assert found[-2:] == [18, 19]
    assert found == sorted(found)
    assert len(found) + results.dropped == 20
    assert results.dropped >= 16


def test_broken_pictures_are_skipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    def predict(frame: NDArray[np.uint8]) -> Detections:
        if number(frame) == 3:
            raise ImageError("no good")
        return seen(frame)

    items: list[Any] = numbered(5)
    items.insert(1, np.zeros((2, 2), np.float64))
    with caplog.at_level(logging.WARNING, "edgekd.stream"):
        results = stream(predict, items)
        assert [number(frame) for frame, _ in results] == [0, 1, 2, 4]
    assert results.skipped == 2
    assert "item 1: the array is float64" in caplog.text
    assert "item 4: no good" in caplog.text


@pytest.mark.parametrize("error", [ClosedError("closed"), MemoryError("no room"), KeyboardInterrupt()])
def test_an_error_of_predict_ends_the_stream(error: BaseException) -> None:
    def predict(frame: NDArray[np.uint8]) -> Detections:
        if number(frame) == 3:
            raise error
        return seen(frame)

    got: list[int] = []
    with pytest.raises(type(error)):
        got.extend(number(frame) for frame, _ in stream(predict, numbered(9)))
    assert got == [0, 1, 2]
    assert_nobody_is_left()


def test_an_error_of_the_source_comes_after_the_pictures_before_it() -> None:
    def source() -> Iterator[NDArray[np.uint8]]:
        yield from numbered(4)
        raise RuntimeError("driver gone")

    got: list[int] = []
    with pytest.raises(RuntimeError, match="driver gone"):
        got.extend(number(frame) for frame, _ in stream(seen, source()))
    assert got == [0, 1, 2, 3]
    assert_nobody_is_left()


def endless(closed: threading.Event) -> Iterator[NDArray[np.uint8]]:
    try:
        while True:
            yield np.zeros((2, 2, 3), np.uint8)
    finally:
        closed.set()


@pytest.mark.parametrize("how", ["break", "close", "with", "raise", "collect"])
def test_who_leaves_early_leaves_nothing_behind(how: str) -> None:
    closed = threading.Event()
    results = stream(seen, endless(closed))
    next(results)
    if how == "break":
        for _ in results:
            break
        del results
    elif how == "close":
        results.close()
        results.close()
        assert next(results, None) is None
    elif how == "with":
        with results:
            next(results)
    elif how == "raise":
        with pytest.raises(ZeroDivisionError), results:
            raise ZeroDivisionError
    else:
        del results
    gc.collect()
    assert_nobody_is_left()
    gc.collect()
    assert closed.wait(LIMIT_S)


def test_close_from_another_thread_ends_who_waits_for_a_picture() -> None:
    may_go = threading.Event()

    def source() -> Iterator[NDArray[np.uint8]]:
        yield from numbered(1)
        may_go.wait(LIMIT_S)  # a camera without a picture

    results, got = stream(seen, source()), []
    consumer = threading.Thread(target=lambda: got.extend(number(frame) for frame, _ in results))
    consumer.start()
    end = time.monotonic() + LIMIT_S
    while not got and time.monotonic() < end:
        time.sleep(0.001)
    closing = [threading.Thread(target=results.close) for _ in range(3)]
    for thread in closing:
        thread.start()
    results._belt.stop.wait(LIMIT_S)
    may_go.set()
    for thread in [consumer, *closing]:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert got == [0]
    assert_nobody_is_left()
    assert next(results, None) is None


def test_close_in_a_signal_handler_amid_next_ends_the_stream() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: results.close())
    may_go = threading.Event()

    def source() -> Iterator[NDArray[np.uint8]]:
        yield from numbered(1)
        os.kill(os.getpid(), signal.SIGUSR1)
        may_go.wait(0.1)

    try:
        results = stream(seen, source())
        assert [number(frame) for frame, _ in results] in ([0], [])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert_nobody_is_left()


def test_close_and_next_at_once_are_no_error() -> None:
    for _ in range(50):
        results, errors = stream(seen, endless(threading.Event())), []

        def consume(results: Stream = results, errors: list[BaseException] = errors) -> None:
            try:
                for _ in results:
                    pass
            except BaseException as error:
                errors.append(error)

        consumer = threading.Thread(target=consume)
        consumer.start()
        next(results, None)
        results.close()
        consumer.join(LIMIT_S)
        assert not consumer.is_alive()
        assert not errors
    assert_nobody_is_left()


def test_nothing_is_started_before_the_first_picture_is_asked_for() -> None:
    results = stream(seen, numbered(3))
    assert not threads()
    results.close()


def test_timings_tell_where_the_time_went() -> None:
    def predict(frame: NDArray[np.uint8]) -> Detections:
        time.sleep(0.02)
        return seen(frame)

    *_, (_, last) = stream(predict, numbered(5), workers=1)
    timings = last.timings_ms
    assert timings["queue"] > 10
    assert timings["infer"] == 1.0
    assert timings["total"] == pytest.approx(sum(value for key, value in timings.items() if key != "total"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": "newest"}, "drop should be one of auto, oldest, never; got 'newest'"),
        ({"queue": 0}, "queue should be a whole number from 1 to 1024, got 0"),
        ({"workers": 1.5}, "workers should be a whole number"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stream(seen, numbered(1), **options)
