"""The terms of negative-core sample distillation: which priors count, and how far apart two networks are on them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.heads.head import share_of_total

_NEVER = 1000.0  # off a logit: its probability is then 0 in float32, and its logarithm still finite


def sampled(labels: Tensor, sample: str, *, include_ignored: bool) -> Tensor:
    """Return `(B, N)` float32: 1 for the priors that count, else 0.

    Args:
        labels: `(B, N)` int64: the class that a prior learns, -1 background, -2 ignored.
        sample: "negatives", "positives", or else both.
        include_ignored: whether ignored priors are negatives.
    """
    positive = labels >= 0
    negative = ~positive if include_ignored else labels == -1
    return {"negatives": negative, "positives": positive}.get(sample, positive | negative).float()


def divergence(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Return T² KL(softmax(theirs / T) ‖ softmax(ours / T)) of each prior, `(B, N)`, for logits `(B, C, N)`."""
    p, q = (F.log_softmax(logits / temperature, dim=1) for logits in (theirs, ours))
    return temperature**2 * (p.exp() * (p - q)).sum(dim=1)


def without_target(logits: Tensor, labels: Tensor) -> Tensor:
    """Return logits `(B, C, N)` with the class that a positive learns taken out of its softmax; see `sampled`."""
    target = torch.zeros_like(logits).scatter_(1, labels.clamp(min=0).unsqueeze(1), 1.0)
    return logits - _NEVER * target * (labels >= 0).unsqueeze(1)


def score_divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return Σ_c BCE(sigmoid(theirs), sigmoid(ours)) of each prior, `(B, N)`, less its smallest value, at equality."""
    target = theirs.sigmoid()
    parts = (F.binary_cross_entropy_with_logits(logits, target, reduction="none") for logits in (ours, theirs))
    reached, least = parts
    return (reached - least).sum(dim=1)


def pixel_error(ours: Tensor, theirs: Tensor, count: Tensor) -> Tensor:
    """Return Σ count (ours - theirs)² / max(1, 2 C Σ count) of maps `(B, C, H, W)`, count `(B, H, W)`.

    The sums are those of the batch of all ranks together.
    """
    error = ((ours - theirs).square().sum(dim=1) * count).sum()
    return error / share_of_total(2 * ours.shape[1] * count.sum())


def pixel_coefficients(mode: str, weight: float, levels: int, priors: int) -> list[float]:
    """Return what the error of each level is multiplied by, finest first.

    "normalised": weight / levels, each. "nsd_compat": what became of that in the authors' code. Its sum of errors is
    not reset between levels, is divided by the A priors of a cell, and g = weight / levels stands inside the loop,
    L ← (L + Σ_{k ≤ l} b_k / A) g for each level l = 0, 1 ...; that of b_k becomes Σ_{j=1}^{levels-k} g^j / A.
    """
    factor = weight / levels
    if mode == "normalised":
        return [factor] * levels
    return [sum(factor**power for power in range(1, levels - index + 1)) / priors for index in range(levels)]


def ramp(done: float, warmup: float) -> float:
    """Return how much of a term counts when the share `done` of the run is over: from 0, linearly, to 1 at `warmup`."""
    return min(done / warmup, 1.0) if warmup else 1.0
