"""MGD: distillation by restoring the teacher's map from a masked student's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from ...errors import RecipeError
from . import Observed
from ._align import align_channels, aligned
from ._limits import check_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from . import Scene, Taps


@dataclass(frozen=True, kw_only=True)
class MGD:
    """Restore the teacher's map from a masked student's: α/N Σ (G(F·M) − T)² (MGD, Yang et al., ECCV 2022).

    M is drawn anew for every image and cell, one value for all channels: 0 with probability `lam`, else 1. The
    generation block G, 3×3 convolution, ReLU, 3×3 convolution, is trained with the student and left out of the export.
    The loss is a sum over C H W: it grows with the map, and it is not 0 where the student equals the teacher.

    Attributes:
        alpha: weight of each level; 2e-5 for one-stage and 5e-7 for two-stage detectors in the paper.
        lam: share of the cells that is masked; 0.65 and 0.45 there.
        adapt: "auto": a 1×1 convolution where channel counts differ; "always": on every level.
    """

    needs_head: ClassVar[bool] = False

    alpha: float = 2e-5
    lam: float = 0.65
    adapt: str = "auto"

    def __post_init__(self) -> None:
        if self.adapt not in ("auto", "always"):
            raise RecipeError(f"mgd: adapt is {self.adapt!r}; possible: auto, always")
        if not 0 <= self.lam < 1:
            raise RecipeError(f"mgd: lam is {self.lam}; it should be in [0, 1): the share of the cells that is masked")
        check_numbers("mgd", self, at_least_0=("alpha",))

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"align": {"p3": 1×1 convolution or identity, ...}, "generate": {"p3": G, ...}}`."""
        generate = nn.ModuleDict({f"p{level}": _generation(theirs) for level, (_, theirs) in channels.items()})
        return nn.ModuleDict({"align": align_channels(channels, always=self.adapt == "always"), "generate": generate})

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> dict[str, Tensor]:
        """Return one loss a level, "p3" ...; the masks come from torch's global generator."""
        ours = aligned(student, adapters.get_submodule("align"))
        losses = {}
        for level, theirs in teacher.features.items():
            generate = adapters.get_submodule(f"generate.p{level}")
            restored = generate(ours[level] * kept_cells(theirs, self.lam))
            losses[f"p{level}"] = self.alpha * (restored - theirs).square().sum() / len(theirs)
        return losses

    def observe(self, student: Taps, _teacher: Taps, adapters: nn.Module, _scene: Scene) -> Observed:
        """Show what is restored from whole maps: the student's own need not look like the teacher's, and do not."""
        ours = aligned(student, adapters.get_submodule("align"))
        return Observed({level: adapters.get_submodule(f"generate.p{level}")(each) for level, each in ours.items()})


def kept_cells(features: Tensor, lam: float) -> Tensor:
    """Draw `(N, 1, H, W)` for maps `(N, C, H, W)`: 0 with probability `lam`, else 1."""
    n, _, h, w = features.shape
    return (torch.rand(n, 1, h, w, device=features.device) >= lam).to(features.dtype)


def _generation(channels: int) -> nn.Module:
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(inplace=True), second)
