"""The score of an image: the peak of its blurred map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import geometry

SIGMA = 1.0
"""Of the blur, in pixels of the map: at stride 4 RD4AD's 4 pixels of the image."""


class PeakScore(nn.Module):
    """Blurs a map as `edgekd.geometry.blur` does, and takes its greatest value."""

    def __init__(self, sigma: float = SIGMA) -> None:
        super().__init__()
        half = torch.from_numpy(geometry.gaussian(sigma))
        kernel = torch.cat([half.flip(0), half[1:]])
        self.radius = len(half) - 1
        self.kernel: Tensor
        self.register_buffer("kernel", kernel, persistent=False)

    def blur(self, maps: Tensor) -> Tensor:
        """Return blurred `(B, 1, H, W)`; borders are reflected without repeating their pixels."""
        down = F.conv2d(self._reflected(maps, 2), self.kernel[None, None, :, None])
        return F.conv2d(self._reflected(down, 3), self.kernel[None, None, None, :])

    def _reflected(self, maps: Tensor, axis: int) -> Tensor:
        """Return maps with mirrored rows, or columns, around them; by slices, as Pad of opset 18 has no way to 17."""
        size = maps.shape[axis]
        before = [maps.narrow(axis, place, 1) for place in range(self.radius, 0, -1)]
        after = [maps.narrow(axis, size - 1 - place, 1) for place in range(1, self.radius + 1)]
        return torch.cat([*before, maps, *after], dim=axis)

    def forward(self, maps: Tensor) -> Tensor:
        """Return `(B,)` scores of `(B, 1, H, W)` maps, both sides longer than the blur's radius."""
        blurred = self.blur(maps)
        return F.max_pool2d(blurred, (blurred.shape[2], blurred.shape[3])).reshape(-1)
