"""What `import edgekd` costs over bare Python with NumPy, as whole processes run in turn. Goal: at most 0.15 s."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from machine import conditions, write

RUNS = 30
CASES = {"python + numpy": "import numpy", "python + numpy + edgekd": "import numpy, edgekd"}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    samples: dict[str, list[float]] = {name: [] for name in CASES}
    for run in range(RUNS + 1):
        for name, code in CASES.items():
            taken = seconds(code)
            if run:  # the first pair fills the page cache
                samples[name].append(taken)
    bare, ours = (statistics.median(values) for values in samples.values())
    extra = [b - a for a, b in zip(*samples.values(), strict=True)]
    result = {
        **conditions(),
        "what": "whole process, s; pairs run in turn",
        "samples_s": samples,
        "median_s": {"python + numpy": bare, "python + numpy + edgekd": ours},
        "added_s_median_of_pairs": statistics.median(extra),
        "goal_s": 0.15,
    }
    print(f"python + numpy          {bare:6.3f} s (median of {RUNS})")
    print(f"python + numpy + edgekd {ours:6.3f} s")
    print(f"import edgekd adds      {statistics.median(extra):6.3f} s (goal 0.150 s)")
    print(f"wrote {write('import_time', result)}")


if __name__ == "__main__":
    main()
