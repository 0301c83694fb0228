"""What two teachers show, made comparable and joined into one pyramid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .attention import REDUCTION, ChannelAttention, IterativeFusion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self


class Equaliser(nn.Module):
    """Brings a second teacher's features to the channels of the first, and both teachers' to a root mean square of 1.

    Fusion adds and the cosine follows the louder summand, so energies have to be alike. Channels: a fixed random 1x1
    projection with orthonormal columns (or rows, where there are fewer), which keeps (or nearly keeps) all cosines,
    cannot collapse, and learns nothing.

    Args:
        inputs: channels of the teacher's three maps.
        outputs: channels wanted.
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1, bias=False)
            for ours, theirs in zip(inputs, outputs, strict=True)
        )
        for layer in self.project:
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
        self.requires_grad_(requires_grad=False)
        self.scales: Tensor
        self.register_buffer("scales", torch.ones(len(inputs)))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the projected maps, each divided by its scale."""
        projected = (layer(each) for layer, each in zip(self.project, features, strict=True))
        return [each / scale for each, scale in zip(projected, self.scales, strict=True)]

    @torch.no_grad()
    def energies(self, features: Sequence[Tensor]) -> Tensor:
        """Return the mean squares of the projected maps, `(3,)` float64."""
        projected = [layer(each) for layer, each in zip(self.project, features, strict=True)]
        return torch.stack([each.double().square().mean() for each in projected])

    @torch.no_grad()
    def fit(self, energies: Tensor) -> None:
        """Set the scales from mean squares `(3,)`; a map that is zero everywhere keeps its scale of 1."""
        self.scales.copy_(torch.where(energies > 0, energies.sqrt(), torch.ones_like(energies)))


class AddFusion(nn.Module):
    """The sum of two pyramids: the baseline of the attentional one."""

    def forward(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the three sums, and no gates."""
        return [a + b for a, b in zip(one, other, strict=True)], []


class AttentionalFusion(nn.Module):
    """Per scale: channel attention on each teacher, then iAFF.

    Attributes:
        frozen: after `freeze`, parameters and statistics stay, so that what the student has to predict stands still.
    """

    def __init__(self, channels: Sequence[int], reduction: int = REDUCTION) -> None:
        super().__init__()
        self.one = nn.ModuleList(ChannelAttention(count, reduction) for count in channels)
        self.other = nn.ModuleList(ChannelAttention(count, reduction) for count in channels)
        self.join = nn.ModuleList(IterativeFusion(count, reduction) for count in channels)
        self.frozen = False

    def freeze(self) -> None:
        """Train no more; a parent's `train()` no longer reaches it."""
        self.frozen = True
        self.requires_grad_(requires_grad=False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch the mode, unless it is frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the three fused maps, and the three gates of `one`."""
        fused, gates = [], []
        for index, join in enumerate(self.join):
            joined, gate = join(self.one[index](one[index]), self.other[index](other[index]))
            fused.append(joined)
            gates.append(gate)
        return fused, gates


FUSIONS = ("iaff", "add")
