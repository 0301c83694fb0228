"""The distribution of each channel over the cells, and the divergence between two networks' (CWD)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def channel_kl(ours: Tensor, theirs: Tensor, tau: float) -> Tensor:
    """Return τ²/(N C) Σ KL(p_T ‖ p_S), p = softmax over H W of a channel `(N, C, H, W)` over τ."""
    n, c = theirs.shape[:2]
    log_s, log_t = ((x.flatten(2) / tau).log_softmax(dim=2) for x in (ours, theirs))
    return F.kl_div(log_s, log_t, reduction="sum", log_target=True) * (tau**2 / (n * c))


def mean_distribution(features: Tensor, tau: float) -> Tensor:
    """Return `(N, H, W)`: the mean over the channels of the softmax that `channel_kl` compares, scaled to mean 1."""
    n, _, h, w = features.shape
    return (features.flatten(2) / tau).softmax(dim=2).mean(dim=1).view(n, h, w) * (h * w)
