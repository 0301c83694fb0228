"""When a distillation goes wrong: rules over what a run logs, each with what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SHRUNK = 0.3  # of the teacher's spread
CONCENTRATED = 0.5  # of the distillation's gradient at the neck, where there are three levels or more
UNLIKE = 0.6  # mean correlation by the middle of the run
SHARP = 50.0  # largest attention, whose mean is 1
DEAD = 0.5  # of the student's channels
OVERWHELMED = 10.0  # distillation's gradient over the detector's
CLOSED = 0.05  # mean share of one of two anomaly teachers in their fusion


class Advice:
    """Warns once for each rule, entry and level.

    Args:
        steps: optimiser steps of the run.
        remedies: what to change in an entry that does not bring the networks together, by its name in the log; an
            entry that is not here has its weight to raise.
    """

    def __init__(self, steps: int, remedies: Mapping[str, str] | None = None) -> None:
        self.steps = steps
        self._remedies = dict(remedies or {})
        self._first: dict[str, float] = {}
        self._said: set[str] = set()

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in the lines of `metrics.jsonl` before a resumed run goes on."""
        for row in rows:
            self.read(int(row["step"]), row)

    def read(self, step: int, row: Mapping[str, Any]) -> list[str]:
        """Return what there is to say after `step` finished steps, for one line of the log."""
        for key, value in row.items():
            if key.startswith("observed.") and ".spread." in key:
                self._first.setdefault(key, value)
        fresh = []
        for rule, text in self._found(step, row):
            if rule not in self._said:
                self._said.add(rule)
                fresh.append(text)
        return fresh

    def _found(self, step: int, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (what identifies the warning, its text)."""
        for key, value in row.items():
            if key.startswith("observed."):
                _, entry, figure, level = key.split(".")
                text = self._of_level(key, f"{entry}, {level.upper()}", figure, value)
                if text:
                    yield key, text
            if key.startswith("gate.") and not CLOSED <= value <= 1 - CLOSED:
                yield key, _gate(key, value)
        middle = step >= self.steps / 2
        if middle:
            heavy = tuple(_overwhelmed(row))
            yield from self._unlike(row, heavy=bool(heavy))
            yield from heavy
        if step >= self.steps / 10:  # at the very beginning any level may lead
            yield from _concentrated(row)

    def _of_level(self, key: str, where: str, figure: str, value: float) -> str:
        if figure == "spread" and value < SHRUNK <= self._first[key] / 2:
            return (
                f"{where}: the student's features shrink (spread {value:.2f} of the teacher's, at first"
                f" {self._first[key]:.2f}): use a loss that does not see scale (pkd, or xfkd with mode = "
                '"none"), or lower the weight'
            )
        if figure == "attention_max" and value > SHARP:
            return (
                f"{where}: the attention has a peak of {value:.0f} times its mean, so that a few cells decide:"
                " raise tau, or set att_norm = true where the method has it"
            )
        if figure == "dead" and value > DEAD:
            return (
                f"{where}: {100 * value:.0f} % of the student's channels hardly vary: lower train.lr or the weight,"
                " or lengthen warmup"
            )
        return ""

    def _unlike(self, row: Mapping[str, Any], *, heavy: bool) -> Iterator[tuple[str, str]]:
        """Yield entries that do not bring the networks together; `heavy`: their weights are too large already."""
        entries = {key.split(".")[1] for key in row if key.startswith("observed.") and ".r." in key}
        for entry in sorted(entries):
            values = [value for key, value in row.items() if key.startswith(f"observed.{entry}.r.")]
            mean = sum(values) / len(values)
            if mean < UNLIKE:
                remedy = self._remedies.get(entry, "" if heavy else "raise its weight")
                text = (
                    f"{entry}: student and teacher correlate by {mean:.2f} only, half-way through the run (usual: 0.6):"
                    f" {remedy + ', or ' if remedy else ''}train for more steps"
                )
                yield f"unlike {entry}", text


def _gate(key: str, share: float) -> str:
    which = "first" if share < CLOSED else "second"
    return (
        f"{key}: the fusion leaves out the {which} teacher (share of the first: {share:.2f}): name the other "
        "teacher alone, with model.target = 'single', or have both predicted, with 'both_raw'"
    )


def _neck(row: Mapping[str, Any], part: str) -> dict[str, float]:
    prefix = f"neck.{part}."
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}


def _concentrated(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    norms = _neck(row, "distill")
    total = sum(norms.values())
    for level, norm in norms.items():
        if sum(value > 0 for value in norms.values()) > 2 and norm > CONCENTRATED * total:
            text = (
                f"{level.upper()} has {100 * norm / total:.0f} % of the distillation's gradient at the neck: give it a"
                f" [[distill]] entry of its own (levels = [{level[1:]}]) with a smaller weight"
            )
            yield f"concentrated {level}", text


def _overwhelmed(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    taught, own = sum(_neck(row, "distill").values()), sum(_neck(row, "detect").values())
    if own > 0 and taught > OVERWHELMED * own:
        text = (
            f"the distillation's gradient at the neck is {taught / own:.0f} times the detector's: lower the weights, or"
            ' let them fall (schedule = "cosine")'
        )
        yield "overwhelmed", text
