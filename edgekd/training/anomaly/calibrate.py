"""BatchNorm of a teacher fitted to normal images, and how much of what it shows is the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .pyramid import Pyramid

CALIBRATE = ("auto", "always", "never")
MOST_CONSTANT = 0.8
"""Share of a map's energy in its mean from which on 1 - cosine hardly sees anything else."""


def batchnorms(teacher: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Return its BatchNorm layers by name; teachers whose weights came with theirs folded have none."""
    return {name: layer for name, layer in teacher.named_modules() if isinstance(layer, nn.BatchNorm2d)}


@torch.no_grad()
def fit_batchnorm(teacher: Pyramid, batches: Iterable[Tensor]) -> None:
    """Set running means and variances to those of normal images: the plain mean over the batches, each once.

    Random weights come with the statistics of no image at all (mean 0, variance 1): then one direction dominates all
    features, and no cosine moves. Weights are left alone.

    Args:
        teacher: has BatchNorm.
        batches: `(B, 3, H, W)` normalised, at least one.
    """
    layers = batchnorms(teacher).values()
    usual = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.training = True
    for images in batches:
        teacher(images)
    for layer, momentum in zip(layers, usual, strict=True):
        layer.momentum = momentum
    teacher.eval()


@torch.no_grad()
def mean_shares(teacher: Pyramid, batches: Iterable[Tensor]) -> tuple[float, ...]:
    """Return m_k = |E f|^2 / E |f|^2 of the three maps over images and places, in [0, 1]; 0 of a map that is zero."""
    sums = [torch.zeros(count, dtype=torch.float64) for count in teacher.channels]
    energies = [0.0] * len(sums)
    places = [0] * len(sums)
    for images in batches:
        for scale, features in enumerate(teacher(images)):
            sums[scale] += features.double().sum((0, 2, 3)).cpu()
            energies[scale] += float(features.double().square().sum())
            places[scale] += features.shape[0] * features.shape[2] * features.shape[3]
    return tuple(
        float((total / count).square().sum()) / (energy / count) if energy else 0.0
        for total, energy, count in zip(sums, energies, places, strict=True)
    )
