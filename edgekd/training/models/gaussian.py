"""Regression losses of rotated boxes `(..., 5)` xywhr, each 0 for equal rectangles; three see boxes as Gaussians.

A box is the Gaussian with its centre and the variances w^2 / 4 and h^2 / 4 along its sides (ProbIoU: over 12, as the
uniform rectangle has them). Formulas are written in one box's own coordinates, where determinants and forms are sums of
positive terms: thin boxes lose no digits. A square has no angle in them. Computed in float32, or float64 if given;
gradients are finite for equal boxes too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .rotated import Prepared, iou_rotated, prepare, relative

if TYPE_CHECKING:
    from collections.abc import Callable

_LEAST_HALF, _MOST_HALF = 5e-8, 5e6  # pixels


def iou_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - IoU, exact; no gradient for boxes that stand apart."""
    return 1 - iou_rotated(first, second)


def probiou_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - ProbIoU, the Hellinger distance of the Gaussians, in [0, 1] (Llerena et al. 2021)."""
    return _root(-torch.expm1(-bhattacharyya(first, second)))


def bhattacharyya(first: Tensor, second: Tensor) -> Tensor:
    """Return the Bhattacharyya distance of the uniform boxes' Gaussians, at least 0."""
    p, t, (x, y, cosine, sine) = _pair(first, second)
    along, across = cosine * x + sine * y, cosine * y - sine * x
    # Squares of half sides are three times the variances, hence 3/4 where the textbook has 1/4.
    ww, hh, other_ww, other_hh = p.half_w**2, p.half_h**2, t.half_w**2, t.half_h**2
    cc, ss = cosine**2, sine**2
    turned = ww * (other_ww * ss + other_hh * cc) + hh * (other_ww * cc + other_hh * ss)
    determinant = (ww * hh + other_ww * other_hh) + turned
    form = (hh * x**2 + ww * y**2) + (other_hh * along**2 + other_ww * across**2)
    shape = determinant / (4 * (p.half_w * p.half_h) * (t.half_w * t.half_h))
    return (0.75 * (form / determinant) + 0.5 * shape.log()).clamp(min=0)


def kld_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return 1 - 1 / (1 + ln(1 + sqrt KL)), KL of the target from the prediction (Yang et al., NeurIPS 2021)."""
    return _bounded(_root(kullback_leibler(predicted, target)))


def kullback_leibler(predicted: Tensor, target: Tensor) -> Tensor:
    """Return KL(target || predicted) of the Gaussians, at least 0; the same after any common scaling."""
    p, t, (x, y, cosine, sine) = _pair(predicted, target)
    ww, hh = t.half_w**2, t.half_h**2
    cc, ss = cosine**2, sine**2
    along = (x**2 + ww * cc + hh * ss) / p.half_w**2
    across = (y**2 + ww * ss + hh * cc) / p.half_h**2
    sizes = ((p.half_w * p.half_h) / (t.half_w * t.half_h)).log()
    return ((along + across) / 2 - 1 + sizes).clamp(min=0)


def gwd_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - 1 / (1 + ln(1 + W)), W the Gaussian Wasserstein distance (Yang et al., ICML 2021)."""
    return _bounded(wasserstein(first, second))


def wasserstein(first: Tensor, second: Tensor) -> Tensor:
    """Return the Wasserstein distance of the Gaussians over sqrt(w h) of both boxes' mean: a common scale drops out."""
    p, t, (x, y, cosine, sine) = _pair(first, second)
    ww, hh, other_ww, other_hh = p.half_w**2, p.half_h**2, t.half_w**2, t.half_h**2
    cc, ss = cosine**2, sine**2
    product = ww * (other_ww * cc + other_hh * ss) + hh * (other_ww * ss + other_hh * cc)
    sizes = (p.half_w * p.half_h) * (t.half_w * t.half_h)  # sqrt(|S1| |S2|)
    coupled = (product + 2 * sizes).sqrt()
    square = x**2 + y**2 + (ww + hh + other_ww + other_hh) - 2 * coupled
    return _root(square) / (2 * sizes.sqrt().sqrt())


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "iou": iou_loss,
    "probiou": probiou_loss,
    "kld": kld_loss,
    "gwd": gwd_loss,
}
"""Name -> loss `(N,)` of predicted `(N, 5)` and true `(N, 5)` boxes."""


def _pair(first: Tensor, second: Tensor) -> tuple[Prepared, Prepared, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return both boxes, sides limited to 1e-7 ... 1e7 pixels, and the second in the first one's coordinates."""
    p, t = (
        box._replace(half_w=box.half_w.clamp(_LEAST_HALF, _MOST_HALF), half_h=box.half_h.clamp(_LEAST_HALF, _MOST_HALF))
        for box in (prepare(first), prepare(second))
    )
    return p, t, relative(p, t)


def _root(value: Tensor) -> Tensor:
    """Return the square root, and 0 with gradient 0 where the value is 0 or, by rounding, less."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def _bounded(distance: Tensor) -> Tensor:
    return 1 - 1 / (1 + distance.log1p())
