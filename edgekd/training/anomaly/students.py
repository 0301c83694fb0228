"""Students: from the embedding back to the teacher's features, coarse to fine; never a shortcut from the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import RecipeError
from ..models.backbones.resnet import BasicBlock, BottleneckBlock
from ..models.layers import ConvNormAct, init_convs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .pyramid import Pyramid

PLAIN_WIDTHS = (64, 128, 256)
_MIRRORS = {"resnet18": (2, 2, 2), "resnet34": (3, 4, 6), "resnet50": (3, 4, 6), "resnet101": (3, 4, 6)}
"""Blocks per stage, coarse to fine; RD4AD takes layers 1 to 3 of the teacher's list in this order."""


class MirrorStudent(nn.Module):
    """The decoder of RD4AD: the teacher's residual blocks in reverse, enlarging by transposed convolutions.

    Raises:
        RecipeError: the teacher is no ResNet.
    """

    def __init__(self, teacher: Pyramid, inputs: int) -> None:
        super().__init__()
        if teacher.name not in _MIRRORS:
            raise RecipeError(f"no mirror of {teacher.name!r}; possible: {', '.join(_MIRRORS)}, or student = 'plain'")
        bottleneck = teacher.name in ("resnet50", "resnet101")
        stages = []
        for repeats, channels in zip(_MIRRORS[teacher.name], reversed(teacher.channels), strict=True):
            block: type[BasicBlock | BottleneckBlock] = BottleneckBlock if bottleneck else BasicBlock
            planes = channels // block.expansion
            layers = [block(inputs, planes, 2), *(block(channels, planes, 1) for _ in range(repeats - 1))]
            _enlarge(layers[0])
            stages.append(nn.Sequential(*layers))
            inputs = channels
        self.stages = nn.ModuleList(stages)
        init_convs(self)

    def forward(self, embedded: Tensor) -> list[list[Tensor]]:
        """Return one pyramid: `(B, C_k, H / 4, W / 4)`, `/ 8`, `/ 16` for an embedding of stride 32."""
        found: list[Tensor] = []
        for stage in self.stages:
            embedded = stage(embedded)
            found.insert(0, embedded)
        return [found]


def _enlarge(block: BasicBlock | BottleneckBlock) -> None:
    """Turn a block that halves height and width into one that doubles them: its strided convolutions are transposed."""
    assert block.downsample is not None
    block.set_submodule("conv1" if isinstance(block, BasicBlock) else "conv2", _transposed(block))
    block.downsample[0] = _transposed(block.downsample)


def _transposed(module: nn.Module) -> nn.ConvTranspose2d:
    """Return the transposed twin, 2x2, of the only convolution of stride 2 among a module's own children."""
    (old,) = (each for each in module.children() if isinstance(each, nn.Conv2d) and each.stride == (2, 2))
    new = nn.ConvTranspose2d(old.in_channels, old.out_channels, 2, 2, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


class PlainStudent(nn.Module):
    """A student of another make than its teachers, so that it cannot copy what they do with what they did not see.

    Each stage: nearest enlargement, 3x3 convolution, two basic blocks; a linear 1x1 head a target. Nothing that int8
    runtimes lack: no transposed convolution, no concatenation.

    Args:
        inputs: channels of the embedding.
        targets: channels C_k of each pyramid to predict, finest first.
        widths: channels of its own, finest first.
    """

    def __init__(self, inputs: int, targets: Sequence[Sequence[int]], widths: Sequence[int] = PLAIN_WIDTHS) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for width in reversed(widths):
            stages.append(
                nn.Sequential(ConvNormAct(inputs, width, 3), BasicBlock(width, width, 1), BasicBlock(width, width, 1))
            )
            inputs = width
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(width, count, 1) for width, count in zip(widths, channels, strict=True))
            for channels in targets
        )
        init_convs(self)

    def forward(self, embedded: Tensor) -> list[list[Tensor]]:
        """Return a pyramid for each target, shaped as `MirrorStudent`'s."""
        found: list[Tensor] = []
        for stage in self.stages:
            embedded = stage(F.interpolate(embedded, scale_factor=2.0, mode="nearest"))
            found.insert(0, embedded)
        return [
            [head(each) for head, each in zip(cast("nn.ModuleList", heads), found, strict=True)] for heads in self.heads
        ]


STUDENTS = ("plain", "mirror")
