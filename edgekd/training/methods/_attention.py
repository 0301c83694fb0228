"""Attention of a feature map from its own magnitudes (FGD, Yang et al., CVPR 2022, eq. 3-6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def spatial_attention(energy: Tensor, tau: float) -> Tensor:
    """Return H W softmax(energy / tau) over the cells of `(N, H, W)`: mean 1 in each image."""
    flat = energy.flatten(1)
    return (flat.shape[1] * (flat / tau).softmax(dim=1)).view_as(energy)


def channel_attention(energy: Tensor, tau: float) -> Tensor:
    """Return C softmax(energy / tau) over the channels of `(N, C)`: mean 1 in each image."""
    return energy.shape[1] * (energy / tau).softmax(dim=1)
