"""Label assignment of oriented boxes: the rules of `assign`, with rotated overlap of the few pairs that need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .assign import Assignment, around, take_by_overlap, take_cheapest
from .rotated import hulls, iou_rotated, points_inside

if TYPE_CHECKING:
    from .boxes import Truth

_SLACK = 1.0001  # rounding may put an overlap above its bound; so much above, never


@torch.no_grad()
def assign_dynamic_rotated(
    truth: Truth, logits: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, candidates: int = 13
) -> Assignment:
    """Assign as `assign_dynamic` does; the candidates are the cells whose centre lies in the rotated box.

    Args:
        truth: padded ground truth with G boxes an image, xywhr.
        logits: `(B, C, N)` float32 class logits.
        boxes: `(B, N, 5)` float32 predictions, xywhr.
        centres: `(N, 2)` cell centres in pixels.
        strides: `(N,)` pixels per cell.
        candidates: cells over which k is summed.
    """
    holds_centre, distance = around(truth.boxes[..., 0:1], truth.boxes[..., 1:2], centres, strides)
    near = (points_inside(centres, truth.boxes) | holds_centre) & truth.valid.unsqueeze(-1)
    image, row, cell = near.nonzero(as_tuple=True)
    iou = torch.zeros_like(distance)
    iou[image, row, cell] = iou_rotated(truth.boxes[image, row], boxes[image, cell])
    return take_cheapest(truth, logits, iou, near, distance, candidates)


@torch.no_grad()
def assign_by_rotated_iou(truth: Truth, anchors: Tensor, positive: float = 0.5, negative: float = 0.4) -> Assignment:
    """Assign as `assign_by_iou` does, by rotated overlap.

    The exact overlap is computed for the pairs that can matter only: those that could reach `negative`, or beat what
    the box has with the anchor of its best bound. The others are background to each other whatever it is.

    Args:
        truth: padded ground truth with G boxes an image, xywhr.
        anchors: `(N, 5)` xywhr.
        positive: IoU from which an anchor learns its best box.
        negative: IoU below which an anchor is background.
    """
    bound = overlap_bound(truth.boxes, anchors) * truth.valid.unsqueeze(-1) * _SLACK
    likely = bound.argmax(dim=-1)
    least = iou_rotated(truth.boxes, anchors[likely]).clamp(max=negative).unsqueeze(-1)
    image, row, cell = ((bound >= least) & (bound > 0)).nonzero(as_tuple=True)
    iou = torch.zeros_like(bound)
    iou[image, row, cell] = iou_rotated(truth.boxes[image, row], anchors[cell])
    return take_by_overlap(iou, positive, negative)


def overlap_bound(first: Tensor, second: Tensor) -> Tensor:
    """Return what the IoU `(..., G, N)` of boxes `(..., G, 5)` and `(..., N, 5)` is at most: cheap, and 0 if far apart.

    The shared area is at most that of the hulls, and at most that of either box.
    """
    ax1, ay1, ax2, ay2 = hulls(first).unsqueeze(-2).unbind(-1)
    bx1, by1, bx2, by2 = hulls(second).unsqueeze(-3).unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    area_a, area_b = (first[..., 2] * first[..., 3]).unsqueeze(-1), (second[..., 2] * second[..., 3]).unsqueeze(-2)
    inter = torch.minimum(width.mul_(height), torch.minimum(area_a, area_b))
    return inter / (area_a + area_b - inter).clamp_(min=1e-30)
