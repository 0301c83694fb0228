"""One whole run: read the data, train, evaluate the last average, write the result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

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
    from collections.abc import Callable
    from pathlib import Path

    from .._comparison import Comparison
    from .._recipe import Recipe
    from .data.sample import Dataset
    from .teacher import Teacher

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a run left: `model.bin`, `student.safetensors`, and split -> metrics of its last averaged weights.

    `comparisons` hold the same figures of other runs beside this one's, if the bundle tells of any.
    """

    bundle: Path
    weights: Path
    metrics: dict[str, dict[str, Any]]
    comparisons: tuple[Comparison, ...] = ()


def run(
    recipe: Recipe,
    folder: Path,
    *,
    teacher: Teacher | None = None,
    device: str = "auto",
    resume: bool = True,
    tensorboard: bool = False,
    compare: Callable[[dict[str, dict[str, Any]]], tuple[Comparison, ...]] | None = None,
) -> Outcome:
    """Train the recipe's student in `folder`; under `torchrun`, together with the other ranks.

    Args:
        recipe: what to do.
        folder: where to leave everything.
        teacher: instead of the recipe's [teacher]; see `Teacher` and `TappedNetwork`.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        resume: go on from the newest checkpoint in `folder`.
        tensorboard: write events for TensorBoard too.
        compare: turns this run's metrics into what the bundle says about other runs; called on the first rank.

    Raises:
        RecipeError: an impossible recipe, or `folder` holds another run.
        DataError: a split cannot be read or is empty.
        WeightsError: a weights file does not fit.
        Interrupted: stopped, with a checkpoint written.
    """
    place = choose_device(device)
    with switches_restored(), process_group(place):
        trainer, splits = make_trainer(recipe, folder, place, teacher=teacher, resume=resume, tensorboard=tensorboard)
        trainer.run()
        return on_first_rank(lambda: _finish(trainer, splits, folder, compare))


def make_trainer(
    recipe: Recipe,
    folder: Path,
    place: torch.device,
    *,
    teacher: Teacher | None = None,
    resume: bool = True,
    tensorboard: bool = False,
) -> tuple[Trainer, dict[str, Dataset]]:
    """Return a trainer that stands where the run in `folder` does, and the splits; arguments and errors as `run`."""
    if recipe.task != "detect":
        raise RecipeError(f"task = {recipe.task!r} cannot be trained; possible: detect")
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
    return trainer, splits


def on_first_rank(work: Callable[[], T]) -> T:
    """Do `work` on the first rank and return its result on every rank."""
    found = [work() if rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(found)
    return cast("T", found[0])


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


def measure(trainer: Trainer, splits: dict[str, Dataset]) -> dict[str, dict[str, Any]]:
    """Return split ("val", "test") -> metrics of the averaged weights."""
    metrics: dict[str, dict[str, Any]] = {}
    for name in ("val", "test"):
        if name in splits:
            announce(f"evaluating {len(splits[name])} images of {name}")
            metrics[name] = evaluate(trainer.average.model, splits[name], trainer.recipe.input, trainer.device)
    return metrics


def _finish(
    trainer: Trainer,
    splits: dict[str, Dataset],
    folder: Path,
    compare: Callable[[dict[str, dict[str, Any]]], tuple[Comparison, ...]] | None,
) -> Outcome:
    model, recipe = trainer.average.model, trainer.recipe
    metrics = measure(trainer, splits)
    comparisons = compare(metrics) if compare is not None else ()
    outcome = Outcome(folder / "model.bin", folder / "student.safetensors", metrics, comparisons)
    write_detector(outcome.weights, model, splits["train"].classes)
    announce("exporting")
    write_bundle(outcome.bundle, model, recipe, splits, metrics, comparisons, trainer.teacher)
    return outcome
