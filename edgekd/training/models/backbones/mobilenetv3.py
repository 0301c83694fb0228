"""MobileNetV3 small and large (Howard et al., ICCV 2019) with torchvision's state-dict names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ..layers import init_convs, scaled
from .backbone import Backbone

if TYPE_CHECKING:
    from torch import Tensor

# Kernel, expanded channels, channels, squeeze-and-excitation, hard-swish, stride (tables 1 and 2 of the paper).
_Setting = tuple[int, int, int, bool, bool, int]
_LARGE: tuple[_Setting, ...] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)
_SMALL: tuple[_Setting, ...] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
_FORMS = {"large": (_LARGE, (6, 12, 15)), "small": (_SMALL, (3, 8, 11))}  # last blocks of strides 8, 16, 32


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: nn.Module | None) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=0.001, momentum=0.01)
    return nn.Sequential(conv, norm) if act is None else nn.Sequential(conv, norm, act)


class SqueezeExcite(nn.Module):
    """Channel gate: global mean, 1x1 ReLU, 1x1 hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scaled(channels, 0.25)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape `(B, channels, H, W)`."""
        out: Tensor = features * self.gate(self.fc2(self.relu(self.fc1(self.avgpool(features)))))
        return out


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, optional gate, linear 1x1 projection; identity shortcut where shapes allow."""

    def __init__(self, inputs: int, setting: _Setting, width: float) -> None:
        super().__init__()
        kernel, hidden, outputs, gated, swish, stride = setting
        hidden, outputs = scaled(hidden, width), scaled(outputs, width)
        act: type[nn.Hardswish | nn.ReLU] = nn.Hardswish if swish else nn.ReLU
        steps: list[nn.Module] = []
        if hidden != inputs:
            steps.append(_conv(inputs, hidden, 1, 1, 1, act(inplace=True)))
        steps.append(_conv(hidden, hidden, kernel, stride, hidden, act(inplace=True)))
        if gated:
            steps.append(SqueezeExcite(hidden))
        steps.append(_conv(hidden, outputs, 1, 1, 1, None))
        self.block = nn.Sequential(*steps)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, inputs, H, W)` to `(B, outputs, H / stride, W / stride)`."""
        out: Tensor = self.block(features)
        return features + out if self.shortcut else out


class MobileNetV3(Backbone):
    """MobileNetV3 without its last 1x1 convolution and classifier; outputs of strides 8, 16, 32."""

    def __init__(self, form: str, width: float = 1.0) -> None:
        super().__init__()
        settings, self._taken = _FORMS[form]
        sizes = [scaled(16, width)]
        blocks: list[nn.Module] = [_conv(3, sizes[0], 3, 2, 1, nn.Hardswish(inplace=True))]
        for setting in settings:
            blocks.append(InvertedResidual(sizes[-1], setting, width))
            sizes.append(scaled(setting[2], width))
        self.features = nn.ModuleList(blocks)
        self.strides = (8, 16, 32)
        self.channels = tuple(sizes[index] for index in self._taken)
        self.stages = tuple(f"features.{index}" for index in range(len(blocks)))
        self.classifier = (f"features.{len(blocks)}", "classifier")
        init_convs(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of the last blocks of strides 8, 16 and 32."""
        outputs = []
        features = images
        for index, block in enumerate(self.features):
            features = block(features)
            if index in self._taken:
                outputs.append(features)
        return outputs
