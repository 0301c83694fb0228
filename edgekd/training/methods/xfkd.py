"""XFKD: FGD on standardised features, with the teacher's mixed into the student's."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from ...errors import RecipeError
from ._align import align_channels, aligned
from ._cbam import CBAM, gated_attention
from ._context import context_blocks, context_error
from ._dual_attention import DualAttention, relation_divergence
from ._focal import (
    Weighing,
    attention_distance,
    focal_errors,
    laid_alike,
    magnitude_attention,
    mean_of_images,
    shown,
)
from ._limits import check_numbers
from ._masks import box_masks
from ._mix import mixed
from ._released import released_adapters, released_maps, released_terms, released_weighing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from . import Observed, Scene, Taps

POSSIBLE = {
    "variant": ("intended", "released"),
    "mode": ("pre_norm", "sum", "none"),
    "rho_schedule": ("constant", "linear"),
    "attention": ("fgd", "cbam"),
    "gc": ("sum", "mean"),
    "adapt": ("auto", "always"),
}
OF_RELEASED = ("alpha", "beta", "gamma", "lambda_", "tau", "variant")


@dataclass(frozen=True, kw_only=True)
class XFKD:
    """Match a mix of both networks' features with the teacher's (XFKD, Ren et al., AEI 65, 2025, 103125).

    On each level, with S the student's aligned map, T the teacher's, `(N, C, H, W)`, z a standardisation of channels
    over `(N, H, W)` without parameters, t = z(T) and M = z(z(S) + rho t), the terms, summed over an image and averaged
    over the N images, are

        fg   = alpha   Σ FG A^S_T A^C_T (M - t)²
        bg   = beta    Σ BG A^S_T A^C_T (M - t)²
        mask = gamma   (Σ |A^C_S - A^C_T| + Σ |A^S_S - A^S_T|)
        gc   = lambda_ Σ (R_s(M) - R_t(t))²
        dan  = omega   mean_c KL(softmax_hw D(t) ‖ softmax_hw D(M)), if asked for

    with FGD's masks FG and BG, attention A (of the raw maps) and global-context blocks R: see `fgd`, and its table of
    weights for other detectors than RetinaNet. D is a dual attention that both sides share. In a channel with
    correlation r between S and T, ½ mean (M - t)² = 1 - (rho + r) / √(1 + rho² + 2 rho r).

    This is the variant "intended": the ideas of the paper's abstract. It deviates from the variant "released", which is
    what the authors' code computes (formulas and faults: `_released`), in that S is standardised *before* the mix, so
    that its scale is no shortcut; nothing on the teacher's side can shrink the loss; the attention's distance depends
    on the teacher; boxes are counted inside the grid; global-context blocks start as the identity; dead channels are
    guarded (`_mix`); and images without boxes still give bg, mask and gc. "released" needs equal channel counts.

    Attributes:
        variant: "intended" or "released"; the latter has no options but the five that follow.
        alpha: weight of the foreground.
        beta: weight of the background.
        gamma: weight of the attention's distance.
        lambda_: weight of the global context; None: 5e-6 for a sum, 1 for a mean.
        tau: temperature of both attentions.
        mode: "pre_norm"; "sum": M = z(S + rho T), the paper's, whose loss S = 0 fulfils; "none": M = z(S), as in PKD.
        rho: the teacher's part in the mix, at least 0.
        rho_schedule: "constant", or "linear": from rho to 0 over the training.
        attention: "fgd": of mean magnitudes; "cbam": CBAM's gates, the teacher's frozen as they start.
        att_norm: divide magnitudes by their mean in each image: for necks that end in an activation (YOLO).
        gc: "sum", or "mean" over C H W: for large maps, where a sum dominates; lambda_ is 1 to 10 then.
        dan: add the dual attention.
        omega: weight of the dual attention.
        skip_empty: leave images without boxes out, and divide by the number of the others.
        adapt: "auto": a 1×1 convolution where channel counts differ; "always": on every level.
    """

    needs_head: ClassVar[bool] = False

    variant: str = "intended"
    alpha: float = 1e-3
    beta: float = 5e-4
    gamma: float = 1e-3
    lambda_: float | None = None
    tau: float = 0.5
    mode: str = "pre_norm"
    rho: float = 1.0
    rho_schedule: str = "constant"
    attention: str = "fgd"
    att_norm: bool = False
    gc: str = "sum"
    dan: bool = False
    omega: float = 1.0
    skip_empty: bool = False
    adapt: str = "auto"

    def __post_init__(self) -> None:
        for name, possible in POSSIBLE.items():
            if getattr(self, name) not in possible:
                raise RecipeError(f"xfkd: {name} is {getattr(self, name)!r}; possible: {', '.join(possible)}")
        weights = ("alpha", "beta", "gamma", "lambda_", "omega", "rho")
        check_numbers("xfkd", self, at_least_0=weights, above_0=("tau",))
        changed = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        if self.variant == "released":
            extra = [name for name in changed if name not in OF_RELEASED]
            if extra:
                raise RecipeError(
                    f"xfkd: variant 'released' has no {', '.join(extra)}; possible: {', '.join(OF_RELEASED)}"
                )
        if self.mode == "none" and ("rho" in changed or "rho_schedule" in changed):
            raise RecipeError("xfkd: mode 'none' mixes nothing in, so rho has no effect; possible: pre_norm, sum")
        if self.attention == "cbam" and self.att_norm:
            raise RecipeError("xfkd: att_norm is for magnitudes, CBAM's gates are in (0, 1); possible: attention 'fgd'")
        if not self.dan and "omega" in changed:
            raise RecipeError("xfkd: omega weighs the dual attention, which is off; possible: dan = true")

    @property
    def unlike_remedy(self) -> str:
        """What to change when the networks stay unlike: a mix is already like the teacher, and teaches the less."""
        if self.variant == "released" or self.mode == "none":
            return ""
        return 'leave the teacher out of the mix (options = { mode = "none" })'

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return what is trained, by kind and level; the teacher's CBAM gates are in it too, frozen."""
        if self.variant == "released":
            return released_adapters(channels)
        counts = {level: theirs for level, (_, theirs) in channels.items()}
        adapters = nn.ModuleDict({"align": align_channels(channels, always=self.adapt == "always")})
        adapters.update(context_blocks(counts))
        if self.attention == "cbam":
            gates = nn.ModuleDict({f"p{level}": CBAM(count) for level, count in counts.items()})
            adapters["student_attention"] = gates
            adapters["teacher_attention"] = copy.deepcopy(gates).requires_grad_(requires_grad=False)
        if self.dan:
            adapters["dan"] = nn.ModuleDict({f"p{level}": DualAttention(count) for level, count in counts.items()})
        return adapters

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> dict[str, Tensor]:
        """Return "fg.p3", "bg.p3", "mask.p3", "gc.p3" ... (and "dan.p3" if asked for), already weighted."""
        lambda_ = self.lambda_ if self.lambda_ is not None else {"sum": 5e-6, "mean": 1.0}[self.gc]
        weights = {"fg": self.alpha, "bg": self.beta, "mask": self.gamma, "gc": lambda_, "dan": self.omega}
        losses = {}
        for level, ours in self._aligned(student, adapters).items():
            s, t = laid_alike(ours, teacher.features[level])
            weighing, terms = self._level(s, t, adapters, level, scene)
            kept = None
            if self.skip_empty or self.variant == "released":
                kept = (weighing.masks.foreground.amax(dim=(1, 2)) > 0).to(ours.dtype)
            losses.update({f"{name}.p{level}": weights[name] * mean_of_images(v, kept) for name, v in terms.items()})
        return losses

    def observe(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> Observed:
        """Show the aligned maps, both spatial attentions and both masks."""
        ours = self._aligned(student, adapters)
        levels = {level: self._level(ours[level], teacher.features[level], adapters, level, scene) for level in ours}
        return shown(ours, {level: weighing for level, (weighing, _) in levels.items()})

    def _aligned(self, student: Taps, adapters: nn.Module) -> Mapping[int, Tensor]:
        if self.variant == "released":
            return student.features
        return aligned(student, adapters.get_submodule("align"))

    def _level(
        self, ours: Tensor, theirs: Tensor, adapters: nn.Module, level: int, scene: Scene
    ) -> tuple[Weighing, dict[str, Tensor]]:
        """Return the attention and masks of one level, and its terms image by image, unweighted."""
        if self.variant == "released":
            s, t = released_maps(ours, theirs, adapters, level)
            weighing = released_weighing(s, t, adapters, level, scene, self.tau)
            return weighing, released_terms(s, t, weighing, adapters, level)
        weighing = self._weighing(ours, theirs, adapters, level, scene)
        m, t, alive = mixed(ours, theirs, self.mode, self._rho(scene))
        counted = weighing.theirs._replace(channel=weighing.theirs.channel * alive)
        foreground, background = focal_errors(m - t, counted, weighing.masks)
        context = context_error(m, t, adapters, level) * alive[:, None, None]
        terms = {
            "fg": foreground,
            "bg": background,
            "mask": attention_distance(weighing.ours, weighing.theirs),
            "gc": context.mean(dim=(1, 2, 3)) if self.gc == "mean" else context.sum(dim=(1, 2, 3)),
        }
        if self.dan:
            divergence = relation_divergence(m, t, adapters.get_submodule(f"dan.p{level}"))
            terms["dan"] = (divergence * alive).mean(dim=1)
        return weighing, terms

    def _weighing(self, ours: Tensor, theirs: Tensor, adapters: nn.Module, level: int, scene: Scene) -> Weighing:
        masks = box_masks(scene.boxes, (scene.height, scene.width), (theirs.shape[2], theirs.shape[3]))
        if self.attention == "fgd":
            student, teacher = (magnitude_attention(f, self.tau, normalise=self.att_norm) for f in (ours, theirs))
            return Weighing(student, teacher, masks)
        student, teacher = (
            gated_attention(f, adapters.get_submodule(f"{side}_attention.p{level}"), self.tau)
            for side, f in (("student", ours), ("teacher", theirs))
        )
        return Weighing(student, teacher, masks)

    def _rho(self, scene: Scene) -> float:
        """Return the teacher's part at this step; "linear" ends with 0 at the last one."""
        left = 1 - scene.step / max(1, scene.steps - 1) if self.rho_schedule == "linear" else 1.0
        return self.rho * max(0.0, left)
