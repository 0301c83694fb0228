"""Rotated boxes in torch: exact overlap with gradients, points inside boxes, upright hulls.

Boxes are `(..., 5)` xywhr as in `edgekd.geometry`: centre x, centre y, w, h in pixels, r the angle of the w-edge in
radians, clockwise on the image; any r, w and h in either order. Everything here depends on the rectangle alone, not on
which of its names was given, so no loss jumps where an angle wraps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Prepared(NamedTuple):
    """What is computed once a box, each `(...)`; float64 stays, everything else becomes float32, autocast or not."""

    x: Tensor
    y: Tensor
    half_w: Tensor
    half_h: Tensor
    cos: Tensor
    sin: Tensor


def prepare(boxes: Tensor) -> Prepared:
    """Return `(..., 5)` boxes column by column."""
    x, y, w, h, angle = (boxes if boxes.dtype == torch.float64 else boxes.float()).unbind(dim=-1)
    return Prepared(x, y, w / 2, h / 2, angle.cos(), angle.sin())


def relative(frame: Prepared, other: Prepared) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return centre x, y, cosine and sine of `other` in the coordinates of `frame`."""
    dx, dy = other.x - frame.x, other.y - frame.y
    x, y = dx * frame.cos + dy * frame.sin, dy * frame.cos - dx * frame.sin
    cosine = frame.cos * other.cos + frame.sin * other.sin
    return x, y, cosine, frame.cos * other.sin - frame.sin * other.cos


def iou_rotated(first: Tensor, second: Tensor) -> Tensor:
    """Return the exact intersection over union, in [0, 1], of boxes after broadcasting; 0 for a box without area.

    The arithmetic of `edgekd.geometry.rotated`: the covered area is a sum over the four edges of the smaller box of
    the integral of a clamped line. It has no tolerance, no sort and no branch, so its gradient is exact wherever there
    is one, and finite where there is none (equal boxes, corners on edges). Boxes that stand apart have no gradient.

    Args:
        first: `(..., 5)` xywhr; `unsqueeze(-2)` makes rows of a table.
        second: `(..., 5)` likewise; `unsqueeze(-3)` makes its columns.
    """
    shape = torch.broadcast_shapes(first.shape, second.shape)  # type: ignore[no-untyped-call]
    a, b = prepare(first.expand(shape)), prepare(second.expand(shape))
    area_a, area_b = 4 * a.half_w * a.half_h, 4 * b.half_w * b.half_h
    larger = area_a >= area_b
    frame = Prepared(*(torch.where(larger, p, q) for p, q in zip(a, b, strict=True)))
    other = Prepared(*(torch.where(larger, q, p) for p, q in zip(a, b, strict=True)))
    inter = torch.minimum(_intersection(frame, other), torch.minimum(area_a, area_b))
    counts = (area_a > 0) & (area_b > 0)
    union = torch.where(counts, area_a + area_b - inter, 1.0)
    return torch.where(counts, inter / union, 0.0).clamp(0, 1)


def _intersection(frame: Prepared, other: Prepared) -> Tensor:
    """Return the area that both cover; see `edgekd.geometry.rotated`."""
    x, y, cosine, sine = relative(frame, other)
    ux, uy = cosine * other.half_w, sine * other.half_w
    vx, vy = -(sine * other.half_h), cosine * other.half_h
    xs = torch.stack([(x - ux) - vx, (x + ux) - vx, (x + ux) + vx, (x - ux) + vx])
    ys = torch.stack([(y - uy) - vy, (y + uy) - vy, (y + uy) + vy, (y - uy) + vy])
    inter = _under(xs, ys, xs.roll(-1, 0), ys.roll(-1, 0), frame.half_w, frame.half_h).sum(dim=0).abs()
    return torch.where(_apart(frame, other, (x, y, cosine, sine)), 0.0, inter)


def _under(px: Tensor, py: Tensor, qx: Tensor, qy: Tensor, half_w: Tensor, half_h: Tensor) -> Tensor:
    """Return the integral of the line from p to q, clamped to +-half_h, over the x of it within +-half_w.

    Divisions, where the reference multiplies by reciprocals: the gradient of a quotient stays finite for a denominator
    of 1e-30, that of a reciprocal does not.
    """
    begin, end = px.clamp(-half_w, half_w), qx.clamp(-half_w, half_w)
    run, rise = qx - px, qy - py
    run = torch.where(run == 0, 1.0, run)
    y_begin = py + rise * ((begin - px) / run).clamp(0, 1)
    y_end = py + rise * ((end - px) / run).clamp(0, 1)
    low, high = y_begin.clamp(-half_h, half_h), y_end.clamp(-half_h, half_h)
    climb = y_end - y_begin
    climb = torch.where(climb == 0, 1.0, climb)
    share = (((low - y_begin) + (high - y_begin)) / climb).clamp(0, 2)
    return (end - begin) * (high + share / 2 * (low - high))


@torch.no_grad()
def _apart(frame: Prepared, other: Prepared, offset: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Say whether a line parallel to a side of one of the boxes has them on its two sides: then they share nothing."""
    x, y, cosine, sine = offset
    cosine_of, sine_of = cosine.abs(), sine.abs()
    apart = x.abs() >= frame.half_w + (cosine_of * other.half_w + sine_of * other.half_h)
    apart |= y.abs() >= frame.half_h + (sine_of * other.half_w + cosine_of * other.half_h)
    along, across = cosine * x + sine * y, cosine * y - sine * x
    apart |= along.abs() >= other.half_w + (cosine_of * frame.half_w + sine_of * frame.half_h)
    apart |= across.abs() >= other.half_h + (sine_of * frame.half_w + cosine_of * frame.half_h)
    return apart


def points_inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return `(..., G, N)` bool: which points `(N, 2)` lie within boxes `(..., G, 5)`, not on their edges."""
    box = Prepared(*(item.unsqueeze(-1) for item in prepare(boxes)))
    dx, dy = points[:, 0] - box.x, points[:, 1] - box.y
    along, across = dx * box.cos + dy * box.sin, dy * box.cos - dx * box.sin
    return (along.abs() < box.half_w) & (across.abs() < box.half_h)


def hulls(boxes: Tensor) -> Tensor:
    """Return the smallest upright boxes `(..., 4)` xyxy around boxes `(..., 5)`, in their type."""
    x, y, w, h, angle = boxes.unbind(dim=-1)
    cosine, sine = angle.cos().abs(), angle.sin().abs()
    reach_x, reach_y = (w * cosine + h * sine) / 2, (w * sine + h * cosine) / 2
    return torch.stack([x - reach_x, y - reach_y, x + reach_x, y + reach_y], dim=-1)
