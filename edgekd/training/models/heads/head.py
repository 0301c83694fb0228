"""`Head` and `HeadOutputs`: what every detection head offers, and the towers they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn


class HeadOutputs(NamedTuple):
    """Raw outputs, one entry per level: `logits[i]` `(B, A C, H_i, W_i)`, `regression[i]` `(B, A 4, H_i, W_i)`, A anchors a cell."""

    logits: tuple[Tensor, ...]
    regression: tuple[Tensor, ...]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """`(H_i, W_i)` of each level."""
        return tuple((int(item.shape[-2]), int(item.shape[-1])) for item in self.logits)


class Head(nn.Module):
    """A detection head. `strides` are the pixels per cell of its levels, `num_classes` is C."""

    strides: tuple[int, ...]
    num_classes: int

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Predict on neck outputs `(B, channels, H_i, W_i)`, one per stride."""
        raise NotImplementedError

    def decode(self, outputs: HeadOutputs) -> tuple[Tensor, Tensor]:
        """Return boxes `(B, N, 4)` xyxy in network pixels and scores `(B, N, C)` in [0, 1]."""
        raise NotImplementedError

    def loss(self, outputs: HeadOutputs, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return named scalar losses to be summed; boxes `(n, 4)` xyxy in network pixels and labels `(n,)` per image."""
        raise NotImplementedError


class SharedTower(nn.Module):
    """Stacked 3x3 convolutions shared by all levels; each level has its own BatchNorm (RTMDet, Lyu et al. 2022).

    Levels see different statistics, so one BatchNorm for all would be wrong at inference. Each folds into a copy of the
    convolution at export.
    """

    def __init__(self, channels: int, depth: int, levels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(depth)) for _ in range(levels))
        self.act = nn.ReLU(inplace=True)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map one `(B, channels, H_i, W_i)` per level to the same shapes."""
        outputs = []
        for feature, norms in zip(features, self.norms, strict=True):
            for conv, norm in zip(self.convs, norms, strict=True):
                feature = self.act(norm(conv(feature)))
            outputs.append(feature)
        return outputs


def join_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Join maps `(B, A channels, H_i, W_i)` as `(B, channels, N)`, N = sum of H_i W_i A, anchors of a cell side by side.

    The batch is the only -1, so that the exported graph has constant shapes and a dynamic batch.
    """
    flat = []
    for item in maps:
        count = int(item.shape[1]) // channels
        cells = int(item.shape[2] * item.shape[3])
        if count > 1:
            item = item.reshape(-1, count, channels, cells).permute(0, 2, 3, 1)
        flat.append(item.reshape(-1, channels, cells * count))
    return torch.cat(flat, dim=2)


def mean_over_ranks(total: Tensor) -> Tensor:
    """Return the mean of a scalar over all distributed ranks (itself without them): the normaliser of a joined batch."""
    if dist.is_available() and dist.is_initialized():
        total = total.detach().clone()
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return total
