"""Label assignment: which cell or anchor learns which object. All of a batch at once, no loop over boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import Truth, pairwise_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST = 4  # cells an object learns from at least, where it has as many candidates


class Assignment(NamedTuple):
    """Which ground truth each cell or anchor learns.

    `match` `(B, N)` int64: row of the image's truth, -1 background, -2 ignored; `iou` `(B, N)` of the match, else 0.
    """

    match: Tensor
    iou: Tensor


@torch.no_grad()
def assign_dynamic(
    truth: Truth, logits: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, candidates: int = 13
) -> Assignment:
    """Dynamic soft-label assignment (RTMDet, Lyu et al. 2022, section 3.3; dynamic k as in SimOTA, Ge et al. 2021).

    An object takes its k cheapest cells, k = sum of its `candidates` best IoUs (at least four). The cost adds soft
    classification, -3 log IoU and 10^(distance - 3), distance to the object's centre in strides. Candidates are the
    cells whose centre lies in the box, and on each level the cell that holds the box's centre, for small objects.

    Args:
        truth: padded ground truth with G boxes an image.
        logits: `(B, C, N)` float32 class logits.
        boxes: `(B, N, 4)` float32 predictions, xyxy.
        centres: `(N, 2)` cell centres in pixels.
        strides: `(N,)` pixels per cell.
        candidates: cells over which k is summed.
    """
    near, distance = _nearness(truth, centres, strides)
    return take_cheapest(truth, logits, pairwise_iou(truth.boxes, boxes), near, distance, candidates)


def take_cheapest(
    truth: Truth, logits: Tensor, iou: Tensor, near: Tensor, distance: Tensor, candidates: int
) -> Assignment:
    """Assign as `assign_dynamic` does, whatever the boxes' shape.

    Args:
        truth: padded ground truth with G boxes an image.
        logits: `(B, C, N)` float32 class logits.
        iou: `(B, G, N)` of truth and predictions; only that of candidates is looked at.
        near: `(B, G, N)` bool: the candidates.
        distance: `(B, G, N)` in strides from the cell to the box's centre; overwritten.
        candidates: cells over which k is summed.
    """
    chosen = torch.gather(logits, 1, truth.labels.unsqueeze(-1).expand(-1, -1, logits.shape[-1]))
    focal = F.binary_cross_entropy_with_logits(chosen, iou, reduction="none") * (iou - chosen.sigmoid()).square()
    cost = focal - 3 * (iou + 1e-7).log() + torch.pow(10.0, distance.clamp_(max=8) - 3)
    cost.masked_fill_(~near, torch.inf)

    count = min(candidates, near.shape[-1])
    best = (iou * near).topk(count, dim=-1).values
    wanted = best.sum(dim=-1).int().clamp_(min=_FEWEST)
    cheapest = cost.topk(count, dim=-1, largest=False)
    rank = torch.arange(count, device=cost.device)
    taken = (rank < wanted.unsqueeze(-1)) & cheapest.values.isfinite()
    selected = torch.zeros_like(near).scatter_(-1, cheapest.indices, taken)

    # A cell that several objects want goes to the cheapest of them.
    lowest, match = cost.masked_fill_(~selected, torch.inf).min(dim=1)
    positive = lowest.isfinite()
    matched_iou = torch.gather(iou, 1, match.unsqueeze(1)).squeeze(1) * positive
    return Assignment(torch.where(positive, match, -1), matched_iou)


def _nearness(truth: Truth, centres: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Return the candidate mask `(B, G, N)` and the distance to the box centre in strides `(B, G, N)`."""
    x, y = centres[:, 0], centres[:, 1]
    left, top, right, bottom = truth.boxes.unsqueeze(-1).unbind(2)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    holds_centre, distance = around((left + right) / 2, (top + bottom) / 2, centres, strides)
    return (inside | holds_centre) & truth.valid.unsqueeze(-1), distance


def around(middle_x: Tensor, middle_y: Tensor, centres: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether a cell of the finest level holds a box's centre `(B, G, 1)`, and its distance in strides."""
    dx = (middle_x - centres[:, 0]).abs() / strides
    dy = (middle_y - centres[:, 1]).abs() / strides
    return (torch.maximum(dx, dy) <= 0.5) & (strides == strides.min()), torch.hypot(dx, dy)


@torch.no_grad()
def assign_by_iou(truth: Truth, anchors: Tensor, positive: float = 0.5, negative: float = 0.4) -> Assignment:
    """Assign by anchor overlap (RetinaNet, Lin et al., ICCV 2017).

    IoU >= `positive` learns the box, < `negative` is background, between is ignored. Every box also takes the anchors
    that overlap it most.

    Args:
        truth: padded ground truth with G boxes an image.
        anchors: `(N, 4)` xyxy.
        positive: IoU from which an anchor learns its best box.
        negative: IoU below which an anchor is background.
    """
    return take_by_overlap(pairwise_iou(truth.boxes, anchors) * truth.valid.unsqueeze(-1), positive, negative)


def take_by_overlap(iou: Tensor, positive: float, negative: float) -> Assignment:
    """Assign as `assign_by_iou` does, from the IoU `(B, G, N)` of truth and anchors, 0 for padding."""
    overlap, match = iou.max(dim=1)
    result = torch.where(overlap >= positive, match, torch.where(overlap < negative, -1, -2))
    best = iou.amax(dim=-1, keepdim=True)
    forced = (iou == best) & (best > 0)
    # Where two boxes force one anchor, the one that overlaps it more has it.
    strongest = (iou * forced).max(dim=1)
    result = torch.where(strongest.values > 0, strongest.indices, result)
    return Assignment(result, torch.gather(iou, 1, result.clamp(min=0).unsqueeze(1)).squeeze(1) * (result >= 0))


@torch.no_grad()
def assign_by_shape(
    truth: Truth,
    boxes: Tensor,
    anchors: Tensor,
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    positive: float = 0.213,
    ignored: float = 0.7,
) -> Assignment:
    """Assign by the shape of anchors (YOLOv4, Bochkovskiy et al. 2020; thresholds of its published network).

    In the cell that holds its centre an object takes, over all levels, every anchor whose IoU with it is above
    `positive` when both are centred on one point, and in any case the best one. An anchor that several objects want
    goes to the one that it fits best, the first of equals. Other anchors whose predicted box overlaps an object by
    more than `ignored` are ignored.

    Args:
        truth: padded ground truth with G boxes an image.
        boxes: `(B, N, 4)` float32 predictions, xyxy; level by level, row by row, the A anchors of a cell side by side.
        anchors: `(L, A, 2)` width and height in strides.
        shapes: rows and columns of each of the L levels.
        strides: pixels per cell of each level.
        positive: IoU of shapes from which an anchor learns an object.
        ignored: IoU of predictions from which an anchor that learns nothing is no background either.

    Returns:
        The assignment; its `iou` is that of the shapes.
    """
    fit = _shape_iou(truth.boxes, anchors * anchors.new_tensor(strides).view(-1, 1, 1))
    wanted = (fit > positive) | (fit == fit.amax(dim=-1, keepdim=True))
    fit = (fit * wanted).flatten(1)  # 0 for boxes without area, padding among them: they take nothing
    place = _places(truth.boxes, shapes, strides, anchors.shape[1]).flatten(1)

    best = fit.new_zeros(boxes.shape[:2]).scatter_reduce(1, place, fit, "amax")
    rows = torch.arange(wanted.shape[1], device=place.device).view(1, -1, 1).expand_as(wanted).flatten(1)
    nobody = wanted.shape[1]
    claims = torch.where((fit > 0) & (fit == best.gather(1, place)), rows, nobody)
    match = torch.full_like(best, nobody, dtype=torch.int64).scatter_reduce(1, place, claims, "amin")
    close = pairwise_iou(truth.boxes, boxes).amax(dim=1) > ignored
    background = torch.where(close, -2, -1)
    return Assignment(torch.where(match == nobody, background, match), best)


def _shape_iou(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Return IoU `(B, G, L A)` of boxes `(B, G, 4)` with anchors `(L, A, 2)`, in pixels, all centred on one point."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unsqueeze(-2)
    sizes = sizes.flatten(0, 1)
    inter = torch.minimum(sides, sizes).prod(dim=-1)
    return inter / (sides.prod(dim=-1) + sizes.prod(dim=-1) - inter)


def _places(boxes: Tensor, shapes: Sequence[tuple[int, int]], strides: Sequence[int], count: int) -> Tensor:
    """Return `(B, G, L count)` int64: which of the N anchors are those of the cell that holds the box's centre."""
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    first, places = 0, []
    for (height, width), stride in zip(shapes, strides, strict=True):
        column, row = (middle / stride).long().unbind(dim=-1)
        cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        places.append(first + cell.unsqueeze(-1) * count + torch.arange(count, device=boxes.device))
        first += height * width * count
    return torch.cat(places, dim=-1)
