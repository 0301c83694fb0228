"""One whole run: read the data, train, evaluate the last average, write the result."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

import torch
import torch.distributed as dist

from ..errors import DataError, RecipeError, UsageError
from .data.read import read
from .data.records import dropped
from .detector_file import write_detector
from .distributed import process_group, rank, world_size
from .evaluate import evaluate
from .finish import add_comparisons, write_bundle
from .guides import teachers_of, unlabelled_of
from .outcome import Outcome, left_by
from .progress import announce, warn
from .seeding import switches_restored
from .teacher_cache import CachedTeacher
from .trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from typing_extensions import Unpack

    from .._comparison import Comparison
    from .._recipe import DataConfig, Recipe
    from .data.sample import Dataset
    from .models import Detector
    from .teacher import Teacher

T = TypeVar("T")


class RunOptions(TypedDict, total=False):
    """How a run goes, beside its recipe and folder.

    teacher: instead of the recipe's [teacher], or several by name; see `Teacher` and `TappedNetwork`.
    cache: folder that keeps the teachers' features, one sub-folder a teacher; see `CachedTeacher`.
    prepare: called with the student before the optimiser is made: a hook for parametrizations of your own.
    resume: go on from the newest checkpoint in the folder (the default), or remove what is there.
    tensorboard: write events for TensorBoard too.
    """

    teacher: Teacher | Mapping[str, Teacher] | None
    cache: Path | None
    prepare: Callable[[Detector], None] | None
    resume: bool
    tensorboard: bool


def run(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    compare: Callable[[dict[str, dict[str, Any]]], tuple[Comparison, ...]] | None = None,
    **options: Unpack[RunOptions],
) -> Outcome:
    """Train the recipe's student in `folder`; under `torchrun`, together with the other ranks.

    Args:
        recipe: what to do.
        folder: where to leave everything.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        compare: turns this run's metrics into what the bundle says about other runs; called on the first rank.
        options: see `RunOptions`.

    Raises:
        RecipeError: an impossible recipe, or `folder` holds another run.
        DataError: a split cannot be read or is empty.
        WeightsError: a weights file does not fit.
        Interrupted: stopped, with a checkpoint written.
    """
    place = choose_device(device)
    with switches_restored(), process_group(place):
        trainer, splits = make_trainer(recipe, folder, place, **options)
        trainer.run()
        for name, each in trainer.teachers.items():
            if isinstance(each, CachedTeacher):
                announce(f"{name}: {each.hits} images from the cache, {each.misses} looked at")
        return on_first_rank(lambda: _finish(trainer, splits, folder, compare))


def make_trainer(
    recipe: Recipe, folder: Path, place: torch.device, **options: Unpack[RunOptions]
) -> tuple[Trainer, dict[str, Dataset]]:
    """Return a trainer that stands where the run in `folder` does, and the splits; arguments and errors as `run`."""
    if recipe.task != "detect":
        raise RecipeError(f"task = {recipe.task!r} cannot be trained; possible: detect")
    splits = read_splits(recipe)
    labelled = splits["train"]
    teachers = teachers_of(recipe, options.get("teacher"), len(labelled.classes), options.get("cache"))
    trainer = Trainer(
        recipe,
        folder,
        labelled,
        splits["val"],
        teacher=teachers,
        unlabelled=unlabelled_of(recipe, labelled, teachers, folder, place),
        prepare=options.get("prepare"),
        device=place,
        resume=options.get("resume", True),
        tensorboard=options.get("tensorboard", False),
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

    What a reader left out is said on stderr: objects of a class that "train" lacks would vanish from the figures of the
    others without a word.

    Raises:
        DataError: a split cannot be read, is empty, or has the very images of "train" or boxes of another kind; or
            "train" has nothing to learn.
    """
    data = recipe.data
    splits = {"train": read(data.train, data.format, "train", data.classes, whole=True)}
    classes = splits["train"].classes
    splits["val"] = read(data.val, data.format, "val", classes, whole=True)
    if data.test is not None:
        splits["test"] = read(data.test, data.format, "test", classes, whole=True)
    if recipe.unlabelled is None and len(splits["train"]):
        _check_taught(splits["train"], data)  # before kinds are compared: a reader may take empty files for upright
    learnt = {sample.path for sample in splits["train"].samples}
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"data.{name} holds no image: {getattr(data, name)}")
        if name != "train" and learnt == {sample.path for sample in split.samples}:
            raise DataError(
                f"data.{name} ({getattr(data, name)}) has the very images of data.train ({data.train}), which tells "
                f"nothing of others: name a list file or the folder of that split"
            )
        _check_kind(name, split, splits["train"], data)
        _say_dropped(name, split)
    return splits


def _check_kind(name: str, split: Dataset, train: Dataset, data: DataConfig) -> None:
    """Refuse upright objects beside oriented ones: they would be compared by their hulls, which looks like accuracy."""
    if split.task != train.task and any(len(sample.labels) for sample in split.samples):
        kinds = {"detect": "upright boxes", "obb": "oriented boxes"}
        here, there = (kinds.get(each.task, each.task) for each in (split, train))
        raise DataError(
            f"data.{name} ({getattr(data, name)}) is a set of {here}, data.train ({data.train}) of {there}: name sets "
            f"of one kind, or their format if {data.format} mistook one (coco-obb and yolo-obb are oriented)"
        )


def _say_dropped(name: str, split: Dataset) -> None:
    lines = dropped(split)
    if lines and rank() == 0:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        warn(f"data.{name}: {lines[0]}{more}; `edgekd data lint` lists all")


def _check_taught(train: Dataset, data: DataConfig) -> None:
    """Refuse a set that teaches nothing but background: most often its label files are empty, or of another format."""
    if not any(train.taught(sample).any() for sample in train.samples):
        raise DataError(
            f"data.train ({data.train}) has no object to learn on any of its {len(train)} images, read as "
            f"{data.format}: are the label files empty, or of another format? See `edgekd data lint {data.train}`"
        )


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
    held = left_by(trainer, folder)
    model, recipe = trainer.average.model, trainer.recipe
    metrics = measure(trainer, splits)
    comparisons = compare(metrics) if compare is not None else ()
    outcome = Outcome(folder / "model.bin", folder / "student.safetensors", metrics, comparisons)
    if held is not None:
        announce(f"{held.bundle} holds this very student: it stays, with what was built into it")
        if compare is None:
            return dataclasses.replace(outcome, comparisons=held.comparisons)
        add_comparisons(outcome.bundle, splits, comparisons)
        return outcome
    write_detector(outcome.weights, model, splits["train"].classes)
    announce("exporting")
    seen = splits if trainer.unlabelled is None else {**splits, "unlabelled": trainer.unlabelled}
    write_bundle(outcome.bundle, model, recipe, seen, metrics, comparisons, trainer.teachers)
    return outcome
