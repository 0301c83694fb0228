"""Where the cells of a pyramid lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def cell_centres(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the cells' centres `(N, 2)` as x, y in pixels and their strides `(N,)`, level by level, row by row."""
    centres, sizes = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        centres.append(torch.stack([columns.reshape(-1), rows.reshape(-1)], dim=1))
        sizes.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(centres), torch.cat(sizes)


def cell_anchors(shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device) -> Tensor:
    """Return nine anchors a cell, `(9 N, 4)` xyxy: ratios height/width 1/2, 1, 2, sizes 4 strides x 2^(0, 1/3, 2/3)."""
    centres, sizes = cell_centres(shapes, strides, device)
    octaves = 4.0 * 2.0 ** (torch.arange(3, device=device) / 3)
    roots = torch.tensor([0.5, 1.0, 2.0], device=device).sqrt()
    width = (octaves.unsqueeze(1) / roots).reshape(-1)
    height = (octaves.unsqueeze(1) * roots).reshape(-1)
    half = torch.stack([width, height], dim=1) / 2 * sizes.reshape(-1, 1, 1)
    middle = centres.unsqueeze(1)
    return torch.cat([middle - half, middle + half], dim=2).reshape(-1, 4)
