"""`distill`: one detector from a recipe, taught by another network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._train import TrainReport, adjusted, run
from .errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ._recipe import Recipe
    from .training.models import Detector
    from .training.teacher import Teacher


def distill(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    teacher: Teacher | Mapping[str, Teacher] | None = None,
    cache: str | Path | None = None,
    prepare: Callable[[Detector], None] | None = None,
    seed: int | None = None,
    steps: int | None = None,
    device: str = "auto",
    resume: bool = True,
    tensorboard: bool = False,
) -> TrainReport:
    """Train a recipe's student against its teacher and write a portable bundle, which holds the student alone.

    Args:
        recipe: a `Recipe` or the path of its TOML file, with at least one [[distill]] entry and a [teacher].
        out: folder of the run; created if missing.
        teacher: a network of your own instead of [teacher]: `edgekd.training.teacher.Teacher(TappedNetwork(...), ...)`;
            or several, by the names that the [[distill]] entries use.
        cache: folder that keeps what the teachers showed, image by image: later runs that see the same pixels (the same
            seed and augmentation) need no teacher, and have the same losses, bit for bit.
        prepare: called with the student before the optimiser is made: a hook for quantization-aware training. What it
            puts into the network has to survive `copy.deepcopy` and `torch.onnx.export`.
        seed: instead of the recipe's.
        steps: instead of the recipe's.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        resume: False: remove an earlier run in `out` and start anew.
        tensorboard: write events for TensorBoard to `out/tensorboard` too.

    Raises:
        RecipeError: the recipe is impossible, has no [[distill]] or no teacher, or `out` holds a run of another one.
        DataError: the data cannot be read.
        WeightsError: the teacher's or pretrained weights are missing or do not fit.
        MissingPackageError: the packages for training are not installed.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; a checkpoint was written first.
    """
    plan = adjusted(recipe, seed, steps)
    if not plan.distill and not (plan.unlabelled is not None and plan.unlabelled.pseudo_labels):
        raise RecipeError(
            f'recipe {plan.name!r} has no [[distill]] entry: add one (method = "pkd"), or `edgekd train` it'
        )
    if teacher is not None and plan.all_teachers():
        raise RecipeError(f"recipe {plan.name!r} has a [teacher], and another was given: remove one of them")
    return run(plan, out, teacher, cache=cache, prepare=prepare, device=device, resume=resume, tensorboard=tensorboard)
