"""Anomaly evidence: one teacher or two, how they are fused, what the student is and learns; beside relatives.

    python benchmarks/anomaly.py run                        # trains what is missing, one JSON a run
    python benchmarks/anomaly.py run --minutes 9            # begin no run after so many minutes
    python benchmarks/anomaly.py run --data tiles --methods A,random --seeds 0
    python benchmarks/anomaly.py table                      # writes the tables of docs/results.md

A run that has its JSON is skipped; a killed one resumes from its checkpoint; two processes side by side share the work.
On each set every method has the same images, size, batch and number of steps, set in advance. Figures are of the last
checkpoint's bundle on the test images, which nothing was chosen on; thresholds come from held-out normal images.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from distill_settings import MOBILENETV2, MOBILENETV2_PIXELS, RESNET18, ROOT, SHARED
from machine import RESULTS, conditions, write
from runs import claimed, log_rows, named, trained_s

import edgekd
from edgekd import AnomalyRecipe, _thresholds
from edgekd._anomaly_presets import MODELS
from edgekd.training.anomaly.measure import figures, scored
from edgekd.training.anomaly.run import read_splits
from edgekd.training.data.synth.surface import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterator

A = {"backbone": "resnet18", **RESNET18}
B = {"backbone": "mobilenetv2-tf", **MOBILENETV2, "input": MOBILENETV2_PIXELS}
RANDOM = {"backbone": "resnet18"}  # BatchNorm is fitted to the normal images
TEXTURES = {"backbone": "resnet18", "width": 0.5, "weights": "textures"}  # so it is here; see texture_teacher.py
PATCHCORE = "patchcore"
SIZES = {
    name: {
        "widths": list(size.widths),
        "embedding": size.embedding,
        "reduction": size.reduction,
        "storage": size.storage,
    }
    for name, size in MODELS.items()
}


@dataclass(frozen=True)
class Method:
    """One row of the tables: teachers and [model] section of a recipe."""

    note: str
    teachers: tuple[dict[str, Any], ...] = ()
    model: tuple[tuple[str, Any], ...] = ()
    size: str = "edge"  # a preset: how large embedding and student are


METHODS = {
    PATCHCORE: Method("PatchCore, ResNet-18 at 224 px, 1 % of the patches (own plain implementation)"),
    "A": Method("A alone: ResNet-18", (A,)),
    "B": Method("B alone: MobileNetV2", (B,)),
    "add": Method("A + B, added", (A, B), (("target", "fused_sg"), ("fusion", "add"))),
    "iaff": Method("A + B, iAFF", (A, B), (("target", "fused_sg"), ("fusion", "iaff"))),
    "both": Method("A + B, iAFF for the bottleneck, both predicted", (A, B), (("target", "both_raw"),)),
    "mirror": Method("A alone, mirror student (RD4AD)", (A,), (("student", "mirror"),)),
    "rd++": Method("A alone, projectors and pseudo-anomalies (RD++)", (A,), (("method", "rd++"), ("embedding", 64))),
    "stfpm": Method("A alone, encoder student (STFPM)", (A,), (("method", "stfpm"),), "quality"),
    "quality": Method("A alone, student and bottleneck of the quality preset", (A,), (), "quality"),
    "local": Method("A alone, loss per location", (A,), (("loss", "per_location"),)),
    "random": Method("A with random weights, BatchNorm fitted", (RANDOM,)),
    "textures": Method("the teacher that edgekd brings along: half the width, drawn textures", (TEXTURES,)),
}


@dataclass(frozen=True)
class Budget:
    """What all methods have on one set of images: set before its runs, for five minutes a run on one core."""

    steps: int
    batch: int = 8
    size: int = 192
    lr: float = 5e-3
    amp: bool = True  # halves a step on processors that multiply bfloat16; what is measured is the float32 graph
    alpha: float = 0.05


STEPS = {"transistor": 400, "tiles": 600}  # about nineteen looks at each training image
SURFACE_STEPS = 200
SURFACES = ("wood", "weave", "part")  # a stochastic texture, a regular one, an object
SURFACE_IMAGES = {"train": 100, "val": 0, "test": 100}  # of each category: 40 good and 60 defective test images


def sets(work: Path) -> dict[str, Path]:
    """Return the folder of each category by name; `work` holds the synthetic ones."""
    real = {"transistor": SHARED / "mvtec_transistor_512", "tiles": SHARED / "magnetic_tile_mini"}
    return {**real, **{f"surface-{name}": work / "data" / "surface" / name for name in SURFACES}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--data", default=",".join(sets(Path())))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, help="other than those of the set: a trial, kept apart")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "anomaly")
    args = parser.parse_args()
    if args.command == "table":
        from anomaly_table import write_tables

        write_tables(RESULTS / "anomaly", ROOT / "docs" / "results.md")
        return
    end = time.monotonic() + 60 * args.minutes
    for data, method, seed in jobs(args):
        if time.monotonic() > end:
            return
        label = f"{data}-{method}-seed{seed}" + (f"-steps{args.steps}" if args.steps else "")
        with claimed(args.work / label) as free:
            if free:
                run(label, data, method, seed, args)


def jobs(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield data set, method and seed of every run, seed by seed so that what is done is balanced."""
    data_sets, methods = named("--data", args.data, sets(args.work)), named("--methods", args.methods, METHODS)
    for seed in (int(item) for item in args.seeds.split(",")):
        for data in data_sets:
            for method in methods:
                yield data, method, seed


def run(label: str, data: str, method: str, seed: int, args: argparse.Namespace) -> None:
    """Do one run and write its JSON; skip it if that is there. A trial's goes to the work folder."""
    name = str(args.work.resolve() / "trial" / label) if args.steps else f"anomaly/{label}"
    if (RESULTS / f"{name}.json").exists():
        return
    print(f"== {label}", file=sys.stderr)
    folder = sets(args.work)[data]
    provide(args.work, folder)
    if not folder.exists():  # another process is writing it, or the real sets are not here
        print(f"{label}: no {folder} yet, left for later", file=sys.stderr)
        return
    plan = recipe(folder, data, METHODS[method], seed, args)
    torch.set_num_threads(args.threads)
    began = time.monotonic()
    found = compare(plan) if method == PATCHCORE else train(plan, args.work / label)
    row = {
        "data": data,
        "method": method,
        "note": METHODS[method].note,
        "seed": seed,
        "split": "test, last checkpoint",
        **found,
        "run_s": round(time.monotonic() - began, 1),
        "threads": args.threads,
        "recipe": plan.to_dict(),
        **conditions("torch"),
    }
    write(name, row)
    shown = {figure: round(100 * found["metrics"][figure], 1) for figure in ("image_AUROC", "pixel_AUROC", "AUPRO")}
    print(f"{label}: {shown} %, {row['run_s']:.0f} s", file=sys.stderr)


def provide(work: Path, category: Path) -> None:
    """Write the synthetic surfaces if the category is one of them, once; they appear when all are there."""
    folder = work / "data" / "surface"
    if folder not in category.parents:
        return
    with claimed(folder) as free:
        if free and not folder.exists():
            counts = {split: count * len(CATEGORIES) for split, count in SURFACE_IMAGES.items()}
            edgekd.data_synth("surface", folder, **counts, seed=0, size=256)


def recipe(folder: Path, data: str, method: Method, seed: int, args: argparse.Namespace) -> AnomalyRecipe:
    """Return the recipe of a run; PatchCore takes from it what it shares: images, held-out ones and alpha."""
    budget = Budget(steps=args.steps or STEPS.get(data, SURFACE_STEPS))
    return AnomalyRecipe.from_dict(
        {
            "name": data,
            "data": {"path": str(folder)},
            "teachers": list(method.teachers or (A,)),
            "input": {"height": budget.size, "width": budget.size},
            "model": {**SIZES[method.size], **dict(method.model)},
            "train": {
                "steps": budget.steps, "batch": budget.batch, "lr": budget.lr, "amp": budget.amp, "seed": seed,
                "threads": args.threads, "checkpoint_every": 50,
            },
            "predict": {"alpha": budget.alpha},
        }
    )  # fmt: skip


def train(plan: AnomalyRecipe, folder: Path) -> dict[str, Any]:
    """Return figures and cost of a training run; its report stays in the work folder."""
    report = edgekd.train(plan, folder, device="cpu")
    rows = log_rows(folder / "metrics.jsonl")
    gates = next((row for row in reversed(rows) if "loss" in row), {})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {
        "metrics": report.metrics["test"],
        "bundle_bytes": report.bundle.stat().st_size,
        "train_s": round(trained_s(rows), 1),
        "last_log_row": gates,
        "losses": [row["loss"] for row in rows if "loss" in row],
        "notes": list(report.notes),
    }


def compare(plan: AnomalyRecipe) -> dict[str, Any]:
    """Return the figures of PatchCore on the same images, its thresholds from the same held-out ones."""
    from patchcore import SPEC, STRIDE, PatchCore

    sigma = 4 / STRIDE  # four pixels of the image
    splits = read_splits(plan)
    began = time.monotonic()
    model = PatchCore(RESNET18["weights"], splits["train"].samples, plan.train.seed)
    seconds = time.monotonic() - began
    held = list(scored(model, splits["calibration"].samples, SPEC, sigma))
    limits = _thresholds.fit([each.score for each in held], [each.map for each in held], alpha=plan.predict.alpha)
    found = list(scored(model, splits["test"].samples, SPEC, sigma))
    metrics = figures(found, splits["test"], SPEC, limits)
    return {"metrics": metrics, "memory_patches": len(model.memory), "train_s": round(seconds, 1)}


if __name__ == "__main__":
    main()
