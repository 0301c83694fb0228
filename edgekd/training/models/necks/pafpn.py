"""Path-aggregation pyramid (PANet, Liu et al., CVPR 2018) with concatenation and CSP blocks, as in YOLOX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNormAct, CSPBlock
from .neck import Neck

if TYPE_CHECKING:
    from collections.abc import Sequence


class PAFPN(Neck):
    """Top-down then bottom-up fusion; stride-2 convolutions for levels beyond the backbone's."""

    def __init__(self, inputs: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.channels = (channels,) * levels
        steps = len(inputs) - 1
        self.laterals = nn.ModuleList(ConvNormAct(size, channels, 1) for size in inputs)
        self.top_down = nn.ModuleList(CSPBlock(2 * channels, channels) for _ in range(steps))
        self.downs = nn.ModuleList(ConvNormAct(channels, channels, 3, stride=2) for _ in range(steps))
        self.bottom_up = nn.ModuleList(CSPBlock(2 * channels, channels) for _ in range(steps))
        extra = levels - len(inputs)
        self.extra = nn.ModuleList(ConvNormAct(channels, channels, 3, stride=2) for _ in range(extra))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map feature maps `(B, inputs[i], H_i, W_i)` to `levels` maps of `channels`, finest first."""
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for index in range(len(maps) - 2, -1, -1):
            coarse = F.interpolate(maps[index + 1], scale_factor=2.0, mode="nearest")
            maps[index] = self.top_down[index](torch.cat([maps[index], coarse], dim=1))
        for index, (down, block) in enumerate(zip(self.downs, self.bottom_up, strict=True)):
            maps[index + 1] = block(torch.cat([down(maps[index]), maps[index + 1]], dim=1))
        for down in self.extra:
            maps.append(down(maps[-1]))
        return maps
