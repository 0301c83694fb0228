"""The projectors of RD++, between teacher and bottleneck: trained to show of a defect what a normal image shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

EPSILON = 1e-5  # of a variance


class InstanceNorm(nn.Module):
    """(x - mean) / standard deviation of each channel of each image, without parameters (Ulyanov et al., 2016).

    Written as means and products, which all targets translate; as one operator it would be none of the portable graph.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape `(B, C, H, W)`; float32 whatever comes in."""
        features = features.float()
        centred = features - features.mean((2, 3), keepdim=True)
        return centred / ((centred * centred).mean((2, 3), keepdim=True) + EPSILON).sqrt()


class Projector(nn.Module):
    """One chain a scale: four times 3x3 convolution, instance norm and leaky ReLU, C -> C/2 -> C/4 -> C/2 -> C.

    Convolutions have no bias: the norm would take it out again.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_chain(count) for count in channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Keep the shapes `(B, C_k, H_k, W_k)`."""
        return [chain(each) for chain, each in zip(self.scales, features, strict=True)]


def _chain(channels: int) -> nn.Sequential:
    half, quarter = max(1, channels // 2), max(1, channels // 4)
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in (half, quarter, half, channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), InstanceNorm(), nn.LeakyReLU()]
        inputs = outputs
    return nn.Sequential(*layers)
