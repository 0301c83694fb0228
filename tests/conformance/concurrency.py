"""What a detector does for many callers at once, on every target."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekd._detector import load
from edgekd.errors import ClosedError

from . import bundles

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd._detections import Detections
    from edgekd._detector import Detector

CALLERS = 6
CALLS = 12
SCORE = 1e-4
LIMIT_S = 60


def same(found: Detections, expected: Detections) -> bool:
    """Whether both have the same objects; a session may sum in another order from call to call."""
    return len(found) == len(expected) and bool(np.abs(np.sort(found.scores) - np.sort(expected.scores)).max() < SCORE)


def ways(detector: Detector) -> dict[str, Callable[[Any], Detections]]:
    """Return every way to get the detections of one picture."""

    def streamed(picture: Any) -> Detections:
        ((_, found),) = detector.stream([picture], conf=0.01)
        return found

    return {
        "predict": lambda picture: detector.predict(picture, conf=0.01),
        "list": lambda picture: detector.predict([picture, picture], conf=0.01)[1],
        "submit": lambda picture: detector.submit(picture, conf=0.01).result(LIMIT_S),
        "deadline": lambda picture: detector.submit(picture, conf=0.01, timeout_ms=1e3 * LIMIT_S).result(LIMIT_S),
        "apredict": lambda picture: asyncio.run(detector.apredict(picture, conf=0.01)),
        "stream": streamed,
    }


class ConcurrencyCases:
    """Inherited by every target that can run."""

    TARGET: str

    def test_hammered_from_many_threads_in_every_way_each_caller_gets_his_own_objects(self, path: Any) -> None:
        pictures = bundles.pictures(CALLERS)
        with load(path, device=self.TARGET) as detector:
            expected = [detector.predict(picture, conf=0.01) for picture in pictures]
            assert len({len(found) for found in expected}) > 1, "pictures that look alike to the network show nothing"
            barrier = threading.Barrier(CALLERS)

            def work(index: int) -> list[str]:
                barrier.wait()
                calls = list(ways(detector).items())
                turns = [calls[(index + turn) % len(calls)] for turn in range(CALLS)]
                return [name for name, call in turns if not same(call(pictures[index]), expected[index])]

            with ThreadPoolExecutor(CALLERS) as threads:
                assert [*threads.map(work, range(CALLERS))] == [[]] * CALLERS

    def test_closed_amid_calls_every_one_ends_in_a_result_or_closed_error(self, path: Any) -> None:
        detector = load(path, device=self.TARGET)
        picture = bundles.pictures(1)[0]
        futures = [detector.submit(picture) for _ in range(3)]
        ends: list[str] = []

        def work(call: Callable[[Any], Detections]) -> None:
            try:
                for _ in range(100_000):
                    call(picture)
            except ClosedError:
                ends.append("closed")

        calls = ways(detector)
        threads = [threading.Thread(target=work, args=(calls[name],)) for name in ("predict", "submit", "stream")]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        detector.close()
        for thread in threads:
            thread.join(LIMIT_S)
        assert ends == ["closed"] * 3
        assert not wait(futures, LIMIT_S).not_done
        with pytest.raises(ClosedError):
            detector.submit(picture)
