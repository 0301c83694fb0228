"""FGD: focal and global distillation of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from ...errors import RecipeError
from ._align import align_channels, aligned
from ._context import context_blocks, context_error
from ._focal import Weighing, attention_distance, focal_errors, laid_alike, magnitude_attention, mean_of_images, shown
from ._limits import check_numbers
from ._masks import box_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from . import Observed, Scene, Taps


@dataclass(frozen=True, kw_only=True)
class FGD:
    """Match features where the teacher looks, and their global context (FGD, Yang et al., CVPR 2022, sections 3.1-3.3).

    On each level, with S the student's aligned map, T the teacher's, `(N, C, H, W)`, and attention of a map F

        A^S = H W softmax(mean_c |F| / tau), A^C = C softmax(mean_hw |F| / tau),

    the four terms, each summed over an image and averaged over the N images, are

        fg   = alpha   Σ FG A^S_T A^C_T (S - T)²        FG: 1 / (cells of the smallest box) where a box is
        bg   = beta    Σ BG A^S_T A^C_T (S - T)²        BG: 1 / (cells of the background) where none is
        mask = gamma   (Σ |A^C_S - A^C_T| + Σ |A^S_S - A^S_T|)
        gc   = lambda_ Σ (R_s(S) - R_t(T))²             R: global-context block, one for each side, both trained

    They compare raw features, scale and offset included. Sums grow with the maps: `gc` above all with H W. Unlike the
    authors' code, boxes are divided by the padded input they are given in, and cells are counted inside the grid.

    The authors' settings, which also serve as a start for XFKD:

        detector                  alpha   beta    gamma   lambda_ tau
        RetinaNet, GFL, SOLO      1e-3    5e-4    5e-4    5e-6    0.5   (the default)
        FCOS                      1.6e-3  8e-4    8e-4    8e-6    0.8
        RepPoints                 1.6e-3  8e-4    8e-4    8e-6    0.5
        Faster R-CNN, Mask R-CNN  5e-5    2.5e-5  5e-5    5e-7    0.5
        YOLOX                     2e-3    1e-3    1e-3    1e-5    0.5

    Attributes:
        alpha: weight of the foreground.
        beta: weight of the background.
        gamma: weight of the attention's distance.
        lambda_: weight of the global context.
        tau: temperature of both attentions.
        adapt: "auto": a 1×1 convolution where channel counts differ; "always": on every level.
    """

    needs_head: ClassVar[bool] = False

    alpha: float = 1e-3
    beta: float = 5e-4
    gamma: float = 5e-4
    lambda_: float = 5e-6
    tau: float = 0.5
    adapt: str = "auto"

    def __post_init__(self) -> None:
        if self.adapt not in ("auto", "always"):
            raise RecipeError(f"fgd: adapt is {self.adapt!r}; possible: auto, always")
        check_numbers("fgd", self, at_least_0=("alpha", "beta", "gamma", "lambda_"), above_0=("tau",))

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return the alignment and two global-context blocks a level."""
        contexts = context_blocks({level: theirs for level, (_, theirs) in channels.items()})
        return nn.ModuleDict({"align": align_channels(channels, always=self.adapt == "always"), **contexts})

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> dict[str, Tensor]:
        """Return "fg.p3", "bg.p3", "mask.p3", "gc.p3" ..., already weighted."""
        losses = {}
        for level, ours in aligned(student, adapters.get_submodule("align")).items():
            s, t = laid_alike(ours, teacher.features[level])
            weighing = self._weighing(s, t, scene)
            foreground, background = focal_errors(s - t, weighing.theirs, weighing.masks)
            terms = {
                "fg": self.alpha * foreground,
                "bg": self.beta * background,
                "mask": self.gamma * attention_distance(weighing.ours, weighing.theirs),
                "gc": self.lambda_ * context_error(s, t, adapters, level).sum(dim=(1, 2, 3)),
            }
            losses.update({f"{name}.p{level}": mean_of_images(values) for name, values in terms.items()})
        return losses

    def observe(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> Observed:
        """Show the aligned maps, both spatial attentions and both masks."""
        ours = aligned(student, adapters.get_submodule("align"))
        return shown(ours, {level: self._weighing(ours[level], teacher.features[level], scene) for level in ours})

    def _weighing(self, ours: Tensor, theirs: Tensor, scene: Scene) -> Weighing:
        return Weighing(
            magnitude_attention(ours, self.tau),
            magnitude_attention(theirs, self.tau),
            box_masks(scene.boxes, (scene.height, scene.width), (theirs.shape[2], theirs.shape[3])),
        )
