"""The teacher that anomaly detection falls back to: trained on drawn textures, shipped with its recipe.

    python benchmarks/texture_teacher.py train     # 40 minutes on one core; a killed run resumes
    python benchmarks/texture_teacher.py choose    # does it help, and is BatchNorm to be fitted? on images of its own
    python benchmarks/texture_teacher.py ship      # writes what edgekd ships; benchmarks/anomaly.py measures it

`choose` draws the four surfaces that benchmarks/anomaly.py does not look at, from a seed of its own, so that nothing is
chosen on what the tables of docs/results.md show. What its JSON holds is not measured again: remove it first when the
weights are new.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import anomaly
import torch
from distill_settings import RESNET18, ROOT
from machine import RESULTS, conditions, write

import edgekd
from edgekd._recipe import InputConfig
from edgekd.training.anomaly.pyramid import Pyramid
from edgekd.training.anomaly.texture_trainer import LessonTrainer, write_teacher
from edgekd.training.anomaly.textures import Imitation, Naming, TextureRecipe
from edgekd.training.data.synth.surface import CATEGORIES
from edgekd.training.models import load_weights
from edgekd.training.models.backbones import build_backbone
from edgekd.training.seeding import seed_everything

CHOSEN_ON = tuple(name for name in CATEGORIES if name not in anomaly.SURFACES)
SEED = 100
LABEL = "tuning/texture_teacher"
IMITATED = "torchvision's ResNet18_Weights.IMAGENET1K_V1 up to layer3 (BSD-3-Clause), on drawn textures alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "choose", "ship"))
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
    seed_everything(recipe.naming.seed)
    first = LessonTrainer(Naming(recipe), recipe, recipe.naming, args.work / "naming")
    backbone = first.lesson.backbone
    imitated = build_backbone("resnet18")
    report = load_weights(imitated, RESNET18["weights"], stages="layer3")
    model = Pyramid("resnet18", imitated, InputConfig()).to(memory_format=torch.channels_last)
    lesson = Imitation(backbone, model)  # before any step, so that a resumed run draws the same weights
    first.run()
    write_teacher(backbone, args.work / "naming.safetensors", {"recipe": dataclasses.asdict(recipe), "lessons": 1})
    second = LessonTrainer(lesson, recipe, recipe.imitation, args.work / "imitation", recipe.naming.steps)
    second.run()
    source = {
        "recipe": dataclasses.asdict(recipe),
        "lessons": 2,
        "imitated": {"file": report.path.name, "sha256": report.sha256, "what": IMITATED},
    }
    write_teacher(backbone, written, source)
    print(f"wrote {written}: {written.stat().st_size / 1e6:.1f} MB")


def choose(args: argparse.Namespace, written: Path) -> None:
    """Train the edge preset's network under each teacher, and keep what it shows of the test images of these sets."""
    folder = args.work / "surface"
    if not folder.exists():
        counts = {split: count * len(CATEGORIES) for split, count in anomaly.SURFACE_IMAGES.items()}
        edgekd.data_synth("surface", folder, **counts, seed=SEED, size=256)
    path = RESULTS / f"{LABEL}.json"
    found: dict[str, Any] = json.loads(path.read_text())["teachers"] if path.exists() else {}
    for category in args.categories.split(","):
        for name, teacher in teachers(args.work, written).items():
            if category in found.setdefault(name, {}):
                continue
            plan = anomaly.recipe(folder / category, category, anomaly.Method(name, (teacher,)), SEED, _options(args))
            report = anomaly.train(plan, args.work / "choose" / f"{category}-{name.replace(' ', '-')}")
            shown = {key: report["metrics"][key] for key in ("image_AUROC", "pixel_AUROC", "AUPRO")}
            found[name][category] = shown
            print(f"{category}, {name}: " + ", ".join(f"{key} {100 * value:.1f} %" for key, value in shown.items()))
            write(LABEL, {"seed": SEED, "teachers": found, "note": __doc__, **conditions("torch")})


def teachers(work: Path, written: Path) -> dict[str, dict[str, Any]]:
    """Return what is compared, by name."""
    half = {"backbone": "resnet18", "width": 0.5}
    lessons = {"one lesson": work / "naming.safetensors", "both lessons": written}
    taught = {name: {**half, "weights": str(path), "stages": "layer3"} for name, path in lessons.items()}
    modes = {"BatchNorm fitted": "always", "BatchNorm as trained": "never"}
    return {
        "random": {"backbone": "resnet18"},
        "random, half the width": half,
        **{
            f"{name}, {how}": {**teacher, "calibrate": mode}
            for name, teacher in taught.items()
            for how, mode in modes.items()
        },
        "ImageNet, ResNet-18": anomaly.A,
    }


def _options(args: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(steps=None, threads=args.threads)


if __name__ == "__main__":
    main()
