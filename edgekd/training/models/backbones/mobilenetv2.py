"""MobileNetV2 (Sandler et al., CVPR 2018) with torchvision's state-dict names, and its TensorFlow form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import nn

from ..layers import init_convs, scaled
from .backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor

# Expansion, channels, repeats, stride of the first (table 2 of the paper).
_SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_OUTPUTS = (6, 13, 17)  # last blocks of strides 8, 16, 32


class SamePadConv(nn.Conv2d):
    """A stride-2 3x3 convolution padded as TensorFlow pads "SAME" on even sizes: only right and bottom."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Conv2d's own name
        """Map `(B, C, H, W)` to `(B, C', H / 2, W / 2)`."""
        return super().forward(F.pad(input, (0, 1, 0, 1)))


def _layers(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, *, folded: bool
) -> tuple[nn.Conv2d, nn.Module]:
    """Return a convolution and its BatchNorm; with BatchNorm folded, a convolution with bias and an identity."""
    if folded:
        conv = SamePadConv if stride == 2 else nn.Conv2d
        padding = 0 if stride == 2 else kernel // 2
        return conv(inputs, outputs, kernel, stride, padding, groups=groups), nn.Identity()
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; identity shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, *, folded: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        steps: list[nn.Module] = []
        if expansion > 1:
            steps.append(nn.Sequential(*_layers(inputs, hidden, 1, 1, 1, folded=folded), nn.ReLU6(inplace=True)))
        steps.append(nn.Sequential(*_layers(hidden, hidden, 3, stride, hidden, folded=folded), nn.ReLU6(inplace=True)))
        steps.extend(_layers(hidden, outputs, 1, 1, 1, folded=folded))
        self.conv = nn.Sequential(*steps)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H / stride, W / stride)`."""
        out: Tensor = self.conv(features)
        return features + out if self.shortcut else out


class MobileNetV2(Backbone):
    """MobileNetV2 up to features.17; outputs of the last blocks of strides 8, 16, 32.

    `folded` builds the form of the TensorFlow weights: no BatchNorm (it is folded into the convolutions' weights and
    biases) and padding at the right and bottom only; with other padding ImageNet top-1 falls by nine points.
    """

    classifier = ("features.18", "classifier")

    def __init__(self, width: float = 1.0, *, folded: bool = False) -> None:
        super().__init__()
        inputs = scaled(32, width)
        stem = nn.Sequential(*_layers(3, inputs, 3, 2, 1, folded=folded), nn.ReLU6(inplace=True))
        blocks: list[nn.Module] = [stem]
        sizes = [inputs]
        for expansion, channels, repeats, first in _SETTINGS:
            for position in range(repeats):
                stride = first if position == 0 else 1
                blocks.append(InvertedResidual(sizes[-1], scaled(channels, width), stride, expansion, folded=folded))
                sizes.append(scaled(channels, width))
        self.features = nn.ModuleList(blocks)
        self.strides = (8, 16, 32)
        self.channels = tuple(sizes[index] for index in _OUTPUTS)
        self.stages = tuple(f"features.{index}" for index in range(len(blocks)))
        init_convs(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of blocks 6, 13 and 17."""
        outputs = []
        features = images
        for index, block in enumerate(self.features):
            features = block(features)
            if index in _OUTPUTS:
                outputs.append(features)
        return outputs
