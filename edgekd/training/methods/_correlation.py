"""Pearson correlation of feature maps, channel by channel over the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ._standardise import DEAD

SMALLEST_MAP = 16  # values of a channel below which its correlation says nothing


def correlation_loss(ours: Tensor, theirs: Tensor, eps: float = 1e-6) -> Tensor:
    """Return ½·mean (z(F) − z(T))² over `(N, C, H, W)` float32 maps: mean over channels of (1 − r)(m − 1)/m, in [0, 2].

    Guards: the student's deviation is floored at 1e-3 of the teacher's median one (a dead map would otherwise have a
    gradient a million times the usual); teacher channels with a deviation below 1e-5 are left out; a map of fewer than
    16 values a channel is skipped. What is skipped returns a zero connected to `ours`.
    """
    m = theirs.numel() // theirs.shape[1]
    if m < SMALLEST_MAP:
        return ours.sum() * 0
    x, y = _rows(ours), _rows(theirs)
    y = y - y.mean(dim=0)
    spread_t = (y.square().sum(dim=0) / (m - 1)).sqrt()
    y = y / (spread_t + eps)
    x = x - x.detach().mean(dim=0)  # exact: a sum of squares has no slope in its mean, and y sums to nothing
    var = x.square().sum(dim=0) / (m - 1)
    floor = (1e-3 * spread_t.median()).clamp(min=1e-12)
    scale = 1 / (torch.maximum(var, floor.square()).sqrt() + eps)
    squares = scale.square() * var * (m - 1) + y.square().sum(dim=0) - 2 * scale * (x * y).sum(dim=0)
    alive = (spread_t > DEAD).to(x.dtype)
    return (squares.clamp(min=0) / (2 * m) * alive).sum() / alive.sum().clamp(min=1)


def channel_correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return Pearson's r over (N, H, W), mean over the channels in which the teacher varies; 0 where ours does not."""
    x, y = (_rows(maps) - _rows(maps).mean(dim=0) for maps in (ours, theirs))
    norms = x.norm(dim=0) * y.norm(dim=0)
    r = (x * y).sum(dim=0) / norms.clamp(min=1e-12)
    alive = (spread(theirs) > DEAD).to(r.dtype)
    mean: Tensor = (r * alive).sum() / alive.sum().clamp(min=1)
    return mean


def spread(features: Tensor) -> Tensor:
    """Return the standard deviation `(C,)` of each channel of `(N, C, H, W)` over (N, H, W)."""
    return _rows(features).std(dim=0, correction=0)


def _rows(features: Tensor) -> Tensor:
    """Return `(N, C, H, W)` as `(N H W, C)`: no copy where the channels lie innermost in memory."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)
