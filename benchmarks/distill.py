"""Training evidence: a student alone and the same student distilled, same budget, several seeds.

    python benchmarks/distill.py run --data bccd,sixray,xray --seeds 0,1,2   # trains what is missing, one JSON a run
    python benchmarks/distill.py table                                        # writes the tables of docs/results.md
    python benchmarks/distill.py ship                                         # the synthetic teacher, for example 01

A run that has its JSON is skipped; a killed one resumes from its checkpoint. The teacher is trained once per data set
and kept in the work folder. Every figure is of the last checkpoint on the test split, which nothing was chosen on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from machine import RESULTS, conditions, write

import edgekd
from edgekd._recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("EDGEKD_DATA", ROOT.parent / "shared" / "data"))
METHODS: dict[str, list[dict[str, Any]]] = {
    "baseline": [],
    "pkd": [{"method": "pkd", "weight": 0.2}],
}
STUDENT = {"backbone": "csp-tiny", "width": 0.5, "neck": "pafpn", "channels": 48, "head": "dense"}
TEACHER = {
    "backbone": "resnet18", "neck": "pafpn", "channels": 96, "head": "dense",
    "weights": str(SHARED / "weights" / "resnet18_imagenet1k_v1_conv1_to_layer3.npz"), "stages": "layer3",
}  # fmt: skip
XRAY_TEACHER = {"backbone": "resnet18", "width": 0.5, "neck": "pafpn", "channels": 64, "head": "dense"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One data set with the budgets that fit it; `small` is what two CPU cores can do."""

    train: Path
    val: Path
    test: Path
    size: int
    student_steps: int
    teacher_steps: int
    teacher: dict[str, Any]
    teacher_train: Path  # the same images, but for the synthetic set, where scenes are free
    note: str


def settings(work: Path) -> dict[str, Setting]:
    """Return every data set by name."""
    bccd, sixray, xray = SHARED / "bccd" / "ImageSets" / "Main", SHARED / "sixray_mini", work / "data" / "xray"
    return {
        "bccd": Setting(
            bccd / "train.txt", bccd / "val.txt", bccd / "test.txt", 256, 600, 1200, TEACHER, bccd / "train.txt",
            "blood cells, 205 training images, test split of 72",
        ),
        "sixray": Setting(
            sixray / "train.txt", sixray / "val.txt", sixray / "test.txt", 256, 2000, 2000, TEACHER,
            sixray / "train.txt",
            "SIXray subset, 364 training images, test split of 52",
        ),
        "xray": Setting(
            xray / "train.json", xray / "val.json", xray / "test.json", 256, 600, 3000, XRAY_TEACHER,
            work / "data" / "xray-teacher" / "train.json",
            "synthetic X-ray scenes, 600 training images (teacher: 3000 others), test split of 150",
        ),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("teacher", "run", "table", "ship"))
    parser.add_argument("--data", default="bccd,sixray,xray")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "evidence")
    args = parser.parse_args()
    if args.command == "table":
        from distill_table import write_tables

        write_tables(RESULTS / "distill", ROOT / "docs" / "results.md")
        return
    if args.command == "ship":
        ship(args.work / "xray" / "teacher" / "student.safetensors", ROOT / "examples" / "01_distill_and_deploy")
        return
    for name in args.data.split(","):
        setting = settings(args.work)[name]
        synthesise(name, setting)
        teacher = train_teacher(name, setting, args)
        if args.command == "run":
            for seed in (int(item) for item in args.seeds.split(",")):
                for method in args.methods.split(","):
                    train_student(name, setting, method, seed, teacher, args)


def synthesise(name: str, setting: Setting) -> None:
    """Write the synthetic scenes if this is their set; the teacher's come from a seed of their own."""
    if name != "xray":
        return
    for file, counts, seed in ((setting.train, (600, 100, 150), 0), (setting.teacher_train, (3000, 1, 1), 1)):
        if not file.exists():
            train, val, test = counts
            edgekd.data_synth("xray", file.parent, train=train, val=val, test=test, seed=seed)


def recipe(name: str, setting: Setting, args: argparse.Namespace, **parts: Any) -> Recipe:
    """Return a recipe over this set; `parts` are its model, train and distill sections."""
    train = {"batch": 8, "amp": True, "threads": args.threads, "checkpoint_every": 250, **parts.pop("train")}
    return Recipe.from_dict(
        {
            "name": name,
            "data": {"train": str(setting.train), "val": str(setting.val), "test": str(setting.test)},
            "input": {"height": setting.size, "width": setting.size},
            **parts,
            "train": train,
        }
    )


def train_teacher(name: str, setting: Setting, args: argparse.Namespace) -> Path:
    """Train the teacher once and keep its result; return its folder."""
    folder = args.work / name / "teacher"
    steps = setting.teacher_steps
    plan = recipe(
        name, setting, args, student=setting.teacher, augment={"mosaic": 0.3},
        train={"steps": steps, "lr": 5e-4 if setting.teacher is TEACHER else 2e-3, "eval_every": steps // 6},
    )  # fmt: skip
    plan = plan.replace(data=dataclasses.replace(plan.data, train=str(setting.teacher_train)))
    measure(f"{name}-teacher", {"data": name, "method": "teacher", "seed": 0}, plan, folder, setting)
    return folder


def train_student(name: str, setting: Setting, method: str, seed: int, teacher: Path, args: argparse.Namespace) -> None:
    """Train one student and keep its result."""
    steps = setting.student_steps
    plan = recipe(
        name, setting, args, student=STUDENT, distill=METHODS[method],
        train={"steps": steps, "lr": 2e-3, "seed": seed, "eval_every": steps // 5},
    )  # fmt: skip
    if METHODS[method]:
        weights = teacher / "student.safetensors"
        taught = {
            **setting.teacher,
            "weights": str(weights),
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "stages": "all",
        }
        plan = Recipe.from_dict({**plan.to_dict(), "teacher": taught})
    folder = args.work / name / f"{method}-seed{seed}"
    measure(f"{name}-{method}-seed{seed}", {"data": name, "method": method, "seed": seed}, plan, folder, setting)


def measure(label: str, what: dict[str, Any], plan: Recipe, folder: Path, setting: Setting) -> None:
    """Train, measure the bundle on the test split, and write the run's JSON; skip what is there."""
    result = RESULTS / "distill" / f"{label}.json"
    if result.exists() and (what["method"] != "teacher" or (folder / "student.safetensors").exists()):
        return
    print(f"== {label}", file=sys.stderr)
    start = time.perf_counter()
    if plan.distill:
        edgekd.distill(plan, folder)
    else:
        edgekd.train(plan, folder)
    seconds = time.perf_counter() - start
    accuracy = edgekd.evaluate(folder / "model.bin", setting.test)
    row = {
        **what,
        "size": "small",
        "note": setting.note,
        "split": "test, last checkpoint",
        "metrics": accuracy.metrics,
        "validation_curve": curve(folder / "metrics.jsonl"),
        "train_s": round(seconds, 1),
        "recipe": plan.to_dict(),
        **conditions("torch"),
    }
    write(f"distill/{label}", row)
    print(
        f"{label}: AP {100 * accuracy.metrics['AP']:.1f}, AP50 {100 * accuracy.metrics['AP50']:.1f}, {seconds:.0f} s",
        file=sys.stderr,
    )


def ship(weights: Path, example: Path) -> None:
    """Write a trained detector as float16 beside the example's recipes; loading widens it again."""
    from edgekd.training.checkpoint import read_meta, read_tensors, write_tensors

    halves = {name: item.half() if item.is_floating_point() else item for name, item in read_tensors(weights).items()}
    write_tensors(example / "teacher.safetensors", halves, read_meta(weights))
    print(f"wrote {example / 'teacher.safetensors'}")


def curve(log: Path) -> list[dict[str, float]]:
    """Return the validation points of a metrics.jsonl."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [{"step": row["step"], "AP": row["val.AP"], "AP50": row["val.AP50"]} for row in rows if "val.AP" in row]


if __name__ == "__main__":
    main()
