"""CSP-tiny: a small cross-stage-partial student; no depthwise convolutions, which leave int8 engines idle."""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import ConvNormAct, CSPBlock, scaled
from .backbone import Backbone

_CHANNELS = (32, 48, 96, 128, 192)
_DEPTHS = (1, 1, 2, 1)


class CSPTiny(Backbone):
    """Stem and four stages of a stride-2 3x3 convolution and a CSP block; outputs of strides 8, 16, 32."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        sizes = [scaled(channels, width) for channels in _CHANNELS]
        self.stem = ConvNormAct(3, sizes[0], 3, stride=2)
        for index, depth in enumerate(_DEPTHS):
            size = sizes[index + 1]
            stage = nn.Sequential(ConvNormAct(sizes[index], size, 3, stride=2), CSPBlock(size, size, depth))
            self.add_module(f"stage{index + 1}", stage)
        self.strides = (8, 16, 32)
        self.channels = tuple(sizes[2:])
        self.stages = ("stem", "stage1", "stage2", "stage3", "stage4")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of stages 2, 3 and 4."""
        features = self.get_submodule("stage1")(self.stem(images))
        outputs = []
        for name in ("stage2", "stage3", "stage4"):
            features = self.get_submodule(name)(features)
            outputs.append(features)
        return outputs
