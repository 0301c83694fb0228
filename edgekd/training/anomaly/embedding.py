"""The one-class bottleneck embedding of RD4AD (section 3.2): three scales fused, then compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..models.backbones.resnet import BasicBlock, BottleneckBlock
from ..models.layers import ConvNormAct, init_convs

if TYPE_CHECKING:
    from collections.abc import Sequence


class Embedding(nn.Module):
    """Maps features at strides 4, 8 and 16 to one compact map at stride 32.

    Fusion: 3x3 convolutions of stride 2 bring the finer two to the size and channels of the coarsest; the three are
    concatenated. Compression: one residual stage like layer4 of a ResNet, to twice the coarsest channels unless told.
    The convolution that the published code holds beside it and never calls is left out.

    Args:
        channels: C_1, C_2, C_3.
        bottleneck: blocks of ResNet-50 (three of them) instead of ResNet-18 (two).
        outputs: channels of the compact map; 0: 2 C_3, as published. With `bottleneck` a multiple of 4.
    """

    def __init__(self, channels: Sequence[int], *, bottleneck: bool = False, outputs: int = 0) -> None:
        super().__init__()
        first, second, third = channels
        self.outputs = outputs or 2 * third
        self.fine = nn.Sequential(ConvNormAct(first, second, 3, 2), ConvNormAct(second, third, 3, 2))
        self.middle = ConvNormAct(second, third, 3, 2)
        block: type[BasicBlock | BottleneckBlock] = BottleneckBlock if bottleneck else BasicBlock
        planes = self.outputs // block.expansion
        self.compress = nn.Sequential(
            block(3 * third, planes, 2), *(block(self.outputs, planes, 1) for _ in range(2 if bottleneck else 1))
        )
        init_convs(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return `(B, outputs, H / 32, W / 32)`."""
        fine, middle, coarse = features
        embedded: Tensor = self.compress(torch.cat([self.fine(fine), self.middle(middle), coarse], dim=1))
        return embedded
