"""`measure`: call `predict` again and again, as a user would, and keep every sample."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from .record import TOTAL
from .validity import problems
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._detections import Detections
    from .sensors import Sensors


class Pace(NamedTuple):
    """How long and how fast: until `calls` and `seconds` are both reached; `fps` times a second, None: no pause."""

    calls: int
    seconds: float
    fps: float | None


class Measured(NamedTuple):
    """Samples and conditions, as in `Profile`."""

    start_s: list[float]
    stages_ms: dict[str, list[float]]
    conditions: dict[str, list[float]]
    problems: list[str]


def measure(
    predict: Callable[[Any], Detections],
    images: Sequence[Any],
    pace: Pace,
    sensors: Sensors,
    progress: Callable[[float, int], None] | None = None,
) -> Measured:
    """Show the images in turn and keep what each call took.

    Args:
        predict: returns detections with `timings_ms`.
        images: at least one.
        pace: how long and how fast.
        sensors: read meanwhile.
        progress: told the share that is done, and the number of calls, about once a second.
    """
    rows: list[tuple[float, float, dict[str, float]]] = []
    with Watch(sensors) as watch:
        begin = told = time.perf_counter()
        while len(rows) < pace.calls or time.perf_counter() - begin < pace.seconds:
            if pace.fps:
                time.sleep(max(0.0, begin + len(rows) / pace.fps - time.perf_counter()))
            start = time.perf_counter()
            found = predict(images[len(rows) % len(images)])
            end = time.perf_counter()
            rows.append((start - begin, 1e3 * (end - start), dict(found.timings_ms)))
            if progress is not None and end - told > 1:
                told = end
                progress(min(len(rows) / max(pace.calls, 1), (end - begin) / max(pace.seconds, 1e-9)), len(rows))
    conditions = _columns(watch.rows, watch.start_s - begin)
    return Measured([row[0] for row in rows], _stages(rows), conditions, problems(conditions, len(rows)))


def _stages(rows: Sequence[tuple[float, float, dict[str, float]]]) -> dict[str, list[float]]:
    """Return the stages by name, with what of the wall-clock none of them accounts for."""
    names = [name for name in rows[0][2] if name != TOTAL]
    stages = {name: [row[2].get(name, 0.0) for row in rows] for name in names}
    other = [total - sum(values.get(name, 0.0) for name in names) for _, total, values in rows]
    return {**stages, "other": other, TOTAL: [total for _, total, _ in rows]}


def _columns(rows: Sequence[tuple[float, dict[str, float]]], shift_s: float) -> dict[str, list[float]]:
    """Return what was read as columns; a sensor that failed once is left out."""
    names = set(rows[0][1]).intersection(*(values for _, values in rows))
    kept = [name for name in rows[0][1] if name in names]
    return {"time_s": [at + shift_s for at, _ in rows], **{name: [row[1][name] for row in rows] for name in kept}}


def machine(sensors: Sensors, packages: Sequence[str] = ("numpy",)) -> dict[str, Any]:
    """Return what a figure is worth nothing without: processor, system, versions, settings, date."""
    from importlib import metadata

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("edgekd", *packages)},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        **sensors.settings(),
    }


def peak_memory_bytes() -> int:
    """Return the most that this program ever held in memory.

    On Linux by the kernel's VmHWM: `ru_maxrss` lives on through exec, so that a program that a large one has started
    (a training, a test run) would be told the other's.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123 - as below
            return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123 - a handful of lines of a large file
            named = [line.partition(":")[2].strip() for line in file if line.startswith(("model name", "Model"))]
    except OSError:
        return platform.processor()
    return named[0] if named else platform.processor()
