"""`Stream`: reading and predicting at the same time, in order, with bounded memory.

One thread reads, some predict, the caller takes the results in the order of the pictures. What waits to be predicted is
bounded: a live source drops its oldest waiting picture, another one waits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ._sources import Broken, open_source
from .errors import ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from ._detections import Detections
    from ._sources import Frame, Source

    Result = tuple[NDArray[np.uint8], Detections]

DROPS = ("auto", "oldest", "never")
JOIN_S = 5.0  # a thread that hangs in a driver longer than that is left behind
log = logging.getLogger("edgekd.stream")


class _Job:
    """One picture on its way."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.arrived = time.perf_counter()
        self.started = 0.0
        self.found: Detections | None = None
        self.error: BaseException | None = None
        self.done = False


class _Belt:
    """What the threads share: pictures that wait, and those taken, in their order."""

    def __init__(self, waiting: int, ahead: int, stop: threading.Event, *, drop: bool) -> None:
        """Hold at most `waiting` pictures that nobody has taken, and `ahead` taken ones whose turn has not come."""
        self.waiting: deque[_Job] = deque()
        self.taken: deque[_Job] = deque()
        self.stop = stop
        self.dropped = self.skipped = 0
        self.last: Frame | None = None
        self._room, self._ahead, self._drop = waiting, ahead, drop
        self._ended: BaseException | bool = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> bool:
        """Add a picture; False: nobody wants more."""
        with self._changed:
            while len(self.waiting) >= self._room and not self.stop.is_set():
                if self._drop:
                    self.waiting.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            self.waiting.append(_Job(frame))
            self._changed.notify_all()
            return not self.stop.is_set()

    def end(self, error: BaseException | None) -> None:
        """Say that no picture follows, and why if that is an error."""
        with self._changed:
            self._ended = error or True
            self._changed.notify_all()

    def take(self) -> _Job | None:
        """Return the next picture to predict; None: there is none any more."""
        with self._changed:
            while not self.stop.is_set():
                if self.waiting and len(self.taken) < self._ahead:
                    job = self.waiting.popleft()
                    job.started = time.perf_counter()
                    self.taken.append(job)
                    self._changed.notify_all()
                    return job
                if self._ended and not self.waiting:
                    return None
                self._changed.wait()
            return None

    def finish(self, job: _Job) -> None:
        """Say that a picture is done."""
        with self._changed:
            job.done = True
            self._changed.notify_all()

    def next(self) -> _Job | None:
        """Return the next picture that is done; None: that was the last, or nobody wants more.

        Raises:
            BaseException: what ended the reading, once all pictures before it were handed out.
        """
        with self._changed:
            while not self.stop.is_set() and not (self.taken and self.taken[0].done):
                if self._ended and not self.taken and not self.waiting:
                    if isinstance(self._ended, BaseException):
                        raise self._ended
                    return None
                self._changed.wait()
            if self.stop.is_set():
                return None
            job = self.taken.popleft()
            self._changed.notify_all()
            return job

    def skip(self, name: str, reason: str) -> None:
        """Count a picture that is passed over, and say so in the log."""
        with self._changed:
            self.skipped += 1
        log.warning("%s: %s", name, reason)

    def close(self) -> None:
        """Wake everybody up to go home."""
        self.stop.set()
        with self._changed:
            self._changed.notify_all()


class Stream:
    """Iterator over `(frame, detections)`; made by `Detector.stream`.

    Ends its threads at the end, on an exception, on `close`, or when nobody holds it any more.
    """

    def __init__(
        self, predict: Callable[[Any], Detections], source: Any, *, color: str, queue: int, drop: str, workers: int
    ) -> None:
        """Check the arguments; nothing is opened before the first picture is asked for."""
        if drop not in DROPS:
            raise UsageError(f"drop should be one of {', '.join(DROPS)}; got {drop!r}")
        for name, value in (("queue", queue), ("workers", workers)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1024:
                raise UsageError(f"{name} should be a whole number from 1 to 1024, got {value!r}")
        stop = threading.Event()
        opened = open_source(source, color, stop)
        dropping = opened.live if drop == "auto" else drop == "oldest"
        self._belt = _Belt(queue, workers + queue, stop, drop=dropping)
        self._results = _results(predict, opened, self._belt, workers)
        self._turn = threading.RLock()  # a generator cannot be asked and closed at once

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        with self._turn:
            return next(self._results)

    @property
    def dropped(self) -> int:
        """Pictures that were dropped because newer ones had come before their turn."""
        return self._belt.dropped

    @property
    def skipped(self) -> int:
        """Pictures that could not be read; the log `edgekd.stream` says why."""
        return self._belt.skipped

    @property
    def name(self) -> str:
        """Of the picture that came out last: "shots/a.png", "clip.mp4 #12", "item 3"; "" before the first."""
        return "" if self._belt.last is None else self._belt.last.name

    @property
    def fps(self) -> float | None:
        """Pictures a second as the source of the last picture says; None: it does not."""
        return None if self._belt.last is None else self._belt.last.fps

    def close(self) -> None:
        """Stop reading and predicting; a second call does nothing. Another thread that waits for a picture is told."""
        self._belt.close()
        with self._turn, contextlib.suppress(ValueError):  # a signal came amid `next`, which ends the threads itself
            self._results.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _results(
    predict: Callable[[Any], Detections], source: Source, belt: _Belt, workers: int
) -> Generator[Result, None, None]:
    """Start the threads, yield what they make, and end them. Holds no Stream: one that is dropped can be collected."""
    threads = [threading.Thread(target=_read, args=(source, belt), name="edgekd-read", daemon=True)]
    threads += [
        threading.Thread(target=_work, args=(predict, belt), name=f"edgekd-predict-{index}", daemon=True)
        for index in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        while (job := belt.next()) is not None:
            if isinstance(job.error, ImageError):
                belt.skip(job.frame.name, str(job.error))
            elif job.error is not None:
                raise job.error
            elif job.found is not None:
                belt.last = job.frame
                yield job.frame.pixels, _timed(job, job.found)
    finally:
        belt.close()
        for thread in threads:
            thread.join(JOIN_S)


def _read(source: Source, belt: _Belt) -> None:
    error = None
    try:
        for item in source.frames:
            if isinstance(item, Broken):
                belt.skip(*item)
            elif not belt.put(item):
                break
    except BaseException as caught:  # raised again where the results are taken
        error = caught
    finally:
        source.frames.close()  # releases the camera
        belt.end(error)


def _work(predict: Callable[[Any], Detections], belt: _Belt) -> None:
    while (job := belt.take()) is not None:
        try:
            job.found = predict(job.frame.pixels)
        except BaseException as caught:  # raised again where the results are taken
            job.error = caught
        belt.finish(job)


def _timed(job: _Job, found: Detections) -> Detections:
    """Return the detections with the time of reading, and that of waiting for a free worker."""
    stages = {**found.timings_ms, "decode": job.frame.read_ms, "queue": 1e3 * (job.started - job.arrived)}
    del stages["total"]
    return dataclasses.replace(found, timings_ms={**stages, "total": sum(stages.values())})
