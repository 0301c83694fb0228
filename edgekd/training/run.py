"""One whole run: read the data, train, evaluate the last average, write the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ..errors import DataError, RecipeError, UsageError
from .data.read import read
from .detector_file import load_teacher, write_detector
from .distributed import process_group, rank, world_size
from .evaluate import evaluate
from .finish import write_bundle
from .progress import announce
from .seeding import switches_restored
from .trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from .._recipe import Recipe
    from .data.sample import Dataset
    from .teacher import Teacher


@dataclass(frozen=True)
class Outcome:
    """What a run left: `model.bin`, `student.safetensors`, and split -> metrics of its last averaged weights."""

    bundle: Path
    weights: Path
    metrics: dict[str, dict[str, Any]]


def run(
    recipe: Recipe,
    folder: Path,
    *,
    teacher: Teacher | None = None,
    device: str = "auto",
    resume: bool = True,
    tensorboard: bool = False,
) -> Outcome:
    """Train the recipe's student in `folder`; under `torchrun`, together with the other ranks.

    Args:
        recipe: what to do.
        folder: where to leave everything.
        teacher: instead of the recipe's [teacher]; see `Teacher` and `TappedNetwork`.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        resume: go on from the newest checkpoint in `folder`.
        tensorboard: write events for TensorBoard too.

    Raises:
        RecipeError: an impossible recipe, or `folder` holds another run.
        DataError: a split cannot be read or is empty.
        WeightsError: a weights file does not fit.
        Interrupted: stopped, with a checkpoint written.
    """
    if recipe.task != "detect":
        raise RecipeError(f"task = {recipe.task!r} cannot be trained; possible: detect")
    place = choose_device(device)
    with switches_restored(), process_group(place):
        splits = read_splits(recipe)
        if teacher is None and recipe.distill:
            if recipe.teacher is None:
                raise RecipeError('[[distill]] needs a [teacher] with weights = "OUT/student.safetensors"')
            teacher = load_teacher(recipe.teacher, recipe.input, len(splits["train"].classes))
        trainer = Trainer(
            recipe,
            folder,
            splits["train"],
            splits["val"],
            teacher=teacher if recipe.distill else None,
            device=place,
            resume=resume,
            tensorboard=tensorboard,
        )
        trainer.run()
        outcome = [_finish(trainer, splits, folder) if rank() == 0 else None]
        if world_size() > 1:
            dist.broadcast_object_list(outcome)
    assert outcome[0] is not None
    return outcome[0]


def choose_device(name: str) -> torch.device:
    """Return the device of this process; ranks on one machine take one GPU each.

    Raises:
        UsageError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"no device {name!r}; possible: auto, cpu, cuda, cuda:0 ...") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise UsageError(f"cannot train on {name!r} here; possible: cpu{', cuda' if torch.cuda.is_available() else ''}")
    if device.type == "cuda":
        device = torch.device(
            "cuda", device.index if device.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
        )
        torch.cuda.set_device(device)
    return device


def read_splits(recipe: Recipe) -> dict[str, Dataset]:
    """Return "train", "val" and, where the recipe names one, "test", all with the training set's classes.

    Raises:
        DataError: a split cannot be read, or is empty.
    """
    data = recipe.data
    splits = {"train": read(data.train, data.format, "train", data.classes)}
    classes = splits["train"].classes
    splits["val"] = read(data.val, data.format, "val", classes)
    if data.test is not None:
        splits["test"] = read(data.test, data.format, "test", classes)
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"data.{name} holds no image: {getattr(data, name)}")
    return splits


def _finish(trainer: Trainer, splits: dict[str, Dataset], folder: Path) -> Outcome:
    model, recipe = trainer.average.model, trainer.recipe
    metrics: dict[str, dict[str, Any]] = {}
    for name in ("val", "test"):
        if name in splits:
            announce(f"evaluating {len(splits[name])} images of {name}")
            metrics[name] = evaluate(model, splits[name], recipe.input, trainer.device)
    outcome = Outcome(folder / "model.bin", folder / "student.safetensors", metrics)
    write_detector(outcome.weights, model, splits["train"].classes)
    announce("exporting")
    write_bundle(outcome.bundle, model, recipe, splits, metrics, trainer.teacher)
    return outcome
