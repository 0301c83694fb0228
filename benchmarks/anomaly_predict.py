"""What `predict` adds to an anomaly network: stretching the image before it, measuring regions after it; on one core.

    python benchmarks/anomaly_predict.py

The engine is scripted: it gives a raw 64x64 map at once, so `predict`'s own time is what is measured. Maps are those of
a normal image, of one with three defects and of one that is anomalous all over; every result is `ungated`, and dropped
before the next, which takes the memory of its map and mask. Raw samples are in results/anomaly_predict.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import numpy as np
from machine import conditions, write

from edgekd import ops
from edgekd._detector import Detector, DetectorInfo
from edgekd._manifest import InputSpec, Manifest, OutputSpec, Thresholds
from edgekd._session import SessionInfo

SIDE, MAP = 256, 64
SIZES = {"1080p": (1080, 1920), "512x512": (512, 512)}
GOAL_MS = 3.0  # of the regions, at 1080p
WARMUP = 10
INFO = SessionInfo("scripted", "fp32", "fp32", "cpu", "none")


def maps() -> dict[str, np.ndarray]:
    """Return raw maps (64, 64) float32 by what they show."""
    rng = np.random.default_rng(0)
    noise = (0.1 + 0.02 * rng.random((MAP, MAP))).astype(np.float32)
    defects = noise.copy()
    for y, x, size in ((8, 8, 4), (30, 40, 10), (50, 12, 2)):
        defects[y : y + size, x : x + size] += 1.0
    return {"normal": noise, "three defects": defects, "anomalous all over": noise + rng.random((MAP, MAP)) * 0.8}


def manifest() -> Manifest:
    """Return what is said about a network of that map."""
    return Manifest(
        name="scripted",
        task="anomaly",
        classes=("defect",),
        input=InputSpec(height=SIDE, width=SIDE, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        outputs=(
            OutputSpec(name="map", kind="map", shape=(1, MAP, MAP)),
            OutputSpec(name="score", kind="score", shape=()),
        ),
        thresholds=Thresholds(image=0.5, pixel=0.5, low=0.1, alpha=0.05, pixel_alpha=1e-3, images=20, sigma=1.0),
    )


class Scripted:
    """Gives one map for any image."""

    info = INFO

    def __init__(self, raw: np.ndarray) -> None:
        """Keep the map."""
        self.outputs = raw[None, None].astype(np.float32), np.array([1.0], np.float32)

    def infer(self, _pixels: np.ndarray, _out: object = None) -> tuple[np.ndarray, ...]:
        """Return it."""
        return self.outputs

    def close(self) -> None:
        """Do nothing."""


def measure(raw: np.ndarray, size: tuple[int, int], runs: int) -> dict[str, Any]:
    """Return the samples of each stage in milliseconds, their medians, and how many regions there are."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    samples: dict[str, list[float]] = {"wall": []}
    with Detector(manifest(), Scripted(raw), DetectorInfo(INFO, "scripted")) as detector:
        for run in range(runs + WARMUP):
            found = None
            start = time.perf_counter()
            found = detector.predict(image, ungated=True)
            wall = 1e3 * (time.perf_counter() - start)
            if run >= WARMUP:
                for name, value in {**found.timings_ms, "wall": wall}.items():
                    samples.setdefault(name, []).append(value)
    median = {name: float(np.median(values)) for name, values in samples.items()}
    assert found is not None
    return {"regions": len(found), "median_ms": median, "samples_ms": samples}


def main() -> int:
    """Run all cases, print a table, write the result; 3 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="timed calls per case")
    parser.add_argument("--core", type=int, default=0, help="CPU core everything runs on")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    cases = {}
    print(f"{'image':<9}{'map':<20}{'regions':>8}{'stretch ms':>12}{'regions ms':>12}{'predict ms':>12}")
    for name, size in SIZES.items():
        for kind, raw in maps().items():
            case = cases[f"{name}, {kind}"] = measure(raw, size, options.runs)
            median = case["median_ms"]
            timed = "".join(f"{median[stage]:>12.3f}" for stage in ("letterbox", "regions", "wall"))
            print(f"{name:<9}{kind:<20}{case['regions']:>8}{timed}")
    result = {**conditions(), "kernels": ops.implementation(), "load": os.getloadavg()[0], "goal_ms": GOAL_MS}
    print(f"\n{write('anomaly_predict', {**result, 'cases': cases})}; load {result['load']:.1f}")
    return 0 if cases["1080p, three defects"]["median_ms"]["regions"] <= GOAL_MS else 3


if __name__ == "__main__":
    sys.exit(main())
