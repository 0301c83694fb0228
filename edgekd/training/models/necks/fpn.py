"""Feature pyramid network (Lin et al., CVPR 2017) with BatchNorm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNormAct
from .neck import Neck

if TYPE_CHECKING:
    from collections.abc import Sequence


class FPN(Neck):
    """Lateral 1x1 convolutions, top-down sums, a 3x3 convolution per output; extra levels by stride-2 convolutions."""

    def __init__(self, inputs: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.channels = (channels,) * levels
        self.laterals = nn.ModuleList(ConvNormAct(size, channels, 1, linear=True) for size in inputs)
        self.outputs = nn.ModuleList(ConvNormAct(channels, channels, 3) for _ in inputs)
        extra = levels - len(inputs)
        self.extra = nn.ModuleList(ConvNormAct(channels, channels, 3, stride=2) for _ in range(extra))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map feature maps `(B, inputs[i], H_i, W_i)` to `levels` maps of `channels`, finest first."""
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for index in range(len(maps) - 2, -1, -1):
            maps[index] = maps[index] + F.interpolate(maps[index + 1], scale_factor=2.0, mode="nearest")
        maps = [output(feature) for output, feature in zip(self.outputs, maps, strict=True)]
        for down in self.extra:
            maps.append(down(maps[-1]))
        return maps
