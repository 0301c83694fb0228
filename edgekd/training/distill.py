"""The distillation harness: what every method gets, and what none of them can touch.

It matches levels by stride, resizes, seeds, owns the adapters, weights and warms up. A run whose weights are all 0 is
bit-identical to one without distillation: adapters draw from a generator of their own, and are clipped apart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RecipeError
from .methods import Method, Scene, Taps, method
from .models.heads import HeadOutputs
from .seeding import derived_seed, forked_random

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .._recipe import DistillConfig
    from .methods import Observed


class Distiller(nn.Module):
    """All `[[distill]]` entries of a run; its parameters are the adapters'.

    Args:
        entries: what to distil; the losses add up.
        student: pyramid level -> channels.
        teachers: name -> pyramid level -> channels.
        seed: of the adapters' weights and the methods' random draws.

    Raises:
        RecipeError: an unknown method, option or teacher, a level that a network lacks, or no level in common.
    """

    def __init__(
        self,
        entries: Sequence[DistillConfig],
        student: Mapping[int, int],
        teachers: Mapping[str, Mapping[int, int]],
        seed: int,
    ) -> None:
        super().__init__()
        names = _unique([entry.method for entry in entries])
        self.parts = [_part(name, entry, student, teachers) for name, entry in zip(names, entries, strict=True)]
        self.seed = seed
        self.adapters = nn.ModuleList()
        for part in self.parts:
            channels = {level: (student[level], teachers[part.entry.teacher][level]) for level in part.levels}
            with forked_random(derived_seed(seed, "adapters", part.name), torch.device("cpu")):
                self.adapters.append(part.method.adapters(channels))

    def needs_head(self, teacher: str) -> bool:
        """Whether some method looks at head outputs of this teacher."""
        return any(part.method.needs_head for part in self.parts if part.entry.teacher == teacher)

    def asked(self, step: int, steps: int) -> dict[str, bool]:
        """Return the teachers that some entry looks at in a step, and whether the head of each has to run."""
        found: dict[str, bool] = {}
        for part in self.parts:
            if not is_over(part.entry, step, steps):
                found[part.entry.teacher] = found.get(part.entry.teacher, False) or part.method.needs_head
        return found

    def comparing_classes(self, teacher: str) -> tuple[str, ...]:
        """Return the entries, by their names in the log, that pair this teacher's classes with the student's."""
        paired = (part for part in self.parts if getattr(part.method, "compares_classes", False))
        return tuple(part.name for part in paired if part.entry.teacher == teacher)

    @property
    def remedies(self) -> dict[str, str]:
        """What to change in an entry that does not bring the networks together, by name, where its method knows."""
        found = {part.name: getattr(part.method, "unlike_remedy", "") for part in self.parts}
        return {name: remedy for name, remedy in found.items() if remedy}

    def forward(self, student: Taps, teachers: Mapping[str, Taps], scene: Scene) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of all losses, and each one by name ("pkd.p3" ...) unweighted, detached.

        An entry that is over has no losses: only the teachers that `asked` names have to be shown.
        """
        device = next(iter(student.features.values())).device
        total = torch.zeros((), device=device)
        values: dict[str, Tensor] = {}
        with torch.autocast(device.type, enabled=False):
            for part, adapters in zip(self.parts, self.adapters, strict=True):
                if is_over(part.entry, scene.step, scene.steps):
                    total = total + _nothing(adapters, device)
                    continue
                weight = scheduled_weight(part.entry, scene.step, scene.steps)
                shown = student if weight else _detached(student)
                ours, theirs = _aligned(shown, teachers[part.entry.teacher], part.levels)
                with forked_random(derived_seed(self.seed, "draws", part.name, scene.step), device):
                    losses = part.method(ours, theirs, adapters, scene)
                total = total + weight * torch.stack(list(losses.values())).sum()
                values.update({f"{part.name}.{key}": loss.detach() for key, loss in losses.items()})
        return total, values

    @torch.no_grad()
    def observe(
        self, student: Taps, teachers: Mapping[str, Taps], scene: Scene, *, over: bool = False
    ) -> Iterator[Observation]:
        """Yield what each entry compares and weighs on a batch; those that are over too, if asked for by `over`."""
        device = next(iter(student.features.values())).device
        with torch.autocast(device.type, enabled=False):
            for part, adapters in zip(self.parts, self.adapters, strict=True):
                if not over and is_over(part.entry, scene.step, scene.steps):
                    continue
                ours, theirs = _aligned(student, teachers[part.entry.teacher], part.levels)
                with forked_random(derived_seed(self.seed, "draws", part.name, scene.step), device):
                    found = part.method.observe(ours, theirs, adapters, scene)
                yield Observation(part.name, ours, theirs, found)


class Observation(NamedTuple):
    """One entry's view of a batch: name in the log, the maps of both networks on one grid, what the method shows."""

    name: str
    student: Taps
    teacher: Taps
    found: Observed


class _Part(NamedTuple):
    """One [[distill]] entry: its name in the log, its method and the levels it compares."""

    name: str
    entry: DistillConfig
    method: Method
    levels: tuple[int, ...]


def _part(
    name: str, entry: DistillConfig, student: Mapping[int, int], teachers: Mapping[str, Mapping[int, int]]
) -> _Part:
    if entry.teacher not in teachers:
        raise RecipeError(f"distill {entry.method!r}: no teacher {entry.teacher!r}; possible: {', '.join(teachers)}")
    if entry.schedule not in SCHEDULES:
        raise RecipeError(f"distill {entry.method!r}: no schedule {entry.schedule!r}; possible: {', '.join(SCHEDULES)}")
    return _Part(name, entry, method(entry.method, **entry.options), _matched(entry, student, teachers[entry.teacher]))


SCHEDULES = ("constant", "linear", "cosine")


def is_over(entry: DistillConfig, step: int, steps: int) -> bool:
    """Return whether step `step` (0-based) of `steps` lies behind the share `entry.until` of the run.

    An entry of weight 0 is not over: who sets that wants to see the losses without learning from them.
    """
    return step >= entry.until * steps


def scheduled_weight(entry: DistillConfig, step: int, steps: int) -> float:
    """Return the entry's weight at step `step` (0-based) of `steps`.

    It rises linearly over `entry.warmup` steps and falls to 0 at the share `entry.until` of the run: at once
    ("constant"), along a line from the start, or along half a cosine.
    """
    if is_over(entry, step, steps):
        return 0.0
    done = step / (entry.until * steps)
    falling = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[entry.schedule]
    rising = min(1.0, (step + 1) / entry.warmup) if entry.warmup else 1.0
    return entry.weight * rising * falling


def _nothing(adapters: nn.Module, device: torch.device) -> Tensor:
    """Return a zero that is connected to what an entry trains.

    DDP wants every parameter in the graph, and the optimiser goes on as after a loss of weight 0.
    """
    zeros = [parameter.sum() * 0 for parameter in adapters.parameters() if parameter.requires_grad]
    return torch.stack(zeros).sum() if zeros else torch.zeros((), device=device)


def _aligned(student: Taps, teacher: Taps, levels: Sequence[int]) -> tuple[Taps, Taps]:
    """Return the matched levels in float32, the student's maps on the teacher's grids."""
    ours, theirs = {}, {}
    for level in levels:
        theirs[level] = teacher.features[level].detach()
        ours[level] = student.features[level].float()
        grid = theirs[level].shape[2:]
        if ours[level].shape[2:] != grid:
            ours[level] = F.interpolate(ours[level], grid, mode="bilinear", align_corners=False)
    return Taps(ours, student.head, student.network), Taps(theirs, teacher.head, teacher.network)


def _detached(student: Taps) -> Taps:
    """Return what the student shows, out of its graph.

    A gradient of zeros that is added to one of a head's maps may change how that lies in memory, and so the order in
    which a bias sums it up. Adapters stay in the graph.
    """
    head = student.head
    if isinstance(head, HeadOutputs):
        head = HeadOutputs(*(tuple(item.detach() for item in maps) for maps in head))
    return Taps({level: features.detach() for level, features in student.features.items()}, head, student.network)


def _matched(entry: DistillConfig, student: Mapping[int, int], teacher: Mapping[int, int]) -> tuple[int, ...]:
    both = tuple(sorted(set(student) & set(teacher)))
    said = f"student has {_list(student)}, teacher has {_list(teacher)}"
    if not both:
        raise RecipeError(f"distill {entry.method!r}: no pyramid level in common: {said}")
    wanted = both if entry.levels is None else entry.levels
    lacking = [level for level in wanted if level not in both]
    if lacking or not wanted:
        raise RecipeError(f"distill {entry.method!r}: levels {list(wanted)} asked for, possible: {list(both)} ({said})")
    return tuple(wanted)


def _list(levels: Mapping[int, int]) -> str:
    return ", ".join(f"P{level}" for level in levels)


def _unique(names: Sequence[str]) -> list[str]:
    """Number the second and later entries of one method: pkd, pkd2 ..."""
    before = [names[:index].count(name) for index, name in enumerate(names)]
    return [f"{name}{count + 1}" if count else name for name, count in zip(names, before, strict=True)]
