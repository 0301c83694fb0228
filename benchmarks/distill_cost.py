"""What distillation costs: time and peak memory of a training step with each method, over teacher forward + plain step.

    python benchmarks/distill_cost.py            # the retina pair of the evidence; a process for each method; one JSON

The ratio is (step with the method) / (step alone + teacher's forward pass), medians of steps taken in turn in one
process; memory is the peak of resident memory of that process (CPU) or of allocated memory (GPU), over the plain
step's with the teacher looking.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from distill import SIZES
from distill_settings import METHODS
from machine import conditions, write

from edgekd._recipe import DistillConfig, InputConfig, ModelConfig, TrainConfig, build_section
from edgekd.profiling.run import peak_memory_bytes
from edgekd.training.distill import Distiller
from edgekd.training.methods import Scene
from edgekd.training.models import build_model
from edgekd.training.objective import Objective
from edgekd.training.optim import build_optimizer
from edgekd.training.teacher import Teacher, channels_of

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 3
GOAL = 1.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--pair", default="retina")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--methods", help="default: those that the pair is compared by")
    parser.add_argument("--one", help="measure this method in this process and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args)))
        return
    rows = {}
    methods = args.methods.split(",") if args.methods else SIZES[args.size][args.pair].methods
    for name in ("baseline", *(each for each in methods if METHODS[each])):
        command = [sys.executable, __file__, "--one", name, "--size", args.size, "--pair", args.pair]
        done = subprocess.run([*command, "--steps", str(args.steps)], capture_output=True, text=True, check=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        rows[name]["memory_ratio"] = rows[name]["peak_mib"] / rows["baseline"]["peak_mib"]
        print(
            f"{name}: {rows[name]['ratio']:.2f} of the time, {rows[name]['memory_ratio']:.2f} of the memory",
            file=sys.stderr,
        )
    what = f"pair {args.pair}, size {args.size}, bf16 autocast on a CPU (fp16 on a GPU), one thread"
    parts = [
        "distill_cost",
        *([args.size] if args.size != "small" else []),
        *([args.pair] if args.pair != "retina" else []),
    ]
    write(
        "_".join(parts),
        {"what": what, "goal": GOAL, "methods": rows, **conditions("torch")},
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds and mebibytes of one method."""
    torch.set_num_threads(1)
    pair = SIZES[args.size][args.pair]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    amp = torch.float16 if device.type == "cuda" else torch.bfloat16
    size = InputConfig(height=pair.size, width=pair.size)
    plain = {key: value for key, value in pair.teacher.items() if key not in ("weights", "stages", "input")}
    student, other = (
        build_model(build_section(ModelConfig, section, "model"), CLASSES, size, seed=0).to(device)
        for section in (pair.student, plain)
    )
    teacher = Teacher(other, size, {}).to(device)
    entries = [build_section(DistillConfig, entry, "distill") for entry in METHODS.get(args.one, [])]
    distiller = (
        Distiller(entries, channels_of(student), {"teacher": teacher.channels}, 0).to(device) if entries else None
    )
    images = torch.randint(0, 256, (pair.batch, 3, pair.size, pair.size), dtype=torch.uint8).to(device)
    pixels = torch.randn(pair.batch, 3, pair.size, pair.size).to(device).contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[20.0, 20, 90, 80], [120, 100, 200, 220], [30, 150, 60, 190]]).to(device)
    if student.box_columns == 5:  # read as centre, sides and angle
        boxes = torch.tensor([[55.0, 50, 70, 60, 0.3], [160, 160, 120, 80, -0.7], [45, 170, 40, 30, 1.2]]).to(device)
    labels = torch.arange(3).to(device)
    scene = Scene([boxes] * pair.batch, [labels] * pair.batch, pair.size, pair.size, 500, 1000)
    optimizer = build_optimizer([student, *([distiller] if distiller else [])], TrainConfig())
    alone, taught = Objective(student, None, amp), Objective(student, distiller, amp)
    needs_head = distiller is not None and distiller.needs_head("teacher")

    def step(objective: Objective, *, look: bool) -> None:
        shown = {"teacher": teacher.look(images, size, head=needs_head, amp=amp)} if look else {}
        total, _ = objective(pixels, scene, shown)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    def clock(work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - began)

    times: dict[str, list[float]] = {"alone": [], "look": [], "taught": []}
    for turn in range(args.steps + 2):
        found = {
            "alone": clock(lambda: step(alone, look=False)),
            "look": clock(lambda: teacher.look(images, size, head=needs_head, amp=amp)),
            "taught": clock(lambda: step(taught, look=True)),
        }
        for name, value in found.items():
            if turn >= 2:
                times[name].append(value)
    middle = {name: statistics.median(values) for name, values in times.items()}
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory_bytes()
    ratio = middle["taught"] / (middle["alone"] + middle["look"])
    return {"ratio": ratio, "peak_mib": peak / 2**20, "median_ms": middle, "samples_ms": times, "device": str(device)}


if __name__ == "__main__":
    main()
