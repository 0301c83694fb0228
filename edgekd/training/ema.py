"""Exponential moving average of the weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class WeightAverage(Generic[M]):
    """Average of a model's parameters and floating-point buffers; `.model` is a copy that holds it.

    The decay of update t (1-based) is min(decay, (1 + t) / (10 + t)): the average forgets the random start within
    some ten steps, and short runs are averaged over a matching share of their steps.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def update(self, model: M, step: int) -> None:
        """Take in the weights after optimiser step `step` (0-based)."""
        decay = min(self.decay, (2 + step) / (11 + step))
        averaged, fresh = [], []
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                averaged.append(mine)
                fresh.append(theirs)
            else:
                mine.copy_(theirs)
        torch._foreach_lerp_(averaged, fresh, 1.0 - decay)  # as torch.optim.swa_utils does
