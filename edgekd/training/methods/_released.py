"""XFKD as its authors released it, for the record: formulas and faults, from a reading of the code, none of it copied.

On each level, with BN a BatchNorm with trained scale and offset, one for each side, and CBAM's gates sharpened to

    A^S = H W softmax(gate of a cell / tau), A^C = C softmax(gate of a channel / tau),

    s = BN_s(T + S), t = BN_t(T); images without a box are left out from here on
    fg, bg = Σ FG | BG · A^S_t A^C_t (s - t)²                           / images
    mask   = smoothL1(A^C_t + A^C_s, A^C_t) + smoothL1(A^S_t + A^S_s, A^S_t)
    gc     = Σ (R_s(s) - R_t(t))² / images + BCE(softmax_H(2 s), softmax_H(2 t)) / images

Kept faults: the mix has S = 0 and any S = a T + b for a shortcut and shrinks S where it is small; both scales can
shrink together until nothing is left to compare; the mask term does not see the teacher and wants a flat student
attention; CBAM is trained through the teacher's side, which weighs the loss; the boxes' cells are counted before they
are clipped to the grid; every convolution starts from N(0, 0.02), the last of a global-context block too.
The last term of gc is detached on both sides, as there: it only shifts the value. Its DANet never trains and stays
D(F) = 2F, so there is none here.

Not kept, since it is outside of the loss or cannot run: boxes misread as pixels though normalised (always the top left
2 x 2 cells), their division by the picture's size without its padding, the division of all by the number of positives,
and attention classes called on tensors: one CBAM for both sides is our reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import RecipeError
from ._cbam import CBAM, gated_attention
from ._context import context_blocks, context_error
from ._focal import Attention, Weighing, focal_errors
from ._masks import box_masks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from . import Scene


class BatchStatistics(nn.Module):
    """BatchNorm that always takes the batch's statistics; of a single value too, where torch's refuses."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the standardised map, scaled and shifted."""
        variance, mean = torch.var_mean(features, dim=(0, 2, 3), correction=0, keepdim=True)
        return (features - mean) * (variance + 1e-5).rsqrt() * self.weight + self.bias


def released_adapters(channels: Mapping[int, tuple[int, int]]) -> nn.ModuleDict:
    """Return two norms, one CBAM and two global-context blocks a level.

    Raises:
        RecipeError: channel counts differ.
    """
    for level, (ours, theirs) in channels.items():
        if ours != theirs:
            raise RecipeError(
                f"xfkd: variant 'released' adds the two maps as they are, but p{level} has {ours} channels in the "
                f"student and {theirs} in the teacher; possible: equal counts, or variant 'intended'"
            )
    counts = {level: theirs for level, (_, theirs) in channels.items()}
    adapters = nn.ModuleDict(
        {
            "student_norm": nn.ModuleDict({f"p{level}": BatchStatistics(count) for level, count in counts.items()}),
            "teacher_norm": nn.ModuleDict({f"p{level}": BatchStatistics(count) for level, count in counts.items()}),
            "attention": nn.ModuleDict({f"p{level}": CBAM(count) for level, count in counts.items()}),
            **context_blocks(counts),
        }
    )
    for module in adapters.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(module.weight, 0, 0.02)
    return adapters


def released_maps(ours: Tensor, theirs: Tensor, adapters: nn.Module, level: int) -> tuple[Tensor, Tensor]:
    """Return s and t, `(N, C, H, W)`."""
    s = adapters.get_submodule(f"student_norm.p{level}")(theirs + ours)
    return s, adapters.get_submodule(f"teacher_norm.p{level}")(theirs)


def released_weighing(s: Tensor, t: Tensor, adapters: nn.Module, level: int, scene: Scene, tau: float) -> Weighing:
    """Return the attention of s and t, and the masks of the boxes."""
    gates = adapters.get_submodule(f"attention.p{level}")
    masks = box_masks(scene.boxes, (scene.height, scene.width), (t.shape[2], t.shape[3]), clamp=False)
    return Weighing(gated_attention(s, gates, tau), gated_attention(t, gates, tau), masks)


def released_terms(s: Tensor, t: Tensor, weighing: Weighing, adapters: nn.Module, level: int) -> dict[str, Tensor]:
    """Return fg, bg, mask and gc of each image `(N,)`."""
    foreground, background = focal_errors(s - t, weighing.theirs, weighing.masks)
    relation = F.binary_cross_entropy(
        (2 * s.detach()).softmax(dim=2), (2 * t.detach()).softmax(dim=2), reduction="none"
    ).mean(dim=(1, 2, 3))
    images = (weighing.masks.foreground.amax(dim=(1, 2)) > 0).sum().clamp(min=1)
    return {
        "fg": foreground,
        "bg": background,
        "mask": _released_distance(weighing.ours, weighing.theirs),
        "gc": context_error(s, t, adapters, level).sum(dim=(1, 2, 3)) + relation / images,
    }


def _released_distance(ours: Attention, theirs: Attention) -> Tensor:
    pairs = (theirs.spatial.flatten(1), ours.spatial.flatten(1)), (theirs.channel, ours.channel)
    return torch.stack([F.smooth_l1_loss(t + s, t, reduction="none").mean(dim=1) for t, s in pairs]).sum(dim=0)
