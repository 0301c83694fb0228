"""`Comparison`: one figure of the same student trained alone and distilled, over the same seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BETTER = "better by more than two standard errors"
WORSE = "worse by more than two standard errors"
NOISE = "within the noise"
UNKNOWN = "one seed: no verdict"
VERDICTS = (BETTER, WORSE, NOISE, UNKNOWN)
DEFAULT_SEEDS = 3
MAX_SEEDS = 256


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What distillation changed in one figure: runs with the same budget, data and seeds, paired by seed.

    Attributes:
        metric: "AP", "AP50" ...
        split: "val" or "test".
        seeds: of the runs, in order; all that follows has one value a seed.
        alone: figures of the student without distillation, fractions in [0, 1].
        distilled: figures of the student with it.
    """

    metric: str
    split: str
    seeds: tuple[int, ...]
    alone: tuple[float, ...]
    distilled: tuple[float, ...]

    @property
    def gains(self) -> tuple[float, ...]:
        """Distilled less alone, seed by seed."""
        return tuple(ours - theirs for ours, theirs in zip(self.distilled, self.alone, strict=True))

    @property
    def gain(self) -> float:
        """Mean of the gains."""
        return _mean(self.gains)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean gain: the gains' sample standard deviation / √seeds; None for one seed."""
        std = deviation(self.gains)
        return None if std is None else std / math.sqrt(len(self.seeds))

    @property
    def verdict(self) -> str:
        """What the gain is worth, one of `VERDICTS`."""
        error = self.standard_error
        if error is None:
            return UNKNOWN
        if abs(self.gain) <= 2 * error:
            return NOISE
        return BETTER if self.gain > 0 else WORSE

    @property
    def chance(self) -> float | None:
        """How often noise alone puts a mean gain more than two standard errors from 0, up or down; None for one seed.

        The tail of Student's t beyond 2 with seeds - 1 degrees of freedom, gains taken as normal (Abramowitz and
        Stegun, 26.7.3-4): 0.30 for 2 seeds, 0.18 for 3, 0.12 for 5.
        """
        freedom = len(self.seeds) - 1
        if freedom < 1:
            return None
        angle = math.atan(2 / math.sqrt(freedom))
        odd = freedom % 2
        term, total = (math.cos(angle) if odd else 1.0), 0.0
        for power in range(odd, freedom - 1, 2):
            total += term
            term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
        total *= math.sin(angle)
        return 1 - (2 / math.pi * (angle + total) if odd else total)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Comparison:
        """Return the comparison of a receipt that a bundle's reader has accepted, with its raw values alone."""
        said = row["comparison"]
        return cls(
            metric=said["metric"],
            split=str(row.get("split", "")),
            seeds=tuple(said["seeds"]),
            alone=tuple(said["alone"]["values"]),
            distilled=tuple(said["distilled"]["values"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a row for the bundle's receipts; its value is the mean gain."""
        gain = {**_described(self.gains), "standard_error": self.standard_error}
        return {
            "what": f"gain in {self.metric} by distillation",
            "value": self.gain,
            "split": self.split,
            "comparison": {
                "metric": self.metric,
                "seeds": list(self.seeds),
                "alone": _described(self.alone),
                "distilled": _described(self.distilled),
                "gain": gain,
                "verdict": self.verdict,
            },
        }


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation (n - 1 in the denominator), or None for a single value."""
    import statistics  # ten modules that loading a bundle does without

    return statistics.stdev(values) if len(values) > 1 else None


def _mean(values: Sequence[float]) -> float:
    import statistics

    return statistics.fmean(values)


def _described(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": _mean(values), "std": deviation(values), "values": list(values)}


def compare(
    alone: Mapping[int, Mapping[str, Mapping[str, Any]]], distilled: Mapping[int, Mapping[str, Mapping[str, Any]]]
) -> tuple[Comparison, ...]:
    """Return one comparison a split and figure, of those that are finite in every run.

    Args:
        alone: seed -> split -> figure -> value, of the student without distillation.
        distilled: the same with it, for the same seeds.
    """
    seeds = tuple(distilled)
    runs = [*(alone[seed] for seed in seeds), *distilled.values()]
    return tuple(
        Comparison(
            metric=metric,
            split=split,
            seeds=seeds,
            alone=tuple(alone[seed][split][metric] for seed in seeds),
            distilled=tuple(distilled[seed][split][metric] for seed in seeds),
        )
        for split, figures in runs[0].items()
        for metric in figures
        if all(_is_figure(run[split][metric]) for run in runs)
    )


def _is_figure(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def chosen_seeds(seeds: Sequence[int] | None, own: int) -> tuple[int, ...]:
    """Return the seeds of a receipt; None: the recipe's own and the two after it.

    Raises:
        UsageError: one is negative or named twice, there are none or too many, or the recipe's own is not among them.
    """
    if seeds is None:
        return tuple(range(own, own + DEFAULT_SEEDS))
    chosen = tuple(seeds)
    listed = ", ".join(map(str, chosen)) or "none"
    if not 1 <= len(chosen) <= MAX_SEEDS or len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise UsageError(f"seeds should be 1 to {MAX_SEEDS} different numbers from 0 (2 for a spread), got {listed}")
    if own not in chosen:
        raise UsageError(
            f"seeds {listed} lack the recipe's own seed {own}, whose run becomes the bundle: add it, or ask for "
            f"another one (--seed {chosen[0]})"
        )
    return chosen
