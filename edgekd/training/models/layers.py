"""Building blocks of our own networks: convolution + BatchNorm + ReLU, and the cross-stage-partial block.

ReLU everywhere: it folds into the convolution in TensorRT, OpenVINO and TFLite, and its one-sided range suits int8.
SiLU costs a LOGISTIC and a MUL per layer in int8 TFLite.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scaled(channels: int, width: float, divisor: int = 8) -> int:
    """Return `channels * width` rounded to a multiple of `divisor`, never below it, never more than 10 % too few."""
    rounded = max(divisor, int(channels * width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels * width else rounded


def init_convs(module: nn.Module) -> None:
    """Initialise every convolution for ReLU (He et al., ICCV 2015) and its bias with zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ConvNormAct(nn.Module):
    """Convolution without bias, BatchNorm, activation (None: identity); "same" padding for odd kernels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        act: nn.Module | None = None,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.Identity() if linear else (act or nn.ReLU(inplace=True))
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H / stride, W / stride)`."""
        out: Tensor = self.act(self.norm(self.conv(images)))
        return out


class Bottleneck(nn.Module):
    """1x1 then 3x3 convolution with an identity shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNormAct(channels, channels, 1)
        self.conv = ConvNormAct(channels, channels, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape `(B, channels, H, W)`."""
        out: Tensor = features + self.conv(self.reduce(features))
        return out


class CSPBlock(nn.Module):
    """Cross-stage-partial block: half of the channels bypass `depth` bottlenecks (CSPNet, Wang et al., CVPRW 2020)."""

    def __init__(self, inputs: int, outputs: int, depth: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.main = ConvNormAct(inputs, half, 1)
        self.bypass = ConvNormAct(inputs, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half) for _ in range(depth)))
        self.merge = ConvNormAct(2 * half, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        out: Tensor = self.merge(torch.cat([self.blocks(self.main(features)), self.bypass(features)], dim=1))
        return out
