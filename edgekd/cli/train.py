"""`edgekd train`: train a recipe's detector without a teacher, or with task = "anomaly" an anomaly network.

With --task anomaly no recipe is needed: name a folder with train/good, and where there are test images test/<defect>.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import edgekd

if TYPE_CHECKING:
    import argparse

FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("image_AUROC", "pixel_AUROC", "AUPRO", "false_alarms", "found"),
)


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("train", help="train a detector or an anomaly network", description=__doc__)
    add_arguments(parser, "recipe.toml; with --task the folder of one category")
    parser.add_argument("--task", help="anomaly: train on a folder of normal images, by a preset's recipe")
    parser.add_argument("--preset", help="with --task: edge (a bundle of at most 12 MB, default) or quality")
    parser.add_argument(
        "--method", help="with --task: rd (reverse distillation, default), rd++ (with projectors) or stfpm (an encoder)"
    )
    parser.add_argument("--alpha", type=float, help="with --task: share of false alarms, at most (default 0.05)")
    parser.add_argument(
        "--teacher-weights", action="append", default=[], metavar="BACKBONE=FILE",
        help="with --task: published weights, once or, of rd, twice (default: the small teacher in edgekd)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser, recipe: str = "recipe.toml") -> None:
    """Add what `train` and `distill` have in common; `recipe` says what the first argument is."""
    parser.add_argument("recipe", help=recipe)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run; resumes the run it holds")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the recipe's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default auto)")
    parser.add_argument("--no-resume", action="store_true", help="remove an earlier run in DIR and start anew")
    parser.add_argument("--tensorboard", action="store_true", help="write TensorBoard events to DIR/tensorboard too")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Train and print where the result is and how good."""
    chosen = {"task": args.task, "preset": args.preset, "method": args.method, "alpha": args.alpha}
    try:
        weights = _weights(args.teacher_weights)
        report = edgekd.train(args.recipe, args.out, **chosen, teacher_weights=weights, **options(args))
    except KeyboardInterrupt as stop:
        more = "".join(f" --{name} {value}" for name, value in chosen.items() if value is not None)
        return interrupted(args, stop, more + "".join(f" --teacher-weights {each}" for each in args.teacher_weights))
    return show(args, report)


def _weights(given: list[str]) -> dict[str, str]:
    """Return backbone -> file."""
    pairs = [each.partition("=") for each in given]
    for text, (backbone, _, file) in zip(given, pairs, strict=True):
        if not backbone or not file:
            raise edgekd.errors.UsageError(
                f"--teacher-weights takes BACKBONE=FILE, for example resnet18=resnet18.pth; got {text!r}"
            )
    names = [backbone for backbone, _, _ in pairs]
    if len(set(names)) < len(names):
        raise edgekd.errors.UsageError(f"--teacher-weights: two teachers should differ, got {', '.join(names)}")
    return {backbone: file for backbone, _, file in pairs}


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of the verb."""
    return {
        "seed": args.seed,
        "steps": args.steps,
        "device": args.device,
        "resume": not args.no_resume,
        "tensorboard": args.tensorboard,
    }


def interrupted(args: argparse.Namespace, stop: KeyboardInterrupt, more: str = "") -> int:
    """Say how to go on; `more` are options of one command alone, as they were typed."""
    given = "".join(f" --{name} {getattr(args, name)}" for name in ("seed", "steps") if getattr(args, name) is not None)
    said = str(stop) or "interrupted"
    print(
        f"edgekd {args.command}: {said}; to go on: edgekd {args.command} {args.recipe} --out {args.out}{given}{more}",
        file=sys.stderr,
    )
    return 130


def show(args: argparse.Namespace, report: edgekd.TrainReport) -> int:
    """Print the report, on the first rank only."""
    if os.environ.get("RANK", "0") != "0":
        return 0
    if args.json:
        print(json.dumps(report.to_dict(), indent=2))
        return 0
    for note in report.notes:
        print(f"note: {note}")
    print(f"{report.steps} steps in {report.seconds:.0f} s")
    for split, found in report.metrics.items():
        figures = (f"{name} {100 * found[name]:.1f} %" for name in FIGURES if not math.isnan(found.get(name, math.nan)))
        print(f"  {split}: {', '.join(figures)}{_mode(found)}")
    print(f"  {report.bundle}")
    print(f"  {report.weights}")
    if report.page is not None:
        print(f"  {report.page}")
    return 0


def _mode(found: dict[str, Any]) -> str:
    """Return how the precision-recall curve of oriented boxes became a number, without which it means little."""
    return f" ({found['mode']})" if "mode" in found else ""
