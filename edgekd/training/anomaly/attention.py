"""Attentional feature fusion (Dai et al., WACV 2021): MS-CAM and the iterative fusion of two maps (iAFF)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

REDUCTION = 4


class ChannelContext(nn.Module):
    """Logits of a gate from local and global channel context: L(x) + G(x), equations 1 and 2 of the paper.

    Both branches are 1x1 convolutions C -> C / r -> C, G after global average pooling. The published G has BatchNorm.
    Here it has none: with one value a channel and image, BatchNorm cannot train on one image, and would make the
    distillation target of an image depend on the others in its batch.
    """

    def __init__(self, channels: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.near = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.far = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape `(B, C, H, W)`."""
        logits: Tensor = self.near(features) + self.far(features)
        return logits


class ChannelAttention(nn.Module):
    """MS-CAM: x * sigmoid(L(x) + G(x))."""

    def __init__(self, channels: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        self.context = ChannelContext(channels, reduction)

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape `(B, C, H, W)`."""
        gated: Tensor = features * torch.sigmoid(self.context(features))
        return gated


class IterativeFusion(nn.Module):
    """iAFF, equations 5 and 6: a gated sum of two maps, the gate computed from a first gated sum of them.

    The second pass has a context of its own, local and global. (A widespread port takes the global branch of the first
    pass again, and leaves that of the second without gradient.)
    """

    def __init__(self, channels: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        self.first = ChannelContext(channels, reduction)
        self.second = ChannelContext(channels, reduction)

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused map and the gate w of `one`, both `(B, C, H, W)`: w * one + (1 - w) * other, w in [0, 1]."""
        gate = torch.sigmoid(self.first(one + other))
        gate = torch.sigmoid(self.second(gate * one + (1 - gate) * other))
        return gate * one + (1 - gate) * other, gate
