"""Per-channel standardisation of feature maps over the batch."""

from __future__ import annotations

import torch
from torch import Tensor

DEAD = 1e-5  # deviation below which a teacher channel says nothing


def standardised(ours: Tensor, theirs: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """Return z(F), z(T) of `(N, C, H, W)` float32 maps, and the teacher channels that are alive, `(C,)` bool.

    z(X) = (X − μ)/(σ + eps) with mean and unbiased deviation of each channel over (N, H, W). The student's deviation is
    floored at 1e-3 of the teacher's median one, as in `correlation_loss`.
    """
    x, var_s = _centred(ours)
    y, var_t = _centred(theirs)
    spread_t = var_t.sqrt()
    floor = (1e-3 * spread_t.median()).clamp(min=1e-12)
    # The variance is floored before its root is taken: the root's slope at 0 is infinite.
    spread_s = torch.maximum(var_s, floor.square()).sqrt()
    return x / (spread_s + eps), y / (spread_t + eps), (spread_t > DEAD).flatten()


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel less its mean, and its unbiased variance `(1, C, 1, 1)`; 0 for a single value."""
    x = features - features.mean(dim=(0, 2, 3), keepdim=True)
    return x, x.square().sum(dim=(0, 2, 3), keepdim=True) / max(x.numel() // x.shape[1] - 1, 1)
