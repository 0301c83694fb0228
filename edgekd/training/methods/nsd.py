"""NSD: what the teacher says of the background, pixel by pixel and anchor by anchor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from ...errors import RecipeError
from ..models.heads.head import share_of_total
from . import Observed
from ._align import aligned
from ._limits import check_numbers
from ._negatives import (
    divergence,
    pixel_coefficients,
    pixel_error,
    ramp,
    sampled,
    score_divergence,
    without_target,
)
from ._priors import paired_levels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from . import Scene, Taps
    from ._priors import Level

_CHOICES = {
    "sample": ("negatives", "positives", "both", "nontarget"),
    "box_sample": ("negatives", "positives", "both"),
    "normaliser": ("all", "sampled"),
    "box_reduction": ("mean", "positives"),
    "pixel_mode": ("normalised", "nsd_compat"),
}
_WEIGHTS = ("logit_weight", "angle_weight", "box_weight", "score_weight", "pixel_background", "pixel_foreground")


@dataclass(frozen=True, kw_only=True)
class NSD:
    """Distil on the background (Negative-Core Sample Knowledge Distillation, Zhang et al., IEEE TGRS 62, 2024).

    An aerial image is nearly all background, much of it like the objects, and there student and teacher differ most. So
    only priors (anchors, or the cells of a head without anchors) are taught that the student's own assignment gives no
    object: Ω, the ignored ones among them. Per level, with N priors in the batch, s and t the logits of both networks:

        logit = logit_weight r (β T²/N) Σ_Ω KL(softmax(t/T) ‖ softmax(s/T))    over the classes
        angle = angle_weight r (β T²/N) Σ_Ω KL(softmax(t/T) ‖ softmax(s/T))    over classes of angles
        box   = box_weight mean_Ω |encoded student - encoded teacher|          4 or 5 numbers, in units of the prior
        pixel = pixel_background/levels Σ n (φ(F) - G)² / max(1, 2 C Σ n)      n: priors of a cell in Ω; likewise
                                                                               pixel_foreground with the others

    F `(B, C', H, W)` and G `(B, C, H, W)` are the neck's maps and φ a 3×3 convolution, which starts near 0; r rises
    from 0 to 1. `logit` knows no constant: it tells which class the background resembles, not how much it is one; and
    with a single class it is 0. `score_weight` (ours) adds the scores themselves. `angle` needs `retina-obb-class` (the
    paper's category direction estimation) and is absent with other heads, upright ones too. Both heads have to be of
    one kind, with the same classes and grids; without boxes an image is all background.

    What is known: the paper's tables are not public, its abstract is, and of its code all but the head. `pixel`,
    `logit` and `angle` follow the code; of `box` it shows "L1, 0.9, negatives", and the mean is inferred from a log,
    which is of an earlier variant: `sample = "both", pixel_foreground = 3`. With cells for anchors it is ours: `box`
    then compares the offsets and logarithms, in strides, that `dense` and `dense-obb` predict. Of a rectangle's two
    names these may choose different ones; `box_angle = false` leaves the angle out. Unlike the authors' head,
    `retina-obb-class` has no number for the angle: its `box` has four.

    Attributes:
        temperature: T.
        beta: β, a common factor of logit and angle.
        logit_weight: of the classes.
        angle_weight: of the classes of angles.
        box_weight: of the encoded boxes.
        score_weight: of score = r Σ_Ω Σ_c (BCE(σ(t), σ(s)) - BCE(σ(t), σ(t)))/N, which the paper does not have.
        pixel_background: of the neck's maps where there is background.
        pixel_foreground: of the neck's maps where there are objects.
        sample: priors of logit, angle and score. The authors' names: "negatives" (neg, negn); "positives" (pos); "both"
            (pos_negn); "nontarget": both, the softmax of a positive without the class it learns (pos_neg_ignore; with
            `include_ignored = false` pos_neg).
        box_sample: priors of box: "negatives", "positives" or "both".
        include_ignored: whether ignored anchors (IoU 0.4 to 0.5) belong to the negatives.
        normaliser: of logit, angle and score: "all" priors of the level, N, or those "sampled".
        box_reduction: "mean" over all numbers of a level, or "positives": their sum over the batch's positives.
        box_angle: whether box has the angle too, where it is a number.
        pixel_mode: "normalised"; "nsd_compat": with the coefficients that the levels have in the authors' code, where
            the finest counts most (see `pixel_coefficients`).
        pixel_levels: a factor for pixel on each level that is taught, finest first; empty: 1.
        warmup: share of the run over which r rises; 3 of 12 epochs with the authors.
    """

    needs_head: ClassVar[bool] = True

    temperature: float = 4.0
    beta: float = 8.0
    logit_weight: float = 1.8
    angle_weight: float = 1.0
    box_weight: float = 0.9
    score_weight: float = 0.0
    pixel_background: float = 12.0
    pixel_foreground: float = 0.0
    sample: str = "negatives"
    box_sample: str = "negatives"
    include_ignored: bool = True
    normaliser: str = "all"
    box_reduction: str = "mean"
    box_angle: bool = True
    pixel_mode: str = "normalised"
    pixel_levels: tuple[float, ...] = ()
    warmup: float = 0.25

    def __post_init__(self) -> None:
        for name, possible in _CHOICES.items():
            if getattr(self, name) not in possible:
                raise RecipeError(f"nsd: {name} is {getattr(self, name)!r}; possible: {', '.join(possible)}")
        check_numbers("nsd", self, at_least_0=_WEIGHTS, above_0=("temperature", "beta"))
        if not any(getattr(self, name) for name in _WEIGHTS):
            raise RecipeError(f"nsd: all weights are 0; give one of {', '.join(_WEIGHTS)}")
        if not 0 <= self.warmup <= 1:
            raise RecipeError(f"nsd: warmup is {self.warmup}; it is a share of the run, from 0 to 1")
        if self.pixel_levels and self.pixel_mode == "nsd_compat":
            raise RecipeError("nsd: pixel_mode = nsd_compat weighs the levels itself; leave out pixel_levels")

    @property
    def compares_classes(self) -> bool:
        """Whether class i of the student is compared with class i of the teacher."""
        return bool(self.logit_weight or self.score_weight)

    def adapters(self, channels: Mapping[int, tuple[int, int]]) -> nn.Module:
        """Return `{"p3": 3×3 convolution, ...}`, or nothing to train if pixels are not compared.

        Raises:
            RecipeError: `pixel_levels` are not as many as the levels.
        """
        if self.pixel_levels and len(self.pixel_levels) != len(channels):
            raise RecipeError(
                f"nsd: pixel_levels has {len(self.pixel_levels)} factors for {len(channels)} levels"
                f" ({', '.join(f'P{level}' for level in sorted(channels))})"
            )
        if not self._compares_pixels:
            return nn.Identity()
        return nn.ModuleDict({f"p{level}": _adapter(*counts) for level, counts in channels.items()})

    def __call__(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> dict[str, Tensor]:
        """Return "pixel.p3", "logit.p3", "angle.p3", "box.p3" ..., already weighted; terms that are off are absent.

        Raises:
            RecipeError: heads that cannot be compared, or only angles to compare, which have no classes.
        """
        levels = self._levels(student, teacher, scene)
        losses = self._pixels(student, teacher, adapters, levels) if self._compares_pixels else {}
        rise = ramp(scene.step / scene.steps, self.warmup)
        for level, each in levels.items():
            losses.update({f"{name}.p{level}": loss for name, loss in self._soft(each, rise).items()})
        if self.box_weight:
            losses.update(self._boxes(levels))
        if not losses:
            raise RecipeError(
                "nsd: only angle_weight is above 0, and these heads have no classes of angles;"
                " possible: head retina-obb-class, or another weight"
            )
        return losses

    def observe(self, student: Taps, teacher: Taps, adapters: nn.Module, scene: Scene) -> Observed:
        """Show the aligned maps, and of each cell the share of priors that are background and that have an object."""
        levels = self._levels(student, teacher, scene)
        maps = {
            name: {level: self._counted(each, sample) / each.priors for level, each in levels.items()}
            for name, sample in (("foreground", "positives"), ("background", "negatives"))
        }
        return Observed(aligned(student, adapters) if self._compares_pixels else {}, maps)

    @property
    def _compares_pixels(self) -> bool:
        return bool(self.pixel_background or self.pixel_foreground)

    def _levels(self, student: Taps, teacher: Taps, scene: Scene) -> dict[int, Level]:
        angles = bool(self.angle_weight or (self.box_weight and self.box_angle))
        return paired_levels(student, teacher, scene, angles=angles)

    def _counted(self, each: Level, sample: str) -> Tensor:
        """Return `(B, H, W)`: how many priors of each cell count."""
        return each.per_cell(sampled(each.labels, sample, include_ignored=self.include_ignored))

    def _pixels(
        self, student: Taps, teacher: Taps, adapters: nn.Module, levels: Mapping[int, Level]
    ) -> dict[str, Tensor]:
        ours = aligned(student, adapters)
        factors = self.pixel_levels or (1.0,) * len(levels)
        priors = next(iter(levels.values())).priors
        coefficients = {
            sample: pixel_coefficients(self.pixel_mode, weight, len(levels), priors)
            for sample, weight in (("negatives", self.pixel_background), ("positives", self.pixel_foreground))
            if weight
        }
        losses = {}
        for index, (level, each) in enumerate(levels.items()):
            errors = [
                of_level[index] * pixel_error(ours[level], teacher.features[level], self._counted(each, sample))
                for sample, of_level in coefficients.items()
            ]
            losses[f"pixel.p{level}"] = factors[index] * torch.stack(errors).sum()
        return losses

    def _soft(self, each: Level, rise: float) -> dict[str, Tensor]:
        """Return what is compared as distributions."""
        ours, theirs = each.ours, each.theirs
        rows = sampled(each.labels, self.sample, include_ignored=self.include_ignored)
        count = share_of_total(rows.sum()) if self.normaliser == "sampled" else rows.numel()
        losses = {}
        if self.logit_weight:
            losses["logit"] = self.logit_weight * self.beta * self._apart(ours.logits, theirs.logits, each.labels)
        if self.angle_weight and ours.angle is not None and theirs.angle is not None and each.angle_labels is not None:
            losses["angle"] = self.angle_weight * self.beta * self._apart(ours.angle, theirs.angle, each.angle_labels)
        if self.score_weight:
            losses["score"] = self.score_weight * score_divergence(ours.logits, theirs.logits)
        return {name: rise * (loss * rows).sum() / count for name, loss in losses.items()}

    def _apart(self, ours: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
        """Return the divergence `(B, N)` of logits `(B, C, N)`."""
        if self.sample == "nontarget":
            ours, theirs = without_target(ours, labels), without_target(theirs, labels)
        return divergence(ours, theirs, self.temperature)

    def _boxes(self, levels: Mapping[int, Level]) -> dict[str, Tensor]:
        numbers = None if self.box_angle else 4
        sums, counts = [], []
        for each in levels.values():
            apart = (each.ours.box[:, :numbers] - each.theirs.box[:, :numbers]).abs()
            rows = sampled(each.labels, self.box_sample, include_ignored=self.include_ignored)
            sums.append((apart * rows.unsqueeze(1)).sum())
            counts.append(rows.sum() * apart.shape[1])
        if self.box_reduction == "positives":
            counts = [torch.stack([(each.labels >= 0).sum() for each in levels.values()]).sum().float()] * len(levels)
        means = torch.stack(sums) / share_of_total(torch.stack(counts))
        return {f"box.p{level}": self.box_weight * mean for level, mean in zip(levels, means, strict=True)}


def _adapter(ours: int, theirs: int) -> nn.Conv2d:
    """Return a 3×3 convolution that starts as good as 0, as the authors' does: normal, cut at 2, times 1e-4."""
    conv = nn.Conv2d(ours, theirs, 3, padding=1)
    with torch.no_grad():
        conv.weight.normal_().fmod_(2).mul_(1e-4)
    return conv
