"""Overlap of axis-aligned boxes in torch (xyxy float32 in network pixels), and padding of per-image lists."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPS = 1e-7


class Truth(NamedTuple):
    """Ground truth of a batch, padded to the image with most boxes.

    `boxes` `(B, G, 4)` xyxy or `(B, G, 5)` xywhr float32, `labels` `(B, G)` int64, `valid` `(B, G)` bool: a box of
    positive width and height.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor


def pad_truth(boxes: Sequence[Tensor], labels: Sequence[Tensor], device: torch.device, columns: int = 4) -> Truth:
    """Stack per-image boxes `(n, columns)` and labels `(n,)`; G is at least 1: an empty batch is no special case.

    Args:
        boxes: one tensor an image.
        labels: likewise.
        device: of the result.
        columns: 4 for xyxy, 5 for xywhr.

    Raises:
        UsageError: boxes of another shape: upright ones for a head that predicts oriented boxes, or the reverse.
    """
    for item in boxes:
        if item.ndim != 2 or item.shape[1] != columns:
            kind = f"{'xyxy' if columns == 4 else 'oriented xywhr'} boxes of shape (n, {columns})"
            raise UsageError(f"this head takes {kind}, got {tuple(item.shape)}")
    one_box, one_label = torch.zeros(1, columns), torch.zeros(1, dtype=torch.int64)
    padded = pad_sequence([one_box, *(item.float().cpu() for item in boxes)], batch_first=True)[1:]
    classes = pad_sequence([one_label, *(item.long().cpu() for item in labels)], batch_first=True)[1:]
    sides = padded[..., 2:4] - padded[..., :2] if columns == 4 else padded[..., 2:4]
    valid = (sides > 0).all(dim=-1)
    return Truth(padded.to(device), classes.to(device), valid.to(device))


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return IoU `(..., G, N)` of boxes `(..., G, 4)` with boxes `(..., N, 4)`."""
    # One coordinate at a time: broadcasting (G, N, 2) corners instead takes twice as long on a CPU.
    ax1, ay1, ax2, ay2 = first.unsqueeze(-2).unbind(-1)
    bx1, by1, bx2, by2 = second.unsqueeze(-3).unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    inter = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
    return inter / union.clamp_(min=_EPS)


def giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU, each `(N,)`, of aligned boxes `(N, 4)` (Rezatofighi et al., CVPR 2019, eq. 3)."""
    inter, union = _overlap(first, second)
    iou = inter / union.clamp(min=_EPS)
    hull = _hull(first, second).prod(dim=1)
    return iou, iou - (hull - union) / hull.clamp(min=_EPS)


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Return the complete IoU `(N,)` of aligned boxes `(N, 4)`, in [-1.5, 1] (Zheng et al., AAAI 2020, eq. 8-11).

    IoU, less the squared distance of the centres over that of the hull's corners, less `alpha v`: v is the squared
    difference of the aspect ratios' angles over (pi / 2)^2; alpha carries no gradient.
    """
    inter, union = _overlap(first, second)
    iou = inter / union.clamp(min=_EPS)
    diagonal = _hull(first, second).square().sum(dim=1)
    distance = (first[:, :2] + first[:, 2:] - second[:, :2] - second[:, 2:]).square().sum(dim=1) / 4
    v = (_angle(first) - _angle(second)).square() * (4 / math.pi**2)
    alpha = (v / (1 - iou + v).clamp(min=_EPS)).detach()
    return iou - distance / diagonal.clamp(min=_EPS) - alpha * v


def _overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of intersection and union, each `(N,)`, of aligned boxes."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    inter = (high - low).clamp(min=0).prod(dim=1)
    return inter, (first[:, 2:] - first[:, :2]).prod(dim=1) + (second[:, 2:] - second[:, :2]).prod(dim=1) - inter


def _hull(first: Tensor, second: Tensor) -> Tensor:
    """Return width and height `(N, 2)` of the smallest boxes around both."""
    return torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])


def _angle(boxes: Tensor) -> Tensor:
    """Return the angle of the diagonal, arctan(width / height), `(N,)` in radians."""
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    return (width / height.clamp(min=_EPS)).atan()
