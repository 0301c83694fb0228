"""`Backbone`: what every backbone offers."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """Maps normalised images `(B, 3, H, W)` to one feature map per entry of `strides`, finest first.

    Attributes:
        strides: pixels per cell of each output.
        channels: channels of each output.
        stages: state-dict prefixes in forward order; a partial weights file reaches up to one of them.
        classifier: state-dict prefixes of the published network that a detector has no use for.
    """

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    stages: tuple[str, ...]
    classifier: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return feature maps `(B, channels[i], H / strides[i], W / strides[i])`."""
        raise NotImplementedError
