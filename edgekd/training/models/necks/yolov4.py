"""YOLOv4's neck: spatial pyramid pooling and path aggregation (Bochkovskiy et al. 2020, section 3.4)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....errors import RecipeError
from ..layers import ConvNormAct
from .neck import Neck

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEVELS = 3


class YOLOv4Neck(Neck):
    """SPP on the coarsest map, then top-down and bottom-up fusion by concatenation; outputs of c, 2c and 4c channels.

    The layers are those of the published network at c = 128. ReLU takes the place of its LeakyReLU (`layers` says why:
    a one-sided range suits int8): there is no published neck whose weights a recipe could load.

    Args:
        inputs: channels of the backbone's three feature maps, finest first.
        channels: c, of the finest output.
        levels: number of outputs, three.

    Raises:
        RecipeError: another number of levels, or a backbone without a map for each of them.
    """

    def __init__(self, inputs: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        if levels != _LEVELS or len(inputs) != _LEVELS:
            raise RecipeError(
                f"neck 'yolov4' takes three levels and a map of the backbone for each, for example levels = [3, 4, 5];"
                f" got {levels} levels and {len(inputs)} maps; necks fpn and pafpn take any"
            )
        sizes = (channels, 2 * channels, 4 * channels)
        pairs = list(pairwise(sizes))
        self.channels = sizes
        self.squeeze = _alternating(inputs[-1], sizes[-1], 1)
        self.pool = PyramidPooling()
        self.mix = _alternating(4 * sizes[-1], sizes[-1], 1)
        self.laterals = nn.ModuleList(
            ConvNormAct(count, size, 1) for count, size in zip(inputs[:-1], sizes[:-1], strict=True)
        )
        self.ups = nn.ModuleList(ConvNormAct(coarse, fine, 1) for fine, coarse in pairs)
        self.top_down = nn.ModuleList(_alternating(2 * fine, fine, 2) for fine, _ in pairs)
        self.downs = nn.ModuleList(ConvNormAct(fine, coarse, 3, stride=2) for fine, coarse in pairs)
        self.bottom_up = nn.ModuleList(_alternating(2 * coarse, coarse, 2) for _, coarse in pairs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map three feature maps `(B, inputs[i], H_i, W_i)` to maps of c, 2c and 4c channels, finest first."""
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features[:-1], strict=True)]
        maps.append(self.mix(self.pool(self.squeeze(features[-1]))))
        for index in range(len(maps) - 2, -1, -1):
            coarse = F.interpolate(self.ups[index](maps[index + 1]), scale_factor=2.0, mode="nearest")
            maps[index] = self.top_down[index](torch.cat([maps[index], coarse], dim=1))
        for index, (down, block) in enumerate(zip(self.downs, self.bottom_up, strict=True)):
            maps[index + 1] = block(torch.cat([down(maps[index]), maps[index + 1]], dim=1))
        return maps


class PyramidPooling(nn.Module):
    """The map beside its maxima over windows of 5, 9 and 13 cells (SPP, He et al., TPAMI 2015, as YOLOv4 has it).

    The maximum over 9 cells is that over 5 of those over 5, and so on: a quarter of the comparisons, and only windows
    of 5, which every integer engine has.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, 4 C, H, W)`."""
        maps = [features]
        for _ in range(3):
            maps.append(F.max_pool2d(maps[-1], 5, 1, 2))
        return torch.cat(maps, dim=1)


def _alternating(inputs: int, channels: int, pairs: int) -> nn.Sequential:
    """Return a 1x1 convolution to `channels`, then `pairs` of a 3x3 to twice and a 1x1 back to `channels`."""
    steps = [ConvNormAct(inputs, channels, 1)]
    for _ in range(pairs):
        steps += [ConvNormAct(channels, 2 * channels, 3), ConvNormAct(2 * channels, channels, 1)]
    return nn.Sequential(*steps)
