"""`train`: one network from a recipe: a detector without a teacher, or an anomaly network."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._anomaly_presets import preset as anomaly_preset
from ._anomaly_recipe import AnomalyRecipe
from ._recipe import Recipe, read_tables
from .errors import MissingPackageError, RecipeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Unpack

    from ._comparison import Comparison
    from .training.outcome import Outcome
    from .training.run import RunOptions


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What a training run left.

    Attributes:
        folder: of the run: `recipe.json`, `metrics.jsonl`, `checkpoints/` and the two files below.
        bundle: portable bundle, ready to be built for targets.
        weights: the trained network in safetensors; a recipe may name a detector's as the weights of a teacher.
        steps: optimiser steps of the whole run.
        seconds: of this call; less than the run took if it was resumed.
        metrics: split ("val", "test") -> AP, AP50, AP75, AP_small, AP_medium, AP_large in [0, 1] or NaN, and per_class;
            of an anomaly network "test" -> image_AUROC, pixel_AUROC, AUPRO and the like.
        comparisons: with the student alone, a figure each; empty without `distill(..., receipt=True)`.
        page: the explanation page, or of an anomaly network the report on its test images; None without
            `distill(..., explain=...)`, or without test images.
        notes: what to know before the figures are believed: teachers with random weights, for example.
    """

    folder: Path
    bundle: Path
    weights: Path
    steps: int
    seconds: float
    metrics: dict[str, dict[str, Any]]
    comparisons: tuple[Comparison, ...] = ()
    page: Path | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; NaN becomes None. "comparisons", "page" and "notes" are there if there are any."""
        compared = {"comparisons": [each.to_dict() for each in self.comparisons]} if self.comparisons else {}
        page = {} if self.page is None else {"page": str(self.page)}
        return {
            "folder": str(self.folder),
            "bundle": str(self.bundle),
            "weights": str(self.weights),
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "metrics": {split: json_ready(found) for split, found in self.metrics.items()},
            **compared,
            **page,
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def train(
    recipe: Recipe | AnomalyRecipe | str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    preset: str | None = None,
    method: str | None = None,
    alpha: float | None = None,
    teacher_weights: Mapping[str, str | Path] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str = "auto",
    resume: bool = True,
    tensorboard: bool = False,
) -> TrainReport:
    """Train what a recipe describes and write a portable bundle: a student, or with task "anomaly" an anomaly network.

    A run that was stopped goes on from its newest checkpoint in `out`, and on a CPU ends with the same bits. Under
    `torchrun` the processes share every batch.

    Args:
        recipe: a `Recipe` or `AnomalyRecipe`, or the path of its TOML file, or of the JSON that a run has kept. A
            detector's has neither [teacher] nor [[distill]]. With `task`, the folder of one category instead.
        out: folder of the run; created if missing.
        task: "anomaly": `recipe` is a folder with `train/good`, and the recipe is a preset's; None: it is a recipe.
        preset: of the task: "edge" (a bundle of at most 12 MB; default) or "quality".
        method: of the task: "rd" (reverse distillation; default), "rd++" or "stfpm", see docs/anomaly.md.
        alpha: of the task: expected share of false alarms among normal images, at most; None: 0.05.
        teacher_weights: of the task: backbone -> file, one or (of "rd") two; None: the small teacher in edgekd.
        seed: instead of the recipe's.
        steps: instead of the recipe's.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        resume: False: remove an earlier run in `out` and start anew.
        tensorboard: write events for TensorBoard to `out/tensorboard` too.

    Raises:
        UsageError: a task, preset or method that there is not, or its options without the task; `out` is a file.
        RecipeError: the recipe is impossible or distils, or `out` holds a run of another one.
        DataError: the data cannot be read.
        WeightsError: pretrained weights are missing or do not fit.
        MissingPackageError: the packages for training are not installed.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    chosen = {"preset": preset, "method": method, "alpha": alpha, "teacher_weights": teacher_weights or None}
    given = {name: value for name, value in chosen.items() if value is not None}
    if task is not None:
        recipe = _of_folder(recipe, task, given)
    elif given:
        raise UsageError(
            f"{', '.join(given)}: only with task 'anomaly' and a folder of images; a recipe has them written in it"
        )
    if isinstance(recipe, (str, Path)):
        recipe = _read(Path(recipe))
    if isinstance(recipe, AnomalyRecipe):
        return _train_anomaly(_rebudgeted(recipe, seed, steps), out, device, resume=resume, tensorboard=tensorboard)
    plan = adjusted(recipe, seed, steps)
    if plan.distill or plan.all_teachers() or plan.unlabelled is not None:
        raise RecipeError(
            f"recipe {plan.name!r} has a teacher, [unlabelled] or [[distill]]: type `edgekd distill`, or remove them"
        )
    return run(plan, out, device=device, resume=resume, tensorboard=tensorboard)


def _train_anomaly(
    plan: AnomalyRecipe, out: str | Path, device: str, *, resume: bool, tensorboard: bool
) -> TrainReport:
    try:
        from .training.anomaly import run as training
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"training needs {error.name}: pip install 'edgekd[train]'") from error
    began = time.monotonic()
    found = training.run(plan, _run_folder(out), device=device, resume=resume, tensorboard=tensorboard)
    return TrainReport(
        folder=Path(out),
        bundle=found.bundle,
        weights=found.weights,
        steps=plan.train.steps,
        seconds=time.monotonic() - began,
        metrics=found.metrics,
        page=found.page,
        notes=found.notes,
    )


def _of_folder(data: Recipe | AnomalyRecipe | str | Path, task: str, given: dict[str, Any]) -> AnomalyRecipe:
    """Return the preset's recipe for a folder of images; `given` are the options of `anomaly_preset`."""
    if task != "anomaly":
        raise UsageError(f"no task {task!r} without a recipe; possible: anomaly")
    if not isinstance(data, (str, Path)) or Path(data).is_file():
        raise UsageError(f"with task 'anomaly' expected a folder of images, got a recipe ({data}); leave out the task")
    if not Path(data).is_dir():
        raise UsageError(f"no folder at {data}; a category holds train/good, test/<defect> and ground_truth/<defect>")
    return anomaly_preset(given.pop("preset", "edge"), data, **given)


def _read(path: Path) -> Recipe | AnomalyRecipe:
    """Read a recipe of any task; arguments and errors as `Recipe.read`."""
    raw = read_tables(path)
    kind = AnomalyRecipe if raw.get("task") == "anomaly" else Recipe
    return kind.from_dict(raw).resolved(path.parent.resolve())


def _rebudgeted(plan: AnomalyRecipe, seed: int | None, steps: int | None) -> AnomalyRecipe:
    train = plan.train
    return dataclasses.replace(
        plan,
        train=dataclasses.replace(
            train, seed=train.seed if seed is None else seed, steps=train.steps if steps is None else steps
        ),
    )


def adjusted(recipe: Recipe | str | Path, seed: int | None, steps: int | None) -> Recipe:
    """Return the recipe, read if it is a path, with another seed or budget where given.

    Raises:
        RecipeError: as `Recipe.read`, or the file is of task anomaly.
    """
    plan = recipe if isinstance(recipe, Recipe) else _read(Path(recipe))
    if isinstance(plan, AnomalyRecipe):
        raise RecipeError(f"recipe {plan.name!r} is of task anomaly, whose teachers it names itself: `edgekd train` it")
    train = plan.train
    return plan.replace(
        train=dataclasses.replace(
            train, seed=train.seed if seed is None else seed, steps=train.steps if steps is None else steps
        )
    )


def run(
    plan: Recipe,
    out: str | Path,
    *,
    device: str,
    seeds: tuple[int, ...] = (),
    images: int = 0,
    qat: tuple[str, str] | None = None,
    **options: Unpack[RunOptions],
) -> TrainReport:
    """Run a recipe whole; what `train` and `distill` have in common.

    `seeds` are those of an ablation receipt, `images` is how many the explanation page shows, `qat` the target and its
    grammar that the student is trained on for; none: without.

    Raises:
        MissingPackageError: the packages for training are not installed.
    """
    try:
        from .training import explain, receipt
        from .training import run as training
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"training needs {error.name}: pip install 'edgekd[train]'") from error
    folder = _run_folder(out)
    began = time.monotonic()
    work: Callable[..., Outcome] = partial(receipt.run_with_receipt, seeds=seeds) if seeds else training.run
    if images:
        work = partial(explain.run_with_page, work, images=images, finished_is_enough=not seeds)
    if qat:
        from .training.qat import Goal, run_with_qat

        work = partial(run_with_qat, work, Goal(*qat), finished_is_enough=not seeds and not images)
    outcome = work(plan, folder, device=device, **options)
    return TrainReport(
        folder=folder,
        bundle=outcome.bundle,
        weights=outcome.weights,
        steps=plan.train.steps,
        seconds=time.monotonic() - began,
        metrics=outcome.metrics,
        comparisons=outcome.comparisons,
        page=folder / explain.PAGE if images else None,
    )


def _run_folder(out: str | Path) -> Path:
    """Return the folder of a run, which need not exist.

    Raises:
        UsageError: a file is in its place, or a folder that may not be written to.
    """
    folder = Path(out)
    there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if there.exists() and not there.is_dir():
        raise UsageError(f"{there} is a file, and a run needs a folder (out, --out): name another one")
    if there.exists() and not os.access(there, os.W_OK):
        raise UsageError(f"{there} may not be written to: name another folder for the run (out, --out)")
    return folder


def json_ready(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the figures with None for NaN, which JSON does not have."""
    ready: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            ready[name] = json_ready(value)
        else:
            ready[name] = None if isinstance(value, float) and math.isnan(value) else value
    return ready
