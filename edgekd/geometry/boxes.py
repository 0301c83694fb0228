"""Axis-aligned boxes: corners, areas, intersection over union."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def xyxy_to_corners(boxes: ArrayLike) -> NDArray[np.float32]:
    """Return `(N, 4, 2)` corners of `(N, 4)` xyxy: left top, right top, right bottom, left bottom.

    Raises:
        UsageError: another shape.
    """
    boxes = _rows(boxes, 4)
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def xywhr_to_corners(boxes: ArrayLike) -> NDArray[np.float32]:
    """Return `(N, 4, 2)` corners of `(N, 5)` xywhr; at r = 0 they are those of `xyxy_to_corners`.

    Raises:
        UsageError: another shape.
    """
    return _exact_corners(_rows(boxes, 5)).astype(np.float32)


def _rows(boxes: ArrayLike, columns: int) -> NDArray[np.float32]:
    """Return boxes as float32; UsageError for another shape, whose numbers would be cut into boxes elsewhere."""
    rows = np.asarray(boxes, np.float32)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise UsageError(f"boxes: expected shape (N, {columns}), got {rows.shape}")
    return rows


def _exact_corners(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    angle = boxes[:, 4].astype(np.float64)
    wide = np.stack([np.cos(angle), np.sin(angle)], axis=1) * boxes[:, 2:3] / 2
    high = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * boxes[:, 3:4] / 2
    offsets = np.stack([-wide - high, wide - high, wide + high, high - wide], axis=1)
    return boxes[:, None, :2] + offsets


def box_distances(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return `(N,)` float64: by how much corners of `a` and of `b`, row by row, differ at most in x or y.

    Of upright boxes that is the largest difference of a coordinate. Of oriented ones it is that of the *rectangles*:
    (w, h, r), (w, h, r + pi) and (h, w, r + pi/2) are one rectangle, whose corners are counted from another one, so of
    the four ways to pair them in turn the closest holds. A small turn across +-pi/2, or of a square, stays small.

    Args:
        a: `(N, 4)` xyxy or `(N, 5)` xywhr, pixels and radians.
        b: likewise.

    Returns:
        Pixels; NaN where a number is not finite.
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    with np.errstate(all="ignore"):
        if a.shape[1] == 4:
            coordinates: NDArray[np.float64] = np.abs(b.astype(np.float64) - a).max(axis=1)
            return coordinates
        first, second = _exact_corners(a), _exact_corners(b)
        turns = [np.abs(np.roll(second, turn, axis=1) - first).max(axis=(1, 2)) for turn in range(4)]
        nearest: NDArray[np.float64] = np.min(turns, axis=0)
        return nearest


def areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(N,)` float32 areas of `(N, 4)` xyxy; 0 for a box that does not count (see the module's conventions)."""
    with np.errstate(all="ignore"):
        size = boxes[:, 2:] - boxes[:, :2]
        area = size[:, 0] * size[:, 1]
        return np.where((size > 0).all(axis=1) & (area < np.inf), area, np.float32(0))


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
    """Return `(N, M)` float32 intersection over union of `(N, 4)` and `(M, 4)` xyxy.

    The order of operations is part of the definition, because suppression compares the result: with
    `w = min(ax2, bx2) - max(ax1, bx1)`, `h` likewise, `inter = max(w, 0) * max(h, 0)`, it is
    `inter / ((area_a + area_b) - inter)`, each step rounded to float32, no fused multiply-add.

    Raises:
        UsageError: other shapes.
    """
    a, b = _rows(a, 4), _rows(b, 4)
    return pairwise(a, areas(a), b, areas(b))


def pairwise(
    a: NDArray[np.float32], area_a: NDArray[np.float32], b: NDArray[np.float32], area_b: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return `(N, M)` as `iou` does, of boxes whose `areas` are at hand."""
    with np.errstate(all="ignore"):
        overlap = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
        overlap = np.maximum(overlap, np.float32(0))
        inter = overlap[:, :, 0] * overlap[:, :, 1]
        ratio: NDArray[np.float32] = inter / ((area_a[:, None] + area_b[None, :]) - inter)
    counts = (area_a > 0)[:, None] & (area_b > 0)[None, :]
    return np.where(counts, ratio, np.float32(0))
