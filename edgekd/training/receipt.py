"""The ablation receipt: the same student alone and distilled, over several seeds, told by the bundle.

The run of the recipe's own seed lies in the folder itself and becomes the bundle; the others lie beside it under
`receipt/`, without bundles. It is trained last, so that the bundle is written once, with all that it has to say.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .._comparison import compare
from .checkpoint import write_bytes
from .distributed import process_group
from .progress import announce
from .pseudo import FILE as LABELS
from .resume import comparable, data_fingerprint
from .run import choose_device, make_trainer, measure, on_first_rank, run
from .seeding import switches_restored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from .._comparison import Comparison
    from .._recipe import Recipe
    from .data.sample import Dataset
    from .outcome import Outcome
    from .trainer import Trainer

    Metrics = dict[str, dict[str, Any]]

FOLDER = "receipt"
RESULT = "result.json"


@dataclass(frozen=True)
class Job:
    """One run beside the bundle's own: `kind` is "alone" or "distilled"."""

    kind: str
    recipe: Recipe

    @property
    def seed(self) -> int:
        """Return the seed."""
        return self.recipe.train.seed

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return f"{self.kind}-seed{self.seed}"


def run_with_receipt(
    recipe: Recipe, folder: Path, seeds: Sequence[int], *, device: str = "auto", resume: bool = True, **given: Any
) -> Outcome:
    """Distil as `run` does, and for every seed train the student alone and distilled; what is done is not done again.

    Args:
        recipe: what to do; distils.
        folder: where to leave everything.
        seeds: different ones, the recipe's own among them.
        device: as `run` takes it.
        resume: go on with what is there; False: start every run anew.
        given: `teacher` and whatever else `run` takes, for every run.

    Raises:
        EdgekdError: as `run`; what is wrong with the recipe, the teacher or `folder` is found before the first run.
    """
    place = choose_device(device)
    jobs = _jobs(recipe, seeds)
    total = len(jobs) + 1
    found: dict[str, dict[int, Metrics]] = {"alone": {}, "distilled": {}}
    with process_group(place):
        planned, data = _planned(recipe, folder, place, resume, given)
        for number, job in enumerate(jobs, 1):
            here = folder / FOLDER / job.name
            expected = _Result({**planned[job.kind], "train.seed": job.seed}, data)
            metrics = on_first_rank(partial(expected.read if resume else expected.forget, here))
            said = f"run {number} of {total}: {_words(job.kind)}, seed {job.seed}"
            announce(said if metrics is None else f"{said}: done before")
            if metrics is None:
                if job.kind == "distilled":
                    on_first_rank(partial(_share_labels, folder, here))
                metrics = _trained(job, here, place, resume, given)
            found[job.kind][job.seed] = metrics
        announce(f"run {total} of {total}: {_words('distilled')}, seed {recipe.train.seed}, for the bundle")

        def compared(own: Metrics) -> tuple[Comparison, ...]:
            distilled = {**found["distilled"], recipe.train.seed: own}
            return compare(found["alone"], {seed: distilled[seed] for seed in seeds})

        return run(recipe, folder, device=device, resume=resume, compare=compared, **given)


def alone(recipe: Recipe) -> Recipe:
    """Return the recipe of the same student without distillation."""
    return recipe.replace(distill=(), teacher=None, teachers={}, unlabelled=None)


def _jobs(recipe: Recipe, seeds: Sequence[int]) -> list[Job]:
    """Return the runs beside the bundle's own, pair by pair."""
    jobs = []
    for seed in seeds:
        seeded = recipe.replace(train=dataclasses.replace(recipe.train, seed=seed))
        if seed != recipe.train.seed:
            jobs.append(Job("distilled", seeded))
        jobs.append(Job("alone", alone(seeded)))
    return jobs


def _words(kind: str) -> str:
    return "student alone" if kind == "alone" else "student distilled"


def _planned(
    recipe: Recipe, folder: Path, place: torch.device, resume: bool, given: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return what decides the outcome of a run of each kind, but for the seed, and the data's fingerprints.

    Both kinds are set up once, on the recipe's own seed: what is wrong with them shows now and not after hours.
    """
    planned = {}
    beside = folder / FOLDER / f"alone-seed{recipe.train.seed}"
    for kind, plan, here in (("distilled", recipe, folder), ("alone", alone(recipe), beside)):
        with switches_restored():
            trainer, splits = make_trainer(plan, here, place, resume=resume, **given)
            planned[kind] = trainer.identity.to_dict()
    return planned, _fingerprints(splits)


def _fingerprints(splits: dict[str, Dataset]) -> dict[str, str]:
    return {name: data_fingerprint(split) for name, split in splits.items()}


def _share_labels(folder: Path, here: Path) -> None:
    """Give a run the pseudo-labels of the bundle's own, which somebody may have corrected."""
    if (folder / LABELS).is_file():
        here.mkdir(parents=True, exist_ok=True)
        write_bytes(here / LABELS, (folder / LABELS).read_bytes())


def _trained(job: Job, folder: Path, place: torch.device, resume: bool, given: dict[str, Any]) -> Metrics:
    """Train, measure, and write the result."""
    with switches_restored():
        trainer, splits = make_trainer(job.recipe, folder, place, resume=resume, **given)
        trainer.run()
        return on_first_rank(lambda: _measured(trainer, splits, folder))


def _measured(trainer: Trainer, splits: dict[str, Dataset], folder: Path) -> Metrics:
    metrics = measure(trainer, splits)
    _Result(trainer.identity.to_dict(), _fingerprints(splits)).write(folder, metrics)
    return metrics


@dataclass(frozen=True)
class _Result:
    """`result.json` of a finished run: its figures, and what they hold for."""

    identity: dict[str, Any]
    data: dict[str, str]

    def write(self, folder: Path, metrics: Metrics) -> None:
        row = {"metrics": _without_nan(metrics), **dataclasses.asdict(self)}
        write_bytes(folder / RESULT, (json.dumps(row, indent=2, allow_nan=False) + "\n").encode())

    def read(self, folder: Path) -> Metrics | None:
        """Return the figures if they hold for this run and data; None if it is not done, or was another."""
        try:
            row = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            mine = {"identity": comparable(self.identity, row["identity"]), "data": self.data}
            return dict(row["metrics"]) if {key: row[key] for key in mine} == mine else None
        except (OSError, ValueError, TypeError, KeyError):  # none, or damaged
            return None

    def forget(self, folder: Path) -> None:
        """Remove what an earlier run left, so that this one, if it is stopped, does not pass for done."""
        (folder / RESULT).unlink(missing_ok=True)


def _without_nan(value: Any) -> Any:
    """Return figures with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
