"""Quantization-aware training: the student of a finished run is trained on, rounded to int8, against its teachers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from .._recipe import QatConfig
from ..quantization.trained import CHUNK, trained_chunk
from .checkpoint import write_tensors
from .distributed import process_group
from .evaluate import network_pixels
from .finish import Exported, write_bundle
from .outcome import Outcome, left_by
from .progress import announce
from .quantized_detector import QuantizedDetector
from .quantized_graph import SYMMETRIC
from .run import choose_device, make_trainer, measure, on_first_rank
from .seeding import switches_restored
from .trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .._recipe import DistillConfig, Recipe
    from .data.sample import Dataset

CALIBRATION = 64  # training images that the first ranges are taken from
PRECISION = "int8, simulated"  # of the figures: in torch, on the rounded network


@dataclasses.dataclass(frozen=True)
class Goal:
    """What the student is to become: `target` is a name for the folder and the bundle, `grammar` decides the rounding.

    `grammar` is one of `quantized_graph.GRAMMARS`.
    """

    target: str
    grammar: str

    @property
    def folder(self) -> str:
        """Return the name of the run's folder, inside that of the float run."""
        return f"qat-{self.target}"


def run_with_qat(
    work: Callable[..., Outcome],
    goal: Goal,
    recipe: Recipe,
    folder: Path,
    *,
    finished_is_enough: bool,
    device: str = "auto",
    resume: bool = True,
    **given: Any,
) -> Outcome:
    """Do `work`, which trains the student in float, and then train on with rounding, in `folder/qat-<target>`.

    Args:
        work: `run`, or a function of its arguments.
        goal: what for.
        recipe: what to do; distils.
        folder: of the float run.
        finished_is_enough: leave out `work` where `folder` holds this very run, finished, and its bundle.
        device: as `run` takes it.
        resume: as `run` takes it.
        given: `teacher` and whatever else `run` takes.

    Returns:
        The bundle, weights and figures of the rounded student, and what `work` left besides.

    Raises:
        EdgekdError: as `run`.
        BuildError: the student cannot be exported, or an operator of its graph cannot be trained through.
    """
    place = choose_device(device)
    plan = fine_tuning(recipe)
    with process_group(place):
        with switches_restored():
            trainer, _ = make_trainer(recipe, folder, place, resume=resume, **given)
            done = on_first_rank(lambda: left_by(trainer, folder))
        if done is None or not finished_is_enough:
            done = work(recipe, folder, device=device, resume=resume, **given)
        with switches_restored():
            base, splits = make_trainer(recipe, folder, place, **given)
            announce(f"quantization-aware training for {goal.target}: {plan.train.steps} steps")
            student = QuantizedDetector(base.average.model, calibration_images(base.train_set, plan), goal.grammar)
            shown = given.get("tensorboard", False)
            tuned = trained_on(base, student, plan, folder / goal.folder, resume=resume, tensorboard=shown)
            tuned.run()
            found = on_first_rank(lambda: _finish(tuned, splits, recipe, goal))
    return dataclasses.replace(found, comparisons=done.comparisons, page=done.page)


def fine_tuning(recipe: Recipe) -> Recipe:
    """Return the recipe of the second run: its share of the steps and of the learning rate, warm-ups shortened alike.

    The usual shares follow Wu et al. 2020 (arXiv:2004.09602, section 5), who train for a tenth of the schedule; their
    hundredth of the rate is for schedules a hundred times as long as those of small students: here it is a tenth.
    """
    shares = recipe.qat or QatConfig()
    train = recipe.train
    steps = max(1, round(shares.steps * train.steps))

    def shorter(entry: DistillConfig) -> DistillConfig:
        return dataclasses.replace(entry, warmup=round(shares.steps * entry.warmup))

    budget = dataclasses.replace(
        train, steps=steps, lr=shares.lr * train.lr, warmup=min(train.warmup, steps // 10), amp=False
    )
    return recipe.replace(train=budget, distill=tuple(shorter(entry) for entry in recipe.distill))


def calibration_images(dataset: Dataset, recipe: Recipe) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return up to `CALIBRATION` images spread over a set, `(K, 3, H, W)`, as the network sees them."""
    chosen = np.linspace(0, len(dataset) - 1, min(CALIBRATION, len(dataset))).round().astype(int)
    return network_pixels([dataset.samples[index] for index in chosen], recipe.input)[0]


def trained_on(
    base: Trainer,
    student: QuantizedDetector,
    plan: Recipe,
    folder: Path,
    *,
    resume: bool = True,
    tensorboard: bool = False,
) -> Trainer:
    """Return a trainer that goes on where a finished one has ended, with its student rounded.

    Args:
        base: finished.
        student: made of its average.
        plan: what `fine_tuning` made of its recipe.
        folder: of the new run.
        resume: as `run` takes it.
        tensorboard: likewise.
    """
    trainer = Trainer(
        plan,
        folder,
        base.train_set,
        base.val_set,
        teacher=base.teachers,
        unlabelled=base.unlabelled,
        student=student,
        device=base.device,
        resume=resume,
        tensorboard=tensorboard,
    )
    if trainer.step == 0 and trainer.distiller is not None and base.distiller is not None:
        # Adapters have learnt what the student's features mean to the teacher. Fresh ones would lead it astray first.
        trainer.distiller.load_state_dict(base.distiller.state_dict())
    return trainer


def _finish(trainer: Trainer, splits: dict[str, Dataset], recipe: Recipe, goal: Goal) -> Outcome:
    """Evaluate the rounded student and write it, unless it lies there already."""
    folder, model = trainer.folder, trainer.average.model
    assert isinstance(model, QuantizedDetector)
    held = left_by(trainer, folder, recipe)
    if held is not None:
        announce(f"{held.bundle} holds this very student: it stays, with what was built into it")
        return held
    outcome = Outcome(folder / "model.bin", folder / "student.safetensors", measure(trainer, splits))
    write_tensors(outcome.weights, model.state_dict(), {"kind": "rounded detector", **model.made_of})
    announce("exporting")
    seen = splits if trainer.unlabelled is None else {**splits, "unlabelled": trainer.unlabelled}
    exported = _exported(model, trainer, goal)
    write_bundle(outcome.bundle, model, recipe, seen, outcome.metrics, (), trainer.teachers, exported)
    return outcome


def _exported(model: QuantizedDetector, trainer: Trainer, goal: Goal) -> Exported:
    """Return the graph, the scales where a target can take them, and where they come from."""
    train = trainer.config
    told = {"target": goal.target, "started_from": model.made_of, "steps": train.steps, "lr": train.lr}
    if goal.grammar != SYMMETRIC:
        return Exported(model.portable(), provenance={"qat": told}, precision=PRECISION)
    chunks = {CHUNK: trained_chunk(goal.target, model.graph.scales(), model.floating)}
    return Exported(model.portable(), chunks, {"qat": {"chunk": CHUNK, **told}}, PRECISION)
