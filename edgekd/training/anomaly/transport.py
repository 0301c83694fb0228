"""Optimal transport between two clouds of points, smoothed by entropy, and debiased."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLUR = 0.05
COOLING = 0.95**2  # of the temperature an update: of the blur 0.95, as RD++ has it
SETTLING = 20  # updates at the final temperature


def sinkhorn_divergence(one: Tensor, other: Tensor, blur: float = BLUR) -> Tensor:
    """Return S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 of two clouds of equally weighted points.

    OT is entropic optimal transport of cost |x - y|^2 / 2 at temperature blur^2 (Feydy et al., AISTATS 2019). It
    is symmetric, at least 0, and 0 for equal clouds, whatever the order of their points: without the two subtracted
    terms it would be least for a cloud that has shrunk. For a small blur it is half the squared Wasserstein distance,
    for a large one half the squared distance of the means.

    Args:
        one: `(N, D)` float32 or float64.
        other: `(M, D)`.
        blur: above 0, in the unit of the points.

    Returns:
        `()`, with gradient to both.
    """
    return _transport(one, other, blur) - (_transport(one, one, blur) + _transport(other, other, blur)) / 2


def _transport(one: Tensor, other: Tensor, blur: float) -> Tensor:
    """Return OT by Sinkhorn's iterations on the potentials, from the greatest cost down to the final temperature.

    Potentials get no gradient: where they are optimal, the value does not depend on them to first order. The last
    update, through which the cost gets its gradient, is done from either side, for symmetry.
    """
    # Not by products: distances of points that nearly agree would be rounding, under autocast in bfloat16.
    cost = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").square() / 2
    fixed = cost.detach()
    forward, backward = torch.zeros_like(fixed[:, 0]), torch.zeros_like(fixed[0])
    for temperature in _cooling(float(fixed.max()), blur**2):
        updated = _softmin(fixed - backward, temperature), _softmin(fixed.T - forward, temperature)
        forward, backward = (forward + updated[0]) / 2, (backward + updated[1]) / 2
    from_one = _softmin(cost - backward, blur**2).mean() + backward.mean()
    from_other = _softmin(cost.T - forward, blur**2).mean() + forward.mean()
    return (from_one + from_other) / 2


def _cooling(start: float, end: float) -> list[float]:
    steps = math.ceil(math.log(end / start, COOLING)) if start > end else 0
    return [start * COOLING**each for each in range(steps)] + [end] * SETTLING


def _softmin(rows: Tensor, temperature: float) -> Tensor:
    """Return of each row -t log mean exp(-row / t)."""
    return -temperature * (torch.logsumexp(-rows / temperature, dim=1) - math.log(rows.shape[1]))
