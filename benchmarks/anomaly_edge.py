"""Frames per second of both anomaly presets on one core: whole `predict` on a 1080p image, by teachers.

    python benchmarks/anomaly_edge.py

A few optimiser steps make each bundle, since weights do not change what it costs. Every case is a process of its own,
in turns with the others; float32, 256x256 pixels, on OpenVINO and LiteRT. Goal: 10 frames/s with the edge preset.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from distill_settings import MOBILENETV2, RESNET18, ROOT, SHARED
from machine import conditions, write

import edgekd
from edgekd._anomaly_presets import preset
from edgekd.profiling.run import peak_memory_bytes

DATA = SHARED / "mvtec_transistor_512"
TARGETS = {"openvino": "openvino", "LiteRT": "tflite"}
TEACHERS: dict[str, dict[str, str]] = {
    "the one in edgekd": {},
    "ResNet-18": {"resnet18": RESNET18["weights"]},
    "ResNet-18 and MobileNetV2": {"resnet18": RESNET18["weights"], "mobilenetv2-tf": MOBILENETV2["weights"]},
}
PRESETS = ("edge", "quality")
STEPS = 2
WARMUP = 5
GOAL_PER_SECOND = 10.0


def main() -> int:
    """Make the bundles, run all cases, print a table, write the result; 3 if the goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=60, help="timed calls of each process")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each case")
    parser.add_argument("--core", type=int, default=0, help="CPU core everything runs on")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "anomaly-edge")
    parser.add_argument("--one", nargs=2, metavar=("BUNDLE", "TARGET"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        os.sched_setaffinity(0, {args.core})
        print(json.dumps(timed(Path(args.one[0]), args.one[1], args.calls)))
        return 0
    cases = [(name, teachers, bundle(name, teachers, args.work)) for name in PRESETS for teachers in TEACHERS]
    found: dict[str, list[dict[str, Any]]] = {}
    load = [os.getloadavg()[0]]
    for _ in range(args.rounds):
        for name, teachers, path in cases:
            for engine, target in TARGETS.items():
                command = [sys.executable, __file__, "--one", str(path), target, "--calls", str(args.calls)]
                said = subprocess.run(
                    [*command, "--core", str(args.core)], check=True, capture_output=True, text=True
                ).stdout
                found.setdefault(f"{name}, {teachers}, {engine}", []).append(json.loads(said.splitlines()[-1]))
    load.append(os.getloadavg()[0])
    rows = {case: summary(parts) for case, parts in found.items()}
    for case, row in rows.items():
        print(f"{case:<45} {row['per_second']:6.1f} frames/s  {row['median_ms']:6.1f} ms  {row['peak_mib']:5.0f} MiB")
    goal = {"frames_per_second": GOAL_PER_SECOND, "case": "edge"}
    sizes = {f"{name}, {teachers}": path.stat().st_size for name, teachers, path in cases}
    result = {**conditions("openvino", "ai-edge-litert"), "image": "1920x1080", "network": "256x256, float32"}
    print(write("anomaly_edge", {**result, "load": load, "goal": goal, "bundle_bytes": sizes, "cases": rows}))
    return (
        0 if all(row["per_second"] >= GOAL_PER_SECOND for case, row in rows.items() if case.startswith("edge")) else 3
    )


def bundle(name: str, teachers: str, work: Path) -> Path:
    """Return a bundle of a preset with artifacts for both engines; make it if it is not there."""
    folder = work / f"{name}-{len(TEACHERS[teachers])}"
    path = folder / "model.bin"
    if not (folder / "built").exists():
        plan = preset(name, DATA, teacher_weights=TEACHERS[teachers])
        plan = dataclasses.replace(plan, train=dataclasses.replace(plan.train, steps=STEPS))
        edgekd.train(plan, folder, device="cpu", resume=False)
        edgekd.build(path, targets=list(TARGETS.values()))
        (folder / "built").touch()
    return path


def timed(path: Path, target: str, calls: int) -> dict[str, Any]:
    """Return the milliseconds of every call in this process, by stage, and its peak of memory."""
    image = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    samples: dict[str, list[float]] = {"wall": []}
    with edgekd.load(path, device=target, precision="fp32", threads=1) as detector:
        said = str(detector)
        for call in range(WARMUP + calls):
            began = time.perf_counter()
            found = detector.predict(image)
            wall = 1e3 * (time.perf_counter() - began)
            if call >= WARMUP:
                for stage, ms in {**found.timings_ms, "wall": wall}.items():
                    samples.setdefault(stage, []).append(round(ms, 4))
    return {"detector": said, "samples_ms": samples, "peak_bytes": peak_memory_bytes()}


def summary(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over all processes of a case, with every sample."""
    stages = parts[0]["samples_ms"]
    medians = {stage: statistics.median(ms for part in parts for ms in part["samples_ms"][stage]) for stage in stages}
    return {
        "detector": parts[0]["detector"],
        "per_second": round(1e3 / medians["wall"], 2),
        "median_ms": round(medians["wall"], 3),
        "stages_ms": {stage: round(ms, 3) for stage, ms in medians.items()},
        "peak_mib": round(max(part["peak_bytes"] for part in parts) / 2**20, 1),
        "processes": parts,
    }


if __name__ == "__main__":
    sys.exit(main())
