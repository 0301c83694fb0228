"""What a run looks at besides its losses: where the gradient comes from, and how close the maps are.

Per pyramid level: the gradient norm at the neck of the detector's loss and of the distillation, and for each method the
mean correlation, the ratio of spreads, the share of dead channels and the largest attention. `advice` reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .methods._correlation import channel_correlation, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .distill import Observation

OBSERVE_EVERY = 50  # steps; the gradients cost a part of a backward pass
DEAD = 1e-3  # of the teacher's median spread: a student channel below it says nothing
_SCALE = 1024.0  # a power of two: exact, and keeps float16 gradients above their smallest number


def gradient_norms(loss: Tensor, features: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Return "p3" ... -> L2 norm of the loss's gradient in that level's neck output; the graph is kept."""
    if not loss.requires_grad:
        return {f"p{level}": loss.new_zeros(()) for level in features}
    found = torch.autograd.grad(_SCALE * loss, list(features.values()), retain_graph=True, allow_unused=True)
    norms = (loss.new_zeros(()) if grad is None else grad.float().norm() / _SCALE for grad in found)
    return {f"p{level}": norm.detach() for level, norm in zip(features, norms, strict=True)}


@torch.no_grad()
def statistics(seen: Observation) -> dict[str, Tensor]:
    """Return the figures of one entry, by name and level ("r.p3" ...).

    `r`: Pearson correlation of aligned student and teacher channels over the batch, mean over the teacher's live
    channels. `spread`: mean standard deviation of the aligned map over the teacher's. `dead`: share of the student's
    own channels that hardly vary. `attention_max`: largest value of the teacher's attention, whose mean is 1.
    """
    figures: dict[str, Tensor] = {}
    for level, ours in seen.found.aligned.items():
        theirs = seen.teacher.features[level]
        figures[f"r.p{level}"] = channel_correlation(ours, theirs)
        figures[f"spread.p{level}"] = spread(ours).mean() / spread(theirs).mean().clamp(min=1e-12)
    for level, own in seen.student.features.items():
        floor = DEAD * spread(seen.teacher.features[level]).median()
        figures[f"dead.p{level}"] = (spread(own) <= floor).float().mean()
    for level, weights in seen.found.maps.get("teacher attention", {}).items():
        figures[f"attention_max.p{level}"] = weights.max()
    return figures
