"""What `edgekd.load` costs in a fresh process, with and without `cache=`. Goal: at most 0.3 s with a filled cache.

python benchmarks/load_time.py model.bin
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import conditions, write

import edgekd

RUNS = 12
GOAL_S = 0.3
CODE = """
import json, sys, time
import edgekd
start, worked = time.perf_counter(), time.process_time()
detector = edgekd.load(sys.argv[1], device=sys.argv[2], threads=1, cache=sys.argv[3] or None)
print(json.dumps({"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - worked}))
detector.close()
"""


def loaded(bundle: str, device: str, cache: str) -> dict[str, float]:
    """Return seconds of one load, its engine's import included, in a process that has only imported edgekd."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, bundle, device, cache], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="model.bin with artifacts for openvino and tflite")
    args = parser.parse_args()
    name = edgekd.inspect(args.bundle).manifest.name
    with tempfile.TemporaryDirectory() as cache:
        cases = {
            "openvino": ("openvino", ""), "openvino, cache": ("openvino", cache), "tflite": ("tflite", ""),
            "reference": ("reference", ""),
        }  # fmt: skip
        samples: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
        for run in range(RUNS + 1):
            for case, (device, folder) in cases.items():
                found = loaded(args.bundle, device, folder)
                if run:  # the first fills the page cache, and the engine's
                    samples[case].append(found)
    medians = {
        case: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for case, rows in samples.items()
    }
    for case, row in medians.items():
        print(f"{case:<16} {row['wall_s']:.3f} s, {row['cpu_s']:.3f} s of them CPU (median of {RUNS})")
    print(f"goal with a cache: {GOAL_S} s")
    result = {
        **conditions("openvino", "ai-edge-litert", "onnxruntime"),
        "bundle": {"name": name, "bytes": Path(args.bundle).stat().st_size},
        "what": "edgekd.load in a fresh process, s, in turn",
        "goal_s": GOAL_S,
        "samples": samples,
        "median": medians,
    }
    print(f"wrote {write('load_time', result)}")


if __name__ == "__main__":
    main()
