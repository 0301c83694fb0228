"""How far two feature maps point apart: the loss over whole maps, and the anomaly map point by point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALLEST = 1e-16  # of a squared norm: 1e-8 of a norm, as PyTorch's cosine_similarity has it
LOSSES = ("global", "per_location")


def distance(one: Tensor, other: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return 1 - cos over some dimensions, which stay with size 1, in float32 and in [0, 2]; zero vectors are at 1."""
    one, other = one.float(), other.float()  # in bfloat16, 1 - cos of features that nearly agree is mostly rounding
    dot = (one * other).sum(dims, keepdim=True)
    norms = [(each * each).sum(dims, keepdim=True).clamp(min=SMALLEST).sqrt() for each in (one, other)]
    return 1 - dot / norms[0] / norms[1]


def loss(targets: Sequence[Tensor], students: Sequence[Tensor], kind: str = "global") -> Tensor:
    """Return the sum over scales of the mean distance, `()` float32; targets get no gradient.

    "global" takes each image's whole map as one vector. It is what RD4AD's code computes; "per_location" is the formula
    of its paper (equations 1 and 2), which falls far behind in the hands of users (RD4AD issue 22).

    Args:
        targets: `(B, C_k, H_k, W_k)` a scale.
        students: the same shapes.
        kind: one of `LOSSES`.
    """
    dims = (1, 2, 3) if kind == "global" else (1,)
    parts = [distance(ours.detach(), theirs, dims).mean() for ours, theirs in zip(targets, students, strict=True)]
    return torch.stack(parts).sum()


def anomaly_map(targets: Sequence[Tensor], students: Sequence[Tensor]) -> Tensor:
    """Return the sum over scales of the point-wise distance, at the finest scale.

    RD4AD, equation 3, but for two things: scales are added at stride 4 and not at the image's size, since the graph
    ends before enlarging to the image; and enlarging has half-pixel centres, as everywhere in edgekd (the published
    code aligns corners, which some compilers refuse).

    Args:
        targets: `(B, C_k, H_k, W_k)` a scale, finest first.
        students: the same shapes.

    Returns:
        `(B, 1, H_1, W_1)`, in [0, 2 K] for K scales.
    """
    total, *others = _distances(targets, students)
    for each in others:
        total = total + each
    return total


def product_map(targets: Sequence[Tensor], students: Sequence[Tensor]) -> Tensor:
    """Return the product over scales of the point-wise distance, at the finest scale, as STFPM has it.

    Arguments as `anomaly_map`, and scales are brought together as there. What one scale finds alike is alike.

    Returns:
        `(B, 1, H_1, W_1)`, in [0, 2 ** K] for K scales; small numbers: three distances of 0.1 make 0.001.
    """
    product, *others = _distances(targets, students)
    for each in others:
        product = product * each
    return product


def _distances(targets: Sequence[Tensor], students: Sequence[Tensor]) -> list[Tensor]:
    """Return the point-wise distances, all at the finest scale."""
    maps = [distance(ours, theirs, (1,)).relu() for ours, theirs in zip(targets, students, strict=True)]
    height, width = maps[0].shape[2:]
    found = [maps[0]]
    for each in maps[1:]:
        scale = (height / each.shape[2], width / each.shape[3])  # not a size, which would drag the batch's shape along
        found.append(F.interpolate(each, scale_factor=scale, mode="bilinear", align_corners=False))
    return found
