"""Where the cells of a pyramid lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
