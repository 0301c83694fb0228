"""Does memory grow or time creep over a million predictions? Is the first call after `warmup` like the next ones?

    python benchmarks/soak.py                   # 1 000 000 calls
    python benchmarks/soak.py --calls 50000

A small network of 100 objects (that of predict.py, at 160 px) on OpenVINO with one thread. Nine calls of ten are
`predict` on pictures of five sizes in turn, every tenth goes through `submit`; each chunk of a hundredth leaves its
resident memory and its latencies in results/soak.json. First calls are those of processes of their own, and so are
loads with and without a cache of compiled models; time of CPU is there too, which does not count what others took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import conditions, write
from predict import bundle

import edgekd

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE, CHUNKS, PROCESSES = 160, 100, 6
SHAPES = ((120, 160), (240, 320), (90, 200), (300, 100), (160, 160))
SETTLED = 0.1  # of the calls, before growth is counted: allocators fill their pools

FRESH = """
import json, sys, time
import numpy as np
import edgekd
image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
start = time.perf_counter()
detector = edgekd.load(sys.argv[1], device="openvino", threads=1, cache=sys.argv[2] or None)
load = time.perf_counter() - start
if sys.argv[3] == "warm":
    detector.warmup()
wall, cpu = [], []
for _ in range(200):
    start, before = time.perf_counter(), time.process_time()
    detector.predict(image)
    wall.append(1e3 * (time.perf_counter() - start))
    cpu.append(1e3 * (time.process_time() - before))
told = {"load_ms": 1e3 * load, "first_ms": wall[0], "steady_ms": sorted(wall[100:])[50]}
print(json.dumps({**told, "first_cpu_ms": cpu[0], "steady_cpu_ms": sorted(cpu[100:])[50]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        path = bundle(Path(folder), SIZE)
        starts = fresh_processes(path, Path(folder))
        rows: list[dict[str, float]] = []
        for row in soak(path, calls):
            rows.append(row)
            if len(rows) >= 20:  # so that a run that is stopped has shown something
                write("soak", result(rows, calls, starts))
    last = result(rows, calls, starts)
    write("soak", last)
    print(f"{calls} calls: {last['growth_bytes'] / 2**20:+.2f} MiB after the first tenth")
    for name, item in starts.items():
        first, steady = item["first_cpu_ms"], item["steady_cpu_ms"]
        print(f"{name:16} load {item['load_ms']:6.1f} ms; of CPU: first {first:.2f} ms, steady {steady:.2f} ms")


def result(rows: list[dict[str, float]], calls: int, starts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what there is so far; growth is counted after the first tenth of the calls that were made."""
    settled = [row for row in rows if row["calls"] >= SETTLED * rows[-1]["calls"]]
    part = max(len(rows) // 10, 1)
    return {
        "network": f"100 objects at {SIZE} px, OpenVINO fp32, one thread",
        "calls": rows[-1]["calls"],
        "calls_asked_for": calls,
        "chunks": rows,
        "growth_bytes": settled[-1]["rss_bytes"] - settled[0]["rss_bytes"],
        "growth_bytes_a_call": slope(settled),
        "p50_ms_first_and_last_tenth": [
            statistics.median(row["p50_ms"] for row in tenth) for tenth in (rows[:part], rows[-part:])
        ],
        "fresh_processes": starts,
        "load_average": os.getloadavg(),
        "note": "other work shared the two cores while this ran; memory does not depend on that, times do",
        **conditions("openvino"),
    }


def fresh_processes(path: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Load and predict in processes of their own, the ways in turn; medians and all samples."""
    ways = {"cold": ("", "cold"), "after warmup": ("", "warm"), "cached, warmup": (str(folder / "cache"), "warm")}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(PROCESSES + 1):
        for name, words in ways.items():
            ran = subprocess.run(
                [sys.executable, "-c", FRESH, str(path), *words], capture_output=True, text=True, check=True
            )
            samples[name].append(json.loads(ran.stdout))
    return {
        name: {
            **{key: statistics.median(row[key] for row in rows[1:]) for key in rows[0]},
            "first_over_steady": statistics.median(row["first_ms"] / row["steady_ms"] for row in rows[1:]),
            "first_over_steady_cpu": statistics.median(row["first_cpu_ms"] / row["steady_cpu_ms"] for row in rows[1:]),
            "samples": rows[1:],  # the first round filled the page cache, and the cache of compiled models
        }
        for name, rows in samples.items()
    }


def soak(path: Path, calls: int) -> Iterator[dict[str, float]]:
    """Call, and look at the memory after every hundredth part."""
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]
    chunk = max(calls // CHUNKS, 10)
    with edgekd.load(path, device="openvino", threads=1) as detector:
        detector.warmup()
        for number in range(CHUNKS):
            times = np.empty(chunk)
            for index in range(chunk):
                picture = pictures[index % len(pictures)]
                start = time.perf_counter()
                if index % 10:
                    detector.predict(picture)
                else:
                    detector.submit(picture, timeout_ms=60_000).result()
                times[index] = 1e3 * (time.perf_counter() - start)
            p50, p99 = np.percentile(times, [50, 99])
            yield {"calls": (number + 1) * chunk, "rss_bytes": resident(), "p50_ms": float(p50), "p99_ms": float(p99)}


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(rows: list[dict[str, float]]) -> float:
    """Return bytes a call, by least squares."""
    return float(np.polyfit([row["calls"] for row in rows], [row["rss_bytes"] for row in rows], 1)[0])


if __name__ == "__main__":
    main()
