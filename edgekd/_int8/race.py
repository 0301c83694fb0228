"""Latency of several engines on the same input, in turn, so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from .._session import Session

WARMUP = 3


def race(sessions: Mapping[str, Session], pixels: NDArray[np.float32], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of bare inference, `rounds` a session, by its name.

    Args:
        sessions: engines of one network.
        pixels: `(1, 3, H, W)` float32.
        rounds: each runs every engine once.
    """
    outputs = {name: session.infer(pixels) for name, session in sessions.items()}
    for name, session in sessions.items():
        for _ in range(WARMUP):
            session.infer(pixels, outputs[name])
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.infer(pixels, outputs[name])
            found[name].append(round(1e3 * (time.perf_counter() - start), 4))
    return found


def median_ms(samples: list[float]) -> float:
    """Return the median of some milliseconds."""
    return statistics.median(samples)


def fastest_rival(times: Mapping[str, list[float]]) -> tuple[str, float]:
    """Return the fastest precision beside int8, and how many times as long it takes."""
    ours = median_ms(times["int8"])
    name = min((name for name in times if name != "int8"), key=lambda name: median_ms(times[name]))
    return name, median_ms(times[name]) / ours
