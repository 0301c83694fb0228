"""Attention with parameters: the two gates of CBAM (Woo et al., ECCV 2018, section 3)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ._focal import Attention, sharpened


class CBAM(nn.Module):
    """`(N, C, H, W)` magnitudes -> the gate of each cell `(N, H, W)` and of each channel `(N, C)`, all in (0, 1)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.cells = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.channels = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False)
        )

    def forward(self, magnitudes: Tensor) -> tuple[Tensor, Tensor]:
        """Return both gates."""
        over_channels = torch.stack([magnitudes.amax(dim=1), magnitudes.mean(dim=1)], dim=1)
        summed = self.channels(magnitudes.amax(dim=(2, 3))) + self.channels(magnitudes.mean(dim=(2, 3)))
        return self.cells(over_channels).squeeze(1).sigmoid(), cast("Tensor", summed).sigmoid()


def gated_attention(features: Tensor, gates: nn.Module, tau: float) -> Attention:
    """Return the attention of a `CBAM`'s gates on the magnitudes of `(N, C, H, W)`."""
    cells, channels = gates(features.abs())
    return sharpened(cells, channels, tau)
