"""CSPDarkNet53, the backbone of YOLOv4 (Bochkovskiy et al. 2020; CSPNet, Wang et al., CVPRW 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..layers import ConvNormAct, scaled
from .backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor

_CHANNELS = (64, 128, 256, 512, 1024)
_DEPTHS = (1, 2, 8, 8, 4)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> ConvNormAct:
    return ConvNormAct(inputs, outputs, kernel, stride, nn.LeakyReLU(0.1, inplace=True))


class Residual(nn.Module):
    """1x1 to `hidden` channels, 3x3 back, identity shortcut."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = _conv(channels, hidden, 1)
        self.conv = _conv(hidden, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape `(B, channels, H, W)`."""
        out: Tensor = features + self.conv(self.reduce(features))
        return out


class Stage(nn.Module):
    """Stride-2 convolution, then `depth` residuals on one part of the channels while the other part bypasses them."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, first: bool) -> None:
        super().__init__()
        # The first stage does not halve its parts (YOLOv4's published network).
        part = outputs if first else outputs // 2
        hidden = outputs // 2 if first else part
        self.down = _conv(inputs, outputs, 3, stride=2)
        self.bypass = _conv(outputs, part, 1)
        self.main = _conv(outputs, part, 1)
        self.blocks = nn.Sequential(*(Residual(part, hidden) for _ in range(depth)))
        self.transition = _conv(part, part, 1)
        self.merge = _conv(2 * part, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H / 2, W / 2)`."""
        features = self.down(features)
        deep = self.transition(self.blocks(self.main(features)))
        out: Tensor = self.merge(torch.cat([deep, self.bypass(features)], dim=1))
        return out


class CSPDarkNet53(Backbone):
    """Stem and five stages; outputs of strides 8, 16, 32. LeakyReLU instead of Mish, which no integer engine has."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        sizes = [scaled(channels, width) for channels in (32, *_CHANNELS)]
        self.stem = _conv(3, sizes[0], 3)
        for index, depth in enumerate(_DEPTHS):
            stage = Stage(sizes[index], sizes[index + 1], depth, first=index == 0)
            self.add_module(f"stage{index + 1}", stage)
        self.strides = (8, 16, 32)
        self.channels = tuple(sizes[3:])
        self.stages = ("stem", *(f"stage{index + 1}" for index in range(len(_DEPTHS))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of stages 3, 4 and 5."""
        features = self.get_submodule("stage2")(self.get_submodule("stage1")(self.stem(images)))
        outputs = []
        for name in ("stage3", "stage4", "stage5"):
            features = self.get_submodule(name)(features)
            outputs.append(features)
        return outputs
