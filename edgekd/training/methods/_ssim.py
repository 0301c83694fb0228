"""Structural similarity of feature maps (SSIM, Wang et al., IEEE TIP 13, 2004, eq. 13)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._standardise import DEAD, standardised

WINDOW = 11  # cells of the Gaussian window, and its deviation: as Wang et al.
SIGMA = 1.5
_SMALLEST_RANGE = 1e-3  # of what is stretched to [0, 1]


def structure_loss(ours: Tensor, theirs: Tensor, scaling: str, c1: float, c2: float) -> Tensor:
    """Return mean (1 − SSIM)/2 over `(N, C, H, W)` float32 maps, in [0, 1]; no gradient reaches `theirs`.

    Args:
        ours: the student's map in the teacher's channels.
        theirs: the teacher's map, which carries no gradient.
        scaling: how the maps come to [0, 1]. "teacher": both are standardised per channel over the batch, then moved
            by the same step, which takes the teacher's channel to [0, 1]; blind to a positive scale and an offset of a
            student's channel. "minmax_raw": each image of each network by its own extremes over (C, H, W).
        c1: steadies the comparison of means.
        c2: steadies the comparison of variances.
    """
    if scaling == "teacher":
        u, v, alive = _on_the_teachers_range(ours, theirs)
    else:
        u, v, alive = _each_on_its_own_range(ours, theirs)
    weight = alive.to(u.dtype) / alive.sum().clamp(min=1)
    return ((1 - ssim(u, v, c1, c2)).mean(dim=(0, 2, 3)) / 2 * weight).sum().clamp(min=0)


def ssim(u: Tensor, v: Tensor, c1: float, c2: float, window: int = WINDOW, sigma: float = SIGMA) -> Tensor:
    """Return SSIM at each cell of two maps `(N, C, H, W)` in [0, 1]: the same shape, at most 1.

    The window is Gaussian, shrinks to the largest odd size within the map and repeats the border outside it. No root is
    taken, so a flat neighbourhood has a finite gradient.
    """
    height, width = u.shape[2:]
    window = min(window, _odd(min(height, width)))
    down, across = (_blur_matrix(size, window, sigma, u) for size in (height, width))
    x, y = (t.permute(0, 2, 3, 1).contiguous() for t in (u, v))  # (N, H, W, C): as the trainer's maps lie in memory
    mean_x, mean_y = _blur(x, down, across), _blur(y, down, across)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    # Only the sum of the two variances is needed, and blurring is linear: four blurs instead of five.
    variances = (_blur(x.square() + y.square(), down, across) - squares).clamp(min=0)
    covariance = _blur(x * y, down, across) - product
    similarity = (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))
    return similarity.permute(0, 3, 1, 2)


def _on_the_teachers_range(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y, alive = standardised(ours, theirs)
    low, high = y.amin(dim=(0, 2, 3), keepdim=True), y.amax(dim=(0, 2, 3), keepdim=True)
    scale = 1 / (high - low).clamp(min=_SMALLEST_RANGE)
    return (x - low) * scale, (y - low) * scale, alive


def _each_on_its_own_range(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Stretch each image of each network; the student's range is floored at 1e-3 of the teacher's."""
    low_s, high_s = _extremes(ours)
    low_t, high_t = _extremes(theirs)
    range_t = (high_t - low_t).clamp(min=DEAD)
    range_s = torch.maximum(high_s - low_s, _SMALLEST_RANGE * range_t)
    everything = torch.ones(theirs.shape[1], dtype=torch.bool, device=theirs.device)
    return (ours - low_s) / range_s, (theirs - low_t) / range_t, everything


def _extremes(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.amin(dim=(1, 2, 3), keepdim=True), features.amax(dim=(1, 2, 3), keepdim=True)


def _odd(size: int) -> int:
    return size - 1 + size % 2


def _blur_matrix(size: int, window: int, sigma: float, like: Tensor) -> Tensor:
    """Return `(size, size)`: row i holds the window around cell i, what reaches outside added to the border cell.

    Depthwise convolution of a padded map gives the same numbers, and takes 2 to 100 times as long.
    """
    offsets = torch.arange(window, device=like.device) - window // 2
    weights = torch.exp(-offsets.to(like.dtype).square() / (2 * sigma**2))
    cells = torch.arange(size, device=like.device)
    touched = (cells.view(-1, 1) + offsets).clamp(0, size - 1)
    return ((touched.unsqueeze(2) == cells) * (weights / weights.sum()).view(1, -1, 1)).sum(dim=1)


def _blur(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Apply the matrices over H and W of `(N, H, W, C)`."""
    n, h, w, c = x.shape
    x = torch.bmm(down.expand(n, h, h), x.reshape(n, h, w * c))
    return torch.bmm(across.expand(n * h, w, w), x.reshape(n * h, w, c)).view(n, h, w, c)
