"""The explanation page of a run: what its methods compare, on a few training images, as `explain/index.html`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoint import write_bytes
from .distributed import process_group
from .explain_page import Page, render
from .explain_view import chosen, view
from .outcome import left_by
from .progress import announce
from .run import choose_device, make_trainer, on_first_rank
from .seeding import switches_restored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .._recipe import Recipe
    from .outcome import Outcome
    from .trainer import Trainer

PAGE = "explain/index.html"


def run_with_page(
    work: Callable[..., Outcome],
    recipe: Recipe,
    folder: Path,
    images: int,
    *,
    finished_is_enough: bool,
    device: str = "auto",
    resume: bool = True,
    **given: Any,
) -> Outcome:
    """Write the page of the student as it stands, do `work`, and write it of the student as it then stands.

    Args:
        work: `run`, or a function of its arguments.
        recipe: what to do; distils.
        folder: of the run; the page goes to `explain/index.html` in it.
        images: how many training images to show.
        finished_is_enough: leave out `work` where `folder` holds this very run, finished, and its bundle.
        device: as `run` takes it.
        resume: as `run` takes it.
        given: `teacher` and whatever else `run` takes.

    Raises:
        EdgekdError: as `run`.
    """
    place = choose_device(device)
    with process_group(place):

        def shown(resume: bool) -> Outcome | None:
            with switches_restored():
                trainer, _ = make_trainer(recipe, folder, place, resume=resume, **given)
                return on_first_rank(lambda: _shown(trainer, folder, images))

        outcome = shown(resume)
        if outcome is None or not finished_is_enough:
            outcome = work(recipe, folder, device=device, resume=resume, **given)
            shown(resume=True)
        return outcome


def write_page(trainer: Trainer, path: Path, images: int) -> None:
    """Write the page of the trainer's student as it stands, atomically.

    Args:
        trainer: of a run that distils.
        path: the file; its folder is created if missing.
        images: how many training images to show.

    Raises:
        DataError: an image cannot be decoded.
    """
    size = trainer.recipe.input
    page = Page(
        name=trainer.recipe.name,
        student=_student(trainer),
        teacher=_teachers(trainer),
        size=(size.height, size.width),
        classes=trainer.train_set.classes,
        images=tuple(view(trainer, sample) for sample in chosen(trainer.train_set, images)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, render(page).encode())


def _shown(trainer: Trainer, folder: Path, images: int) -> Outcome | None:
    """Write the page, and return what a finished run left, or None if there is more to do."""
    write_page(trainer, folder / PAGE, images)
    announce(f"{folder / PAGE}: {_student(trainer)}")
    return left_by(trainer, folder)


def _student(trainer: Trainer) -> str:
    if trainer.step == 0:
        return "The student before training: its weights are those it starts with."
    return (
        f"The student after step {trainer.step} of {trainer.config.steps}: the weights of that step, which the losses "
        "see, not their moving average, which the bundle holds."
    )


def _teachers(trainer: Trainer) -> str:
    return " ".join(_teacher(name, each.source) for name, each in trainer.teachers.items())


def _teacher(name: str, source: Mapping[str, Any]) -> str:
    said = ", ".join(str(source[key]) for key in ("name", "backbone", "weights") if key in source)
    whose = "Teacher" if name == "teacher" else f"Teacher {name}"
    return f"{whose}: {said}." if said else ""
