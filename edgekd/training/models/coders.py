"""What heads learn in place of oriented boxes: offsets from anchors, classes of angles, and the way back.

Boxes are xywhr, radians clockwise on the image (`edgekd.geometry`). What decodes consists of sums, products, clips,
minima and maxima: it is part of the exported graph, and every target translates those.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 30
"""Classes of angles, 3 degrees each: encoded angles span a quarter turn."""

MAX_LOG_SIZE = math.log(1000 / 16)  # a box is at most 62.5 times its anchor; keeps exp() finite
_HALF_PI, _PI = math.pi / 2, math.pi
_STEEP = 4096.0  # squared, it turns a float32 step in pixels or radians into 1; alone, it still fits float16
_BIN_STEEP = 1024.0  # logits less than a thousandth apart share the angle: rounding alone decides nothing


def encode_deltas(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return `(N, 5)` offsets that turn anchors `(N, 5)` into boxes `(N, 5)`.

    dx, dy are in the anchor's frame and sizes, dw, dh are logarithms of size ratios, da is the turn in
    [-pi/4, pi/4): of the box's two names, (w, h, r) and (h, w, r + pi/2), the one that is turned less ("edge swap";
    Xia et al., CVPR 2018, as RoI Transformer, Ding et al., CVPR 2019, encodes them).
    """
    px, py, pw, ph, pa = anchors.unbind(dim=1)
    gx, gy, gw, gh, ga = boxes.unbind(dim=1)
    cosine, sine = pa.cos(), pa.sin()
    dx = (cosine * (gx - px) + sine * (gy - py)) / pw
    dy = (cosine * (gy - py) - sine * (gx - px)) / ph
    quarters = ((ga - pa) / _HALF_PI + 0.5).floor()
    swapped = quarters.remainder(2) == 1
    width, height = torch.where(swapped, gh, gw), torch.where(swapped, gw, gh)
    turn = (ga - pa) - quarters * _HALF_PI
    return torch.stack([dx, dy, (width / pw).log(), (height / ph).log(), turn], dim=1)


def decode_deltas(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes `(B, 5, N)` of offsets `(B, 5, N)` from anchors `(N, 5)`, the angle in -pi ... pi, sides as named.

    The inverse of `encode_deltas`; `to_le90` brings the result under the long-edge rule. The anchors' sines and cosines
    are constants of an exported graph; a turn of more than pi/2 is cut to it.
    """
    px, py, pw, ph, pa = (item.unsqueeze(0) for item in anchors.t().unsqueeze(1).unbind(dim=0))
    cosine, sine = pa.cos(), pa.sin()
    dx, dy = deltas[:, 0:1], deltas[:, 1:2]
    x = px + dx * (cosine * pw) - dy * (sine * ph)
    y = py + dx * (sine * pw) + dy * (cosine * ph)
    sides = deltas[:, 2:4].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp() * torch.cat([pw, ph], dim=1)
    return torch.cat([x, y, sides, pa + deltas[:, 4:5].clamp(-_HALF_PI, _HALF_PI)], dim=1)


def to_le90(boxes: Tensor) -> Tensor:
    """Return boxes `(B, 5, N)` with w >= h and r in [-pi/2, pi/2), the same rectangles; r in [-3/2 pi, pi) on entry.

    No gradient runs through the choice of the name, which is constant wherever it has a derivative.
    """
    width, height, angle = boxes[:, 2:3], boxes[:, 3:4], boxes[:, 4:5]
    angle = angle + _HALF_PI * (1 - _step(width - height))
    angle = angle - _PI * _step(angle - _HALF_PI) + _PI * (1 - _step(angle + _HALF_PI))
    return torch.cat([boxes[:, :2], torch.maximum(width, height), torch.minimum(width, height), angle], dim=1)


def _step(value: Tensor) -> Tensor:
    """Return 1 where the value is 0 or more, and 0 where it is less, by operators that every target has."""
    shallow = (value.detach() * _STEEP).clamp(-1, 0)
    return (shallow * _STEEP + 1).clamp(0, 1)


def bins_of(angle: Tensor) -> Tensor:
    """Return the class, int64 in 0 ... `BINS` - 1, of angles in [-pi/4, pi/4]."""
    return ((angle / _HALF_PI + 0.5) * BINS).floor().long().clamp(0, BINS - 1)


def bin_targets(match: Tensor, where: tuple[Tensor, Tensor], angle: Tensor) -> Tensor:
    """Return the targets `(B, BINS, N)` of angle classification: one-hot for what learns an object, else all 0.

    All 0 is the background. It holds for each anchor that learns nothing, also where no anchor of an image, or of the
    batch, learns anything: leaving out the empty case would teach the first bin to the whole background.

    Args:
        match: `(B, N)` int64, negative for anchors without an object.
        where: images and anchors, `(P,)` each, of those with one.
        angle: `(P,)` encoded turn in [-pi/4, pi/4].
    """
    target = angle.new_zeros(match.shape[0], BINS, match.shape[1])
    target[where[0], bins_of(angle), where[1]] = 1.0
    return target


def angle_of_bins(logits: Tensor) -> Tensor:
    """Return the middle of the strongest bin, `(B, 1, N)` in radians, of logits `(B, BINS, N)`.

    The maximum is taken by halves, and the bin found by its distance to it: no target lacks these operators, which
    cannot be said of ArgMax. No gradient.
    """
    logits = logits.detach()
    best = logits
    while (count := best.shape[1]) > 1:
        half = (count + 1) // 2
        best = torch.maximum(best[:, :half], best[:, count - half :])
    share = ((logits - best) * _BIN_STEEP + 1).clamp(min=0)
    middles = ((torch.arange(BINS, device=logits.device) + 0.5) / BINS - 0.5) * _HALF_PI
    return (share * middles.view(1, -1, 1)).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True)
