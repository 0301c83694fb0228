"""Batches prepared by threads while the network works."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from .distributed import rank, world_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .data.loader import Batch, MixedBatches, TrainBatches


class Prefetch:
    """This rank's batches of steps `start` ... `stop - 1`, in order.

    What a step sees is a function of seed and step, so threads change nothing but the time. `waited` is the seconds
    the caller has spent waiting for data.

    Args:
        batches: random access by step.
        start: first step.
        stop: step after the last.
        workers: threads; 0: prepare each batch when it is asked for.
    """

    def __init__(self, batches: TrainBatches | MixedBatches, start: int, stop: int, workers: int) -> None:
        self.batches = batches
        self.steps = range(start, stop)
        self.workers = workers
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        source = self._threaded() if self.workers else (self._draw(step) for step in self.steps)
        while True:
            began = time.perf_counter()
            batch = next(source, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _draw(self, step: int) -> Batch:
        return self.batches.batch_at(step, rank(), world_size())

    def _threaded(self) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
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
