"""PKD: distillation by the Pearson correlation of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from ...errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from . import Scene, Taps

SMALLEST_MAP = 16  # values of a channel below which its correlation says nothing


@dataclass(frozen=True, kw_only=True)
class PKD:
    """Match standardised features: ½·MSE of z(S) and z(T) = (1 − r)(m − 1)/m (PKD, Cao et al., NeurIPS 2022, eq. 4-5).

    The statistics are per channel over (N, H, W) of the local batch. Only the direction of a channel counts, not its
    offset or scale, which is what makes unlike backbones comparable.

    Attributes:
        factor: weight of each level; the authors use 10 with one-stage and 6 with two-stage teachers.
        adapt: "auto": a 1×1 convolution where channel counts differ; "always": on every level. PKD itself needs equal
            counts and has none.
        eps: added to a standard deviation.
    """

    needs_head: ClassVar[bool] = False

    factor: float = 10.0
    adapt: str = "auto"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.adapt not in ("auto", "always"):
            raise RecipeError(f"pkd: adapt is {self.adapt!r}; possible: auto, always")

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"p3": 1×1 convolution or identity, ...}`."""
        return align_channels(channels, always=self.adapt == "always")

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> dict[str, Tensor]:
        """Return one loss a level, "p3" ...: `factor` × a value in [0, 2]."""
        losses = {}
        for level, theirs in teacher.features.items():
            ours = adapters.get_submodule(f"p{level}")(student.features[level])
            losses[f"p{level}"] = self.factor * correlation_loss(ours, theirs, self.eps)
        return losses


def align_channels(channels: Mapping[int, tuple[int, int]], *, always: bool = False) -> nn.ModuleDict:
    """Return, by level name, a 1×1 convolution with bias from student to teacher channels, or an identity where equal.

    With `always`, equal counts get a convolution too, which starts as the identity.
    """
    aligned = nn.ModuleDict()
    for level, (ours, theirs) in channels.items():
        if ours == theirs and not always:
            aligned[f"p{level}"] = nn.Identity()
            continue
        conv = nn.Conv2d(ours, theirs, 1)
        if ours == theirs:
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(cast("Tensor", conv.bias))
        aligned[f"p{level}"] = conv
    return aligned


def correlation_loss(ours: Tensor, theirs: Tensor, eps: float = 1e-6) -> Tensor:
    """Return ½·mean (z(F) − z(T))² over `(N, C, H, W)` float32 maps: mean over channels of (1 − r)(m − 1)/m, in [0, 2].

    Guards: the student's deviation is floored at 1e-3 of the teacher's median one (a dead map would otherwise have a
    gradient a million times the usual); teacher channels with a deviation below 1e-5 are left out; a map of fewer than
    16 values a channel is skipped. What is skipped returns a zero connected to `ours`.
    """
    m = theirs.numel() // theirs.shape[1]
    if m < SMALLEST_MAP:
        return ours.sum() * 0
    x, y = _rows(ours), _rows(theirs)
    y = y - y.mean(dim=0)
    spread_t = (y.square().sum(dim=0) / (m - 1)).sqrt()
    y = y / (spread_t + eps)
    x = x - x.detach().mean(dim=0)  # exact: a sum of squares has no slope in its mean, and y sums to nothing
    var = x.square().sum(dim=0) / (m - 1)
    floor = (1e-3 * spread_t.median()).clamp(min=1e-12)
    scale = 1 / (torch.maximum(var, floor.square()).sqrt() + eps)
    squares = scale.square() * var * (m - 1) + y.square().sum(dim=0) - 2 * scale * (x * y).sum(dim=0)
    alive = (spread_t > 1e-5).to(x.dtype)
    return (squares.clamp(min=0) / (2 * m) * alive).sum() / alive.sum().clamp(min=1)


def _rows(features: Tensor) -> Tensor:
    """Return `(N, C, H, W)` as `(N H W, C)`: no copy where the channels lie innermost in memory."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)
