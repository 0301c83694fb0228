"""CWD: distillation of where each channel is active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import RecipeError
from . import Observed
from ._align import align_channels, aligned
from ._channel_kl import channel_kl, mean_distribution
from ._limits import check_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from . import Scene, Taps


@dataclass(frozen=True, kw_only=True)
class CWD:
    """Match each channel's distribution over the cells: τ²/(N·C) Σ KL(p_T ‖ p_S) (CWD, Shu et al., ICCV 2021).

    p is the softmax over H W of one channel of one image, over τ. An offset of a channel does not count, its scale
    does: a student's channel has to be as peaked as the teacher's.

    Attributes:
        factor: weight of each level; 10 is what dense detectors are published with, on the neck's maps.
        tau: temperature; a higher one spreads the weight over more cells.
        adapt: "auto": a 1×1 convolution where channel counts differ; "always": on every level.
    """

    needs_head: ClassVar[bool] = False

    factor: float = 10.0
    tau: float = 1.0
    adapt: str = "auto"

    def __post_init__(self) -> None:
        if self.adapt not in ("auto", "always"):
            raise RecipeError(f"cwd: adapt is {self.adapt!r}; possible: auto, always")
        check_numbers("cwd", self, at_least_0=("factor",), above_0=("tau",))

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"p3": 1×1 convolution or identity, ...}`."""
        return align_channels(channels, always=self.adapt == "always")

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> dict[str, Tensor]:
        """Return one loss a level, "p3" ...; a map of one cell gives 0."""
        ours = aligned(student, adapters)
        return {
            f"p{level}": self.factor * channel_kl(ours[level], theirs, self.tau)
            for level, theirs in teacher.features.items()
        }

    def observe(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> Observed:
        """Show the aligned maps and the mean distribution of either network's channels, mean 1 in each image."""
        ours = aligned(student, adapters)
        sides = {"teacher attention": teacher.features, "student attention": ours}
        maps = {
            name: {level: mean_distribution(x, self.tau) for level, x in side.items()} for name, side in sides.items()
        }
        return Observed(ours, maps)
