"""Self-attention over cells and over channels (DANet, Fu et al., CVPR 2019, sections 3.2-3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST_SIDE = 32  # cells; the affinity of a 100 x 168 map would take 1.1 GB an image


class DualAttention(nn.Module):
    """D(F) = PAM(F) + CAM(F), same shape; both start as the identity, since their scales start at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 8)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.cell_scale = nn.Parameter(torch.zeros(1))
        self.channel_scale = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Return D(F) of `(N, C, H, W)`."""
        query, key, value = (conv(features).flatten(2) for conv in (self.query, self.key, self.value))
        cells = value @ (query.transpose(1, 2) @ key).softmax(dim=2).transpose(1, 2)
        flat = features.flatten(2)
        affinity = flat @ flat.transpose(1, 2)
        channels = (affinity.amax(dim=2, keepdim=True) - affinity).softmax(dim=2) @ flat
        learnt: Tensor = self.cell_scale * cells + self.channel_scale * channels
        return 2 * features + learnt.view_as(features)


def pooled(features: Tensor) -> Tensor:
    """Return the map averaged down to at most 32 cells a side."""
    window = [-(-side // LONGEST_SIDE) for side in features.shape[2:]]
    return F.avg_pool2d(features, window, ceil_mode=True)


def relation_divergence(ours: Tensor, theirs: Tensor, attention: nn.Module) -> Tensor:
    """Return KL(softmax over cells of D(theirs) ‖ that of D(ours)), `(N, C)`.

    The teacher's side runs without gradient. Both sides share D, so a gradient through it could end in a D that
    flattens everything.
    """
    with torch.no_grad():
        target = attention(pooled(theirs)).flatten(2).log_softmax(dim=2)
    found = attention(pooled(ours)).flatten(2).log_softmax(dim=2)
    return F.kl_div(found, target, reduction="none", log_target=True).sum(dim=2)
