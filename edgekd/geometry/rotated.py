"""Rotated boxes: exact intersection over union, ProbIoU, and the sine and cosine that every implementation shares.

The definition is a sequence of float32 operations, each rounded once, so that NumPy, gcc and nvcc give the same bits.
Nothing in it jumps: the intersection is a sum over the four edges of one box of an integral of clamped lines, with no
tolerance, no list of vertices and no sort, so what rounding moves stays as small as rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Reals = NDArray[np.floating[Any]]

MAX_ANGLE = float(1 << 20)  # radians; beyond it float32 cannot tell a quarter turn from the next
METRICS = ("iou", "probiou")

_HALF_PI_HIGH = 6746518852.0 / 2**32  # 33 bits of pi/2: times a whole number up to 2**20 exact in float64
_HALF_PI_LOW = 6.077100506506192e-11
_TWO_OVER_PI = 0.6366197723675814
_SIN = (-1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800, 1 / 6227020800, -1 / 1307674368000)
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.693359375  # 9 bits of ln 2: times a whole number up to 127 exact in float32
_LN2_LOW = -2.1219444005469058e-4
_EXP = (1.0, -1.0, 1 / 2, -1 / 6, 1 / 24, -1 / 120, 1 / 720, -1 / 5040)
_LEAST_DETERMINANT = 1e-30
_COS = (-1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800, 1 / 479001600, -1 / 87178291200, 1 / 20922789888000)


def sin_cos(angle: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sine and cosine, float64, of angles in radians; an angle beyond `MAX_ANGLE` or not finite counts as 0.

    The quarter turns are taken off in two parts and the rest, at most pi/4, goes into the Taylor series: products and
    sums only, in one order, because `sin` and `cos` of two libraries differ in the last bit. Error below 1e-15.
    """
    x = np.asarray(angle, np.float64)
    x = np.where(np.abs(x) <= MAX_ANGLE, x, 0.0)
    quarters = np.floor(x * _TWO_OVER_PI + 0.5)
    rest = (x - quarters * _HALF_PI_HIGH) - quarters * _HALF_PI_LOW
    square = rest * rest
    sine, cosine = np.full_like(x, _SIN[-1]), np.full_like(x, _COS[-1])
    for coefficient in _SIN[-2::-1]:
        sine = sine * square + coefficient
    for coefficient in _COS[-2::-1]:
        cosine = cosine * square + coefficient
    sine, cosine = rest + rest * (square * sine), 1.0 + square * cosine
    turn = quarters - 4.0 * np.floor(quarters * 0.25)
    swapped = (turn == 1.0) | (turn == 3.0)
    sine, cosine = np.where(swapped, cosine, sine), np.where(swapped, sine, cosine)
    return np.where(turn >= 2.0, -sine, sine), np.where((turn == 1.0) | (turn == 2.0), -cosine, cosine)


@dataclass(frozen=True)
class Prepared:
    """What is computed once a box; each `(N,)` of one float type."""

    x: Reals  # centre
    y: Reals
    half_w: Reals
    half_h: Reals
    cos: Reals
    sin: Reals
    extent_x: Reals  # half sides of the upright box around it
    extent_y: Reals
    area: Reals  # 0 where the box does not count
    angle: Reals  # only to put equal boxes in an order

    def pick(self, index: Any) -> Prepared:
        """Return these boxes with every array indexed by `index`."""
        return Prepared(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def prepare(boxes: ArrayLike, dtype: DTypeLike = np.float32) -> Prepared:
    """Return `(N, 5)` xywhr boxes prepared for `overlap`, in `dtype` (float32 or float64).

    A box counts if its centre is finite, its sides and its area are positive and finite, and its angle is at most
    `MAX_ANGLE`.
    """
    boxes = np.asarray(boxes, dtype)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise UsageError(f"rotated boxes: expected shape (N, 5), got {boxes.shape}")
    x, y, w, h, angle = (np.ascontiguousarray(column) for column in boxes.T)
    sine, cosine = (value.astype(dtype) for value in sin_cos(angle))
    with np.errstate(all="ignore"):
        half = boxes.dtype.type(0.5)
        half_w, half_h, area = half * w, half * h, w * h
        counts = np.isfinite(x) & np.isfinite(y) & (w > 0) & (h > 0) & (area > 0) & (area < np.inf)
        counts &= np.isfinite(w) & np.isfinite(h) & (np.abs(angle) <= boxes.dtype.type(MAX_ANGLE))
        extent_x = np.abs(half_w * cosine) + np.abs(half_h * sine)
        extent_y = np.abs(half_w * sine) + np.abs(half_h * cosine)
    area = np.where(counts, area, boxes.dtype.type(0))
    return Prepared(x, y, half_w, half_h, cosine, sine, extent_x, extent_y, area, angle)


def iou_rotated(
    a: ArrayLike, b: ArrayLike, *, metric: str = "iou", dtype: DTypeLike = np.float32
) -> NDArray[np.floating[Any]]:
    """Return `(N, M)` overlaps of `(N, 5)` and `(M, 5)` xywhr, each in [0, 1]; 0 for a box that does not count.

    Args:
        a: centre x, centre y, w, h in pixels, r in radians clockwise on the image; any r, w and h in any order.
        b: likewise.
        metric: "iou", the exact intersection over union; or "probiou", 1 minus the Hellinger distance of the two
            uniform boxes as Gaussians (Llerena et al., 2021), which is not 0 for boxes that stand apart.
        dtype: float32, as suppression computes it; or float64, for evaluation ("iou" only).

    Raises:
        UsageError: wrong shapes, metric or dtype.
    """
    kind = check_pairs(metric, dtype)
    first, second = prepare(a, kind), prepare(b, kind)
    return overlap(first.pick(np.s_[:, None]), second.pick(np.s_[None, :]), metric)


def check_pairs(metric: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Return `dtype` as NumPy has it; UsageError unless there is such a metric, in such a type."""
    check_metric(metric)
    kind: np.dtype[Any]
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    # NumPy takes None for float64 here, and in a conversion for the type that the array has.
    if dtype is None or kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise UsageError(f"dtype: expected float32 or float64, got {dtype!r}")
    if metric != "iou" and kind != np.dtype(np.float32):
        raise UsageError(f"metric {metric!r} is computed in float32 only; possible in float64: iou")
    return kind


def check_metric(metric: str) -> None:
    """Raise UsageError unless there is such a metric."""
    if metric not in METRICS:
        raise UsageError(f"no metric {metric!r}; possible: {', '.join(METRICS)}")


def overlap(a: Prepared, b: Prepared, metric: str) -> Reals:
    """Return the overlap of boxes, element by element after broadcasting; the same bits for (a, b) and (b, a)."""
    with np.errstate(all="ignore"):
        frame, other = _ordered(a, b)
        value = _iou(frame, other) if metric == "iou" else _probiou(frame, other)
        one, zero = value.dtype.type(1), value.dtype.type(0)
        value = np.where(value > 0, np.where(value < 1, value, one), zero)  # NaN too becomes 0
        return np.where((a.area > 0) & (b.area > 0), value, zero)


def shared_area(a: Prepared, b: Prepared) -> Reals:
    """Return the area that both cover, element by element after broadcasting, in square pixels; of boxes that count."""
    with np.errstate(all="ignore"):
        return _intersection(*_ordered(a, b))


def _ordered(a: Prepared, b: Prepared) -> tuple[Prepared, Prepared]:
    """Return the pair with the larger box first, equal ones in an order of their numbers, so that it is symmetric."""
    first, tied = a.area > b.area, a.area == b.area
    for name in ("x", "y", "half_w", "half_h", "angle"):
        mine, theirs = getattr(a, name), getattr(b, name)
        first, tied = first | (tied & (mine < theirs)), tied & (mine == theirs)
    first = first | tied
    names = Prepared.__dataclass_fields__
    frame = Prepared(*(np.where(first, getattr(a, name), getattr(b, name)) for name in names))
    return frame, Prepared(*(np.where(first, getattr(b, name), getattr(a, name)) for name in names))


def _relative(frame: Prepared, other: Prepared) -> tuple[Reals, Reals, Reals, Reals]:
    """Return centre x, y, cosine and sine of `other` in the coordinates of `frame`."""
    dx, dy = other.x - frame.x, other.y - frame.y
    x, y = dx * frame.cos + dy * frame.sin, dy * frame.cos - dx * frame.sin
    cosine = frame.cos * other.cos + frame.sin * other.sin
    return x, y, cosine, frame.cos * other.sin - frame.sin * other.cos


def _iou(frame: Prepared, other: Prepared) -> Reals:
    inter = _intersection(frame, other)
    return inter / ((frame.area + other.area) - inter)


def _intersection(frame: Prepared, other: Prepared) -> Reals:
    """Return the area that both cover, at most that of the smaller one.

    Over x inside the frame a polygon covers, of the frame, the difference of its upper and its lower line, each clamped
    to the frame's height. So the covered area is the sum over the polygon's edges, in turn, of the integral of the
    clamped edge: those to the right count positive, those to the left negative.
    """
    x, y, cosine, sine = _relative(frame, other)
    ux, uy = cosine * other.half_w, sine * other.half_w
    vx, vy = -(sine * other.half_h), cosine * other.half_h
    xs = ((x - ux) - vx, (x + ux) - vx, (x + ux) + vx, (x - ux) + vx)
    ys = ((y - uy) - vy, (y + uy) - vy, (y + uy) + vy, (y - uy) + vy)
    parts = [_under(xs[i], ys[i], xs[(i + 1) % 4], ys[(i + 1) % 4], frame.half_w, frame.half_h) for i in range(4)]
    inter = np.abs((parts[0] + parts[1]) + (parts[2] + parts[3]))
    inter = _smaller(inter, _smaller(frame.area, other.area))
    return np.where(_apart(frame, other, x, y, cosine, sine), inter.dtype.type(0), inter)


def _apart(frame: Prepared, other: Prepared, x: Reals, y: Reals, cosine: Reals, sine: Reals) -> NDArray[np.bool_]:
    """Say whether a line parallel to a side of one box, or to an axis, has the boxes on its two sides.

    Without it the sum of what cancels would be a little more than 0 for some boxes that do not even touch. The axes are
    there because suppression skips boxes by their upright bounds.
    """
    cosine_of, sine_of = np.abs(cosine), np.abs(sine)
    apart = np.abs(other.x - frame.x) > frame.extent_x + other.extent_x
    apart |= np.abs(other.y - frame.y) > frame.extent_y + other.extent_y
    apart |= np.abs(x) >= frame.half_w + (cosine_of * other.half_w + sine_of * other.half_h)
    apart |= np.abs(y) >= frame.half_h + (sine_of * other.half_w + cosine_of * other.half_h)
    along, across = cosine * x + sine * y, cosine * y - sine * x
    apart |= np.abs(along) >= other.half_w + (cosine_of * frame.half_w + sine_of * frame.half_h)
    apart |= np.abs(across) >= other.half_h + (sine_of * frame.half_w + cosine_of * frame.half_h)
    return apart


def _under(px: Reals, py: Reals, qx: Reals, qy: Reals, half_w: Reals, half_h: Reals) -> Reals:
    """Return the integral of the line from p to q, clamped to +-half_h, over the x of it within +-half_w."""
    one, two, half = px.dtype.type(1), px.dtype.type(2), px.dtype.type(0.5)
    begin, end = _clamp(px, -half_w, half_w), _clamp(qx, -half_w, half_w)
    run, rise = qx - px, qy - py
    per_run = one / np.where(run == 0, one, run)
    y_begin = py + rise * _clamp((begin - px) * per_run, 0 * one, one)
    y_end = py + rise * _clamp((end - px) * per_run, 0 * one, one)
    low, high = _clamp(y_begin, -half_h, half_h), _clamp(y_end, -half_h, half_h)
    climb = y_end - y_begin
    per_climb = one / np.where(climb == 0, one, climb)
    share = _clamp(((low - y_begin) + (high - y_begin)) * per_climb, 0 * one, two)
    return (end - begin) * (high + half * share * (low - high))


def _probiou(frame: Prepared, other: Prepared) -> Reals:
    """Return 1 - sqrt(1 - exp(-BD)), BD the Bhattacharyya distance of Gaussians with variances w^2 / 12 and h^2 / 12.

    In the frame's coordinates the determinant and the quadratic form are sums of positive terms, so thin boxes lose no
    digits. The squares below are three times the variances, hence 3/4 where the textbook has 1/4. Boxes so small or so
    large (beyond 1e-7 or 1e9 pixels) that the products leave float32 overlap nothing.
    """
    one = frame.area.dtype.type(1)
    x, y, cosine, sine = _relative(frame, other)
    along, across = cosine * x + sine * y, cosine * y - sine * x
    ww, hh = frame.half_w * frame.half_w, frame.half_h * frame.half_h
    other_ww, other_hh = other.half_w * other.half_w, other.half_h * other.half_h
    cc, ss = cosine * cosine, sine * sine
    turned = ww * (other_ww * ss + other_hh * cc) + hh * (other_ww * cc + other_hh * ss)
    determinant = (ww * hh + other_ww * other_hh) + turned
    form = (hh * (x * x) + ww * (y * y)) + (other_hh * (along * along) + other_ww * (across * across))
    sizes = (frame.half_w * frame.half_h) * (other.half_w * other.half_h)
    shape = np.sqrt((one * 4 * sizes) / determinant)
    rest = one - _exp_negative(one * np.float32(0.75) * (form / determinant)) * shape
    value = one - np.sqrt(np.where(rest < 0, 0 * one, rest))
    return np.where(determinant >= np.float32(_LEAST_DETERMINANT), value, 0 * one)


def _exp_negative(x: Reals) -> NDArray[np.float32]:
    """Return exp(-x) in float32 for x >= 0; 0 from x = 87 on and for NaN. Error below 1e-7."""
    x = np.asarray(x, np.float32)
    near = x < np.float32(87)
    x = np.where(near, x, np.float32(0))
    halvings = np.floor(x * np.float32(_LOG2_E) + np.float32(0.5))
    rest = (x - halvings * np.float32(_LN2_HIGH)) - halvings * np.float32(_LN2_LOW)
    value = np.full_like(rest, _EXP[-1])
    for coefficient in _EXP[-2::-1]:
        value = value * rest + np.float32(coefficient)
    power = ((127 - halvings.astype(np.int32)) << 23).view(np.float32)
    return np.where(near, value * power, np.float32(0))


def _smaller(a: Reals, b: Reals) -> Reals:
    return np.where(a < b, a, b)


def _clamp(value: Reals, low: Any, high: Any) -> Reals:
    """Return `value` between `low` and `high`; NaN becomes `low`."""
    return np.where(value > low, np.where(value < high, value, high), low)
