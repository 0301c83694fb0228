"""Imitation weighted by the teacher's own magnitudes over cells and channels: the LSFI part of FAD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ._standardise import DEAD

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

_TINY = 1e-12  # a mean magnitude is floored here: a map of zeros gets equal weights


def spatial_energies(maps: Mapping[int, Tensor], scales: Sequence[int], refine: bool) -> dict[int, Tensor]:
    """Return E of each level `(N, C, H, W)` as `(N, H, W)`, mean about 1 in each image, blind to a map's scale.

    e = ½ (mean_c|X| and max_c|X|, each over its own mean in the image); E = mean over the scales k of e averaged over
    k×k cells. With `refine` each level then becomes the mean of itself and of the next coarser one, top down.
    """
    energies = {level: _at_scales(_energy(maps[level].abs(), dim=1), scales) for level in sorted(maps, reverse=True)}
    if not refine:
        return energies
    coarser: Tensor | None = None
    for level, energy in energies.items():
        if coarser is not None:
            above = F.interpolate(coarser.unsqueeze(1), energy.shape[1:], mode="bilinear", align_corners=False)
            energies[level] = (energy + above.squeeze(1)) / 2
        coarser = energies[level]
    return energies


def channel_energy(features: Tensor) -> Tensor:
    """Return g of a map `(N, C, H, W)` as `(N, C)`: ½ (mean_hw|X| and max_hw|X|, each over its mean in the image)."""
    return _energy(features.abs().flatten(2), dim=2)


def imitation_loss(ours: Tensor, theirs: Tensor, cells: Tensor | None, channels: Tensor | None) -> Tensor:
    """Return mean A^S A^C (F − T)² / mean T² over `(N, C, H, W)` maps.

    Args:
        ours: the student's map.
        theirs: the teacher's map; one of zeros says nothing and returns a connected zero.
        cells: A^S `(N, H, W)`; None: all alike.
        channels: A^C `(N, C)`; None: all alike.
    """
    error = (ours - theirs).square()
    error = error.mean(dim=1) if channels is None else torch.einsum("nchw,nc->nhw", error, channels) / error.shape[1]
    loss = error.mean() if cells is None else (error * cells).mean()
    power = theirs.square().mean()
    return loss / power.clamp(min=DEAD**2) * (power > DEAD**2)


def _energy(magnitudes: Tensor, dim: int) -> Tensor:
    """Return ½ (mean and maximum over `dim`, each over its own mean in the image)."""
    parts = magnitudes.mean(dim=dim), magnitudes.amax(dim=dim)
    left = tuple(range(1, magnitudes.ndim - 1))
    mean, peak = (part / part.mean(dim=left, keepdim=True).clamp(min=_TINY) for part in parts)
    return (mean + peak) / 2


def _at_scales(energy: Tensor, scales: Sequence[int]) -> Tensor:
    """Return the mean over the scales of `(N, H, W)` averaged over k×k cells, interpolated back."""
    height, width = energy.shape[1:]
    total = torch.zeros_like(energy)
    for k in scales:
        coarse = F.avg_pool2d(energy.unsqueeze(1), k, ceil_mode=True)  # a cell over the border: of what is inside
        # By the factor and cut, not to the size: a last cell that reaches over the border must not shift the others.
        fine = F.interpolate(coarse, scale_factor=float(k), mode="bilinear", align_corners=False)
        total = total + fine[:, 0, :height, :width]
    return total / len(scales)
