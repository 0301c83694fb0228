"""SqueezeNet 1.1 (Iandola et al. 2016) with torchvision's state-dict names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from ..layers import init_convs, scaled
from .backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor

_FIRES = {
    3: (16, 64),
    4: (16, 64),
    6: (32, 128),
    7: (32, 128),
    9: (48, 192),
    10: (48, 192),
    11: (64, 256),
    12: (64, 256),
}
_POOLS = (2, 5, 8)
_OUTPUTS = (7, 12)


class Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 expansions side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, 2 expanded, H, W)`."""
        squeezed = self.relu(self.squeeze(features))
        return torch.cat([self.relu(self.expand1x1(squeezed)), self.relu(self.expand3x3(squeezed))], dim=1)


class SqueezeNet(Backbone):
    """SqueezeNet 1.1; outputs of strides 8 and 16, deeper levels are the neck's.

    The published network does not pad its first convolution, so its maps are 63, 31 and 15 wide on 256 pixels. Here the
    image is padded by one pixel at the right and bottom: maps are 64, 32 and 16 wide, as on an image of 257 pixels.
    """

    classifier = ("classifier",)

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        size = scaled(64, width)
        layers: list[nn.Module] = [nn.Conv2d(3, size, 3, stride=2), nn.ReLU(inplace=True)]
        sizes = {}
        for index in range(2, 13):
            if index in _POOLS:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                squeezed, expanded = (scaled(channels, width) for channels in _FIRES[index])
                layers.append(Fire(size, squeezed, expanded))
                size = 2 * expanded
            sizes[index] = size
        self.features = nn.ModuleList(layers)
        self.strides = (8, 16)
        self.channels = tuple(sizes[index] for index in _OUTPUTS)
        self.stages = tuple(f"features.{index}" for index in (0, *_FIRES))
        init_convs(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of the Fire modules 7 and 12."""
        outputs = []
        features = F.pad(images, (0, 1, 0, 1))
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in _OUTPUTS:
                outputs.append(features)
        return outputs
