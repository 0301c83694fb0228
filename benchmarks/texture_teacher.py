"""The teacher that anomaly detection falls back to: trained on drawn textures, shipped with its recipe.

    python benchmarks/texture_teacher.py train     # half an hour on one core; a killed run resumes
    python benchmarks/texture_teacher.py choose    # does it help, and is BatchNorm to be fitted? on images of its own
    python benchmarks/texture_teacher.py ship      # writes what edgekd ships; benchmarks/anomaly.py measures it

`choose` draws the four surfaces that benchmarks/anomaly.py does not look at, from a seed of its own, so that nothing is
chosen on what the tables of docs/results.md show.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import shutil
from pathlib import Path

import anomaly
from distill_settings import ROOT
from machine import conditions, write

import edgekd
from edgekd.training.anomaly.textures import TextureRecipe, TextureTrainer, write_teacher
from edgekd.training.data.synth.surface import CATEGORIES

CHOSEN_ON = tuple(name for name in CATEGORIES if name not in anomaly.SURFACES)
SEED = 100
LABEL = "tuning/texture_teacher"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "choose", "ship"))
    parser.add_argument("--steps", type=int, help="other than the recipe's: a trial")
    parser.add_argument("--categories", default=",".join(CHOSEN_ON))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "textures")
    args = parser.parse_args()
    written = args.work / "teacher.safetensors"
    if args.command == "train":
        train(args, written)
    elif args.command == "choose":
        choose(args, written)
    else:
        shutil.copyfile(written, ROOT / "edgekd" / "training" / "anomaly" / "textures.safetensors")
        print(f"SHA-256 for edgekd/training/anomaly/shipped.py: {hashlib.sha256(written.read_bytes()).hexdigest()}")


def train(args: argparse.Namespace, written: Path) -> None:
    recipe = TextureRecipe()
    if args.steps:
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=args.steps))
    args.work.mkdir(parents=True, exist_ok=True)
    trainer = TextureTrainer(recipe, args.work)
    trainer.run()
    write_teacher(trainer, written)
    print(f"wrote {written}: {written.stat().st_size / 1e6:.1f} MB")


def choose(args: argparse.Namespace, written: Path) -> None:
    """Train the edge preset's network under each teacher, and keep what it shows of the test images of these sets."""
    folder = args.work / "surface"
    if not folder.exists():
        counts = {split: count * len(CATEGORIES) for split, count in anomaly.SURFACE_IMAGES.items()}
        edgekd.data_synth("surface", folder, **counts, seed=SEED, size=256)
    textures = {"backbone": "resnet18", "width": 0.5, "weights": str(written), "stages": "layer3"}
    teachers = {
        "random": {"backbone": "resnet18"},
        "random, half the width": {"backbone": "resnet18", "width": 0.5},
        "textures, BatchNorm fitted": {**textures, "calibrate": "always"},
        "textures, BatchNorm as trained": {**textures, "calibrate": "never"},
    }
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in teachers}
    for category in args.categories.split(","):
        for name, teacher in teachers.items():
            plan = anomaly.recipe(folder / category, category, anomaly.Method(name, (teacher,)), SEED, _options(args))
            report = anomaly.train(plan, args.work / "choose" / f"{category}-{name.replace(' ', '-')}")
            shown = {key: report["metrics"][key] for key in ("image_AUROC", "pixel_AUROC", "AUPRO")}
            found[name][category] = shown
            print(f"{category}, {name}: " + ", ".join(f"{key} {100 * value:.1f} %" for key, value in shown.items()))
    write(LABEL, {"seed": SEED, "teachers": found, "note": __doc__, **conditions("torch")})


def _options(args: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(steps=None, threads=args.threads)


if __name__ == "__main__":
    main()
