"""Standardised maps, and the teacher's mixed into the student's (XFKD, Ren et al., AEI 65, 2025, 103125)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-3  # of a deviation, as a part of the usual one


class Mixed(NamedTuple):
    """What is compared: the student's side and the teacher's, `(N, C, H, W)`, and which channels `(C,)` count."""

    ours: Tensor
    theirs: Tensor
    alive: Tensor


def mixed(ours: Tensor, theirs: Tensor, mode: str, rho: float) -> Mixed:
    """Return M and z(T), where z standardises each channel over `(N, H, W)`, without parameters.

    "pre_norm": M = z(z(S) + rho z(T)); "sum": M = z(S + rho T); "none": M = z(S). A deviation is floored at 1e-3 of the
    teacher's mean one. A teacher's channel below that floor does not count: there is nothing to learn from it. In a
    student's channel below it, "pre_norm" mixes nothing in: z(z(T)) = z(T) would call a dead channel perfect.
    """
    centred_t, variance_t = _centred(theirs)
    least = (FLOOR * variance_t.sqrt().mean()).square().clamp(min=1e-24)
    target, alive = centred_t / torch.maximum(variance_t, least).sqrt(), variance_t > least
    if mode == "sum":
        found, variance = _centred(ours + rho * theirs)
        return Mixed(found / torch.maximum(variance, least).sqrt(), target, alive.flatten())
    found, variance = _centred(ours)
    scale = torch.maximum(variance, least).rsqrt()
    if mode == "none" or rho == 0:
        return Mixed(found * scale, target, alive.flatten())
    living = variance.detach() > least
    part = rho * living
    # The mix's own variance, by that of a sum. A dead channel is not divided by it: its slope, already a thousand times
    # the usual one, would be a million times.
    both = scale.square() * variance + part * (part + 2 * scale * _mean(found * target))
    spread = torch.where(living, both.clamp(min=FLOOR**2).sqrt(), 1.0)
    return Mixed(found * (scale / spread) + target * (part / spread), target, alive.flatten())


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the map less each channel's mean over the batch, and its variance `(1, C, 1, 1)`."""
    centred = features - _mean(features)
    return centred, _mean(centred.square())


def _mean(features: Tensor) -> Tensor:
    return features.mean(dim=(0, 2, 3), keepdim=True)
