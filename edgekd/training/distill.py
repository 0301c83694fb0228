"""The distillation harness: what every method gets, and what none of them can touch.

It matches levels by stride, resizes, seeds, owns the adapters, weights and warms up. A run whose weights are all 0 is
bit-identical to one without distillation: adapters draw from a generator of their own, and are clipped apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import RecipeError
from .methods import Method, Scene, Taps, method
from .seeding import derived_seed, forked_random

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._recipe import DistillConfig


class Distiller(nn.Module):
    """All `[[distill]]` entries of a run; its parameters are the adapters'.

    Args:
        entries: what to distil; the losses add up.
        student: pyramid level -> channels.
        teacher: pyramid level -> channels.
        seed: of the adapters' weights and the methods' random draws.

    Raises:
        RecipeError: an unknown method or option, a level that one of the networks lacks, or no level in common.
    """

    def __init__(
        self, entries: Sequence[DistillConfig], student: Mapping[int, int], teacher: Mapping[int, int], seed: int
    ) -> None:
        super().__init__()
        self.entries = tuple(entries)
        self.methods: list[Method] = [method(entry.method, **entry.options) for entry in entries]
        self.names = _unique([entry.method for entry in entries])
        self.levels = [_matched(entry, student, teacher) for entry in entries]
        self.seed = seed
        self.adapters = nn.ModuleList()
        for name, each, levels in zip(self.names, self.methods, self.levels, strict=True):
            with forked_random(derived_seed(seed, "adapters", name), torch.device("cpu")):
                self.adapters.append(each.adapters({level: (student[level], teacher[level]) for level in levels}))

    @property
    def needs_head(self) -> bool:
        """Whether some method looks at head outputs."""
        return any(each.needs_head for each in self.methods)

    def forward(self, student: Taps, teacher: Taps, scene: Scene) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of all losses, and each one by name ("pkd.p3" ...) unweighted, detached."""
        device = next(iter(student.features.values())).device
        total = torch.zeros((), device=device)
        values: dict[str, Tensor] = {}
        parts = zip(self.entries, self.methods, self.names, self.levels, self.adapters, strict=True)
        with torch.autocast(device.type, enabled=False):
            for entry, each, name, levels, adapters in parts:
                ours, theirs = _aligned(student, teacher, levels)
                with forked_random(derived_seed(self.seed, "draws", name, scene.step), device):
                    losses = each(ours, theirs, adapters, scene)
                total = total + warmed_weight(entry, scene.step) * torch.stack(list(losses.values())).sum()
                values.update({f"{name}.{key}": loss.detach() for key, loss in losses.items()})
        return total, values


def warmed_weight(entry: DistillConfig, step: int) -> float:
    """Return the entry's weight at step `step` (0-based): it rises linearly over `entry.warmup` steps."""
    return entry.weight * min(1.0, (step + 1) / entry.warmup) if entry.warmup else entry.weight


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
