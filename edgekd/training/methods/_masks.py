"""Foreground and background masks of ground-truth boxes (FGD, Yang et al., CVPR 2022, section 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..models.rotated import hulls

if TYPE_CHECKING:
    from collections.abc import Sequence


class Masks(NamedTuple):
    """What each cell of `(N, H, W)` counts: each mask sums to about 1 a box, or to 1 an image; never both above 0."""

    foreground: Tensor
    background: Tensor


def box_masks(boxes: Sequence[Tensor], image: tuple[int, int], grid: tuple[int, int], *, clamp: bool = True) -> Masks:
    """Return the masks of one batch, `(N, H, W)` float32.

    A box covers the cells floor(x1 W / width) ... ceil(x2 W / width), both included, likewise in y. A foreground cell
    is worth the largest 1 / (cells of the box) of the boxes that cover it; the background is 1 where no box is, divided
    by its count. Boxes without area inside the image are left out. An oriented box counts as the upright hull around
    it: its corners are foreground too.

    Args:
        boxes: N tensors `(n, 4)` xyxy or `(n, 5)` xywhr, in pixels of the padded network input.
        image: height and width of that input.
        grid: H and W of the feature map.
        clamp: count a box's cells after clipping them to the grid, so that a single box always sums to 1. Without it a
            box at the right or lower border sums to less, as in the authors' code.
    """
    # One box of no area for everybody: the maximum below is never over nothing. Double: x1 W is exact, so that a box
    # edge on a cell edge lands there whatever the image's size.
    upright = [_upright(each.detach().double()) for each in boxes]
    every = F.pad(pad_sequence(upright, batch_first=True), (0, 0, 0, 1))
    x1, y1, x2, y2 = every.unbind(dim=-1)
    columns, wide = _covered(x1, x2, image[1], grid[1], clamp)
    rows, tall = _covered(y1, y2, image[0], grid[0], clamp)
    share = (1 / (wide * tall)).float()  # (N, boxes); a box without area has no cells, whatever its share
    inside = rows[..., :, None] & columns[..., None, :]
    foreground = (share[..., None, None] * inside).amax(dim=1)
    free = (foreground == 0).float()
    return Masks(foreground, free / free.sum(dim=(1, 2), keepdim=True).clamp(min=1))


def _upright(boxes: Tensor) -> Tensor:
    """Return xyxy; what has no side has no hull, whatever the length of the other."""
    if boxes.shape[1] == 4:
        return boxes
    return hulls(boxes) * (boxes[:, 2:4] > 0).all(dim=1, keepdim=True)


def _covered(low: Tensor, high: Tensor, pixels: int, cells: int, clamp: bool) -> tuple[Tensor, Tensor]:
    """Return which of the `cells` along one axis each box covers `(N, boxes, cells)`, and how many it counts."""
    first, last = (low * cells / pixels).floor(), (high * cells / pixels).ceil()
    if clamp:
        first, last = first.clamp(0, cells - 1), last.clamp(0, cells - 1)
    at = torch.arange(cells, device=low.device)
    visible = low.clamp(0, pixels) < high.clamp(0, pixels)
    inside = (at >= first[..., None]) & (at <= last[..., None]) & visible[..., None]
    return inside, (last - first + 1).clamp(min=1)
