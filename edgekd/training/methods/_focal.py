"""The terms of focal and global distillation (FGD, Yang et al., CVPR 2022, sections 3.1-3.2), image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from . import Observed
from ._attention import channel_attention, spatial_attention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._masks import Masks

SMALLEST_MEAN = 1e-12  # of magnitudes; only a map of zeros is below


class Attention(NamedTuple):
    """Weights of the cells `(N, H, W)` and of the channels `(N, C)`; each has mean 1 in each image."""

    spatial: Tensor
    channel: Tensor


class Weighing(NamedTuple):
    """What the terms of one level are weighed with."""

    ours: Attention
    theirs: Attention
    masks: Masks


def sharpened(cells: Tensor, channels: Tensor, tau: float) -> Attention:
    """Return the attention of energies `(N, H, W)` and `(N, C)`."""
    return Attention(spatial_attention(cells, tau), channel_attention(channels, tau))


def magnitude_attention(features: Tensor, tau: float, *, normalise: bool = False) -> Attention:
    """Return the attention of mean magnitudes; `normalise` divides them by their own mean in each image first."""
    magnitudes = features.abs()
    cells, channels = magnitudes.mean(dim=1), magnitudes.mean(dim=(2, 3))
    if normalise:
        cells = cells / cells.mean(dim=(1, 2), keepdim=True).clamp(min=SMALLEST_MEAN)
        channels = channels / channels.mean(dim=1, keepdim=True).clamp(min=SMALLEST_MEAN)
    return sharpened(cells, channels, tau)


def focal_errors(difference: Tensor, attention: Attention, masks: Masks) -> tuple[Tensor, Tensor]:
    """Return Σ mask · A^S · A^C · difference² over `(C, H, W)`, in foreground and background: `(N,)` each."""
    error = torch.einsum("nchw,nc->nhw", difference.square(), attention.channel) * attention.spatial
    return (error * masks.foreground).sum(dim=(1, 2)), (error * masks.background).sum(dim=(1, 2))


def attention_distance(ours: Attention, theirs: Attention) -> Tensor:
    """Return Σ |A^C_S - A^C_T| + Σ |A^S_S - A^S_T|, `(N,)`."""
    spatial = (ours.spatial - theirs.spatial).abs().sum(dim=(1, 2))
    return spatial + (ours.channel - theirs.channel).abs().sum(dim=1)


def mean_of_images(values: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the mean of `(N,)` over the images in `kept` `(N,)`, or over all; a connected zero if none is."""
    if kept is None:
        return values.mean()
    return (values * kept).sum() / kept.sum().clamp(min=1)


def laid_alike(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Return both maps with the cells innermost in memory: a step between two unlike layouts takes twice as long."""
    return ours.contiguous(), theirs.contiguous()


def shown(ours: Mapping[int, Tensor], weighings: Mapping[int, Weighing]) -> Observed:
    """Return the aligned maps with both spatial attentions and both masks of each level."""
    maps = {
        "teacher attention": {level: each.theirs.spatial for level, each in weighings.items()},
        "student attention": {level: each.ours.spatial for level, each in weighings.items()},
        "foreground": {level: each.masks.foreground for level, each in weighings.items()},
        "background": {level: each.masks.background for level, each in weighings.items()},
    }
    return Observed(ours, maps)
