"""`distill`: one detector from a recipe, taught by another network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._comparison import chosen_seeds
from ._target import load_target, target_names
from ._train import TrainReport, adjusted, run
from .errors import RecipeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._recipe import Recipe
    from .training.models import Detector
    from .training.teacher import Teacher

MOST_IMAGES = 64


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
    receipt: bool = False,
    seeds: Sequence[int] | None = None,
    explain: int = 0,
    qat: str | None = None,
) -> TrainReport:
    """Train a recipe's student against its teacher and write a portable bundle, which holds the student alone.

    Args:
        recipe: a `Recipe` or the path of its TOML file, with at least one [[distill]] entry and a [teacher].
        out: folder of the run; created if missing.
        teacher: a network of your own instead of [teacher]: `edgekd.training.teacher.Teacher(TappedNetwork(...), ...)`;
            or several, by the names that the [[distill]] entries use.
        cache: folder that keeps what the teachers showed, image by image: later runs that see the same pixels (the same
            seed and augmentation) need no teacher, or its head alone (crosskd, nsd), and have the same losses, bit for
            bit.
        prepare: called with the student before the optimiser is made: a hook for parametrizations of your own. What
            it puts into the network has to survive `copy.deepcopy` and `torch.onnx.export`.
        seed: instead of the recipe's.
        steps: instead of the recipe's.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        resume: False: remove an earlier run in `out` and start anew.
        tensorboard: write events for TensorBoard to `out/tensorboard` too.
        receipt: also train the student without distillation, and both for every seed, in `out/receipt`; the report's
            `comparisons` and the bundle's receipts say what distillation changed, and whether that is more than noise.
        seeds: of the receipt, the recipe's own among them; None: that one and the two after it. One has no spread.
        explain: how many training images, spread over the set, `out/explain/index.html` shows, with what each method
            compares on them; 0: no page. It is written before the first step, of the student as it stands, and again
            when training is done. Of a run that is finished, only the page is written.
        qat: a target; the finished student is trained on, rounded to int8 as that target rounds, under the same losses,
            in `out/qat-<target>`. The report is of that run; its bundle is what to build for the target with precision
            int8. The float student stays in `out`. The budget is the recipe's [qat].

    Raises:
        RecipeError: the recipe is impossible, has no [[distill]] or no teacher, or `out` holds a run of another one.
        UsageError: no such target, or one without int8; `seeds` without `receipt`, or not as
            said above; `explain` below 0 or above 64; `out` is a file.
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
    if seeds is not None and not receipt:
        raise UsageError("seeds are those of an ablation receipt: ask for one (receipt=True, --receipt)")
    chosen = chosen_seeds(seeds, plan.train.seed) if receipt else ()
    if not 0 <= explain <= MOST_IMAGES:
        raise UsageError(f"the page explains 1 to {MOST_IMAGES} images (explain, --explain), got {explain}; 0: no page")
    if explain and not plan.distill:
        raise UsageError(
            "the page shows what [[distill]] entries compare, and the recipe has none: leave out --explain"
        )
    rounded = None if qat is None else (qat, _grammar(qat))
    return run(
        plan,
        out,
        teacher=teacher,
        cache=None if cache is None else Path(cache),
        prepare=prepare,
        device=device,
        resume=resume,
        tensorboard=tensorboard,
        seeds=chosen,
        images=explain,
        qat=rounded,
    )


def _grammar(target: str) -> str:
    """Return how a target rounds activations.

    Raises:
        UsageError: there is no such target, or it has no int8.
    """
    grammars = {name: load_target(name).GRAMMAR for name in target_names()}
    grammar = grammars.get(target)
    if grammar is None:
        possible = ", ".join(name for name, each in grammars.items() if each is not None)
        raise UsageError(f"cannot train for int8 on {target!r} (qat, --qat); possible: {possible}")
    return grammar
