"""Batches prepared by threads while the network works."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .distributed import rank, world_size

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Batches by step number."""

    def batch_at(self, step: int, rank: int = 0, world: int = 1) -> T_co:
        """Return the batch of a step, or a rank's slice of it."""
        ...


class Prefetch(Generic[T]):
    """This rank's batches of steps `start` ... `stop - 1`, in order.

    What a step sees is a function of seed and step, so threads change nothing but the time. `waited` is the seconds
    the caller has spent waiting for data.

    Args:
        batches: random access by step.
        start: first step.
        stop: step after the last.
        workers: threads; 0: prepare each batch when it is asked for.
    """

    def __init__(self, batches: Source[T], start: int, stop: int, workers: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)
        self.workers = workers
        self.waited = 0.0

    def __iter__(self) -> Iterator[T]:
        source = self._threaded() if self.workers else (self._draw(step) for step in self.steps)
        while True:
            began = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            finally:
                self.waited += time.perf_counter() - began
            yield batch

    def _draw(self, step: int) -> T:
        return self.batches.batch_at(step, rank(), world_size())

    def _threaded(self) -> Iterator[T]:
        waiting: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="edgekd-data") as pool:
            try:
                for step in self.steps:
                    waiting.append(pool.submit(self._draw, step))
                    if len(waiting) > self.workers + 1:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(cancel_futures=True)
