"""What the dense head's scores learn: three targets compared on the blood cells' validation split.

    python benchmarks/head_target.py            # 3 targets x 3 seeds, trained on train, scored on val; one JSON

The choice that docs/results.md reports. The seeds are not those of the evidence runs, and the test split is not read.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
from pathlib import Path
from unittest import mock

import torch.nn.functional as F
from distill import Cell, recipe
from distill_settings import ROOT
from machine import conditions, write
from torch import Tensor

import edgekd
from edgekd.training.models.heads import dense

SEEDS = (100, 101, 102)


def own_iou(match: Tensor, iou: Tensor, _objects: int) -> Tensor:
    """Each cell learns the IoU of its own box (quality focal loss as published)."""
    return iou * (match >= 0)


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy without the focal factor."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


TARGETS = {
    "IoU over the object's best (adopted)": {},
    "IoU": {"relative_quality": own_iou},
    "IoU, BCE instead of quality focal": {"relative_quality": own_iou, "quality_focal": entropy},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "evidence")
    args = parser.parse_args()
    cell = Cell("tiny", "bccd", "small", args.work, args.threads)
    rows = {}
    for label, patches in TARGETS.items():
        scores = []
        for seed in SEEDS:
            train = {"steps": 600, "lr": 2e-3, "seed": seed, "eval_every": 600}
            plan = recipe(cell, train, student=cell.pair.student)
            folder = args.work / "head_target" / f"{list(TARGETS).index(label)}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            with mock.patch.multiple(dense, **patches) if patches else contextlib.nullcontext():
                edgekd.train(plan, folder)
            metrics = edgekd.evaluate(folder / "model.bin", cell.data.val).metrics
            scores.append(metrics)
            print(f"{label}, seed {seed}: val AP {100 * metrics['AP']:.1f}", file=sys.stderr)
        values = [item["AP"] for item in scores]
        rows[label] = {"AP": statistics.mean(values), "std": statistics.stdev(values), "runs": scores}
    what = "blood cells: trained on train (205 images, 600 steps), scored on val (87 images), AP as a fraction"
    write("tuning/head_target", {"what": what, "seeds": SEEDS, "targets": rows, **conditions("torch")})


if __name__ == "__main__":
    main()
