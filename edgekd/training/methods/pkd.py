"""PKD: distillation by the Pearson correlation of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import RecipeError
from . import Observed
from ._align import align_channels, aligned
from ._correlation import correlation_loss
from ._limits import check_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from . import Scene, Taps


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
        check_numbers("pkd", self, at_least_0=("factor",), above_0=("eps",))

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"p3": 1×1 convolution or identity, ...}`."""
        return align_channels(channels, always=self.adapt == "always")

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, _scene: Scene) -> dict[str, Tensor]:
        """Return one loss a level, "p3" ...: `factor` × a value in [0, 2]."""
        ours = aligned(student, adapters)
        return {
            f"p{level}": self.factor * correlation_loss(ours[level], theirs, self.eps)
            for level, theirs in teacher.features.items()
        }

    def observe(self, student: Taps, _teacher: Taps, adapters: nn.Module, _scene: Scene) -> Observed:
        """Show the aligned maps; PKD weighs all cells alike and has nothing to draw."""
        return Observed(aligned(student, adapters))
