"""Polygons to oriented boxes, and the long-edge rule.

Angles: radians, clockwise on the image (y down), long edge, [-π/2, π/2) ("le90"), see `edgekd.geometry`.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_PAIRS = (*((i, (i + 1) % 4) for i in range(4)), *((i, j) for i, j in combinations(range(4), 2) if (j - i) == 2))


def regularise(boxes: ArrayLike) -> NDArray[np.float64]:
    """Bring `(N, 5)` xywhr boxes under the long-edge rule: w >= h, angle in [-π/2, π/2), same rectangle.

    Returns:
        `(N, 5)` float64.
    """
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    swap = boxes[:, 2] < boxes[:, 3]
    boxes[swap, 2:4] = boxes[swap, 3:1:-1]
    angle = boxes[:, 4] + np.where(swap, math.pi / 2, 0.0)
    angle = np.mod(angle + math.pi / 2, math.pi) - math.pi / 2
    # np.mod may return the period itself, and float32 rounds the largest angles up to π/2: both mean -π/2.
    boxes[:, 4] = np.where(angle.astype(np.float32) >= np.float32(math.pi / 2), -math.pi / 2, angle)
    return boxes


def as_xywhr(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return `(N, 5)` float64 xywhr of `(N, 4)` xyxy, at angle 0 with the sides in any order; or of xywhr as they are.

    For overlaps, which do not mind the order of the sides; `regularise` brings it under the long-edge rule.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.shape[1] == 5:
        return boxes
    upright = np.zeros((len(boxes), 5))
    upright[:, :2], upright[:, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return upright


def xywhr_to_quads(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return the `(N, 4, 2)` float64 corners of xywhr, clockwise; `geometry.xywhr_to_corners` gives them in float32."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 5)
    along = np.stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    wide, high = along * boxes[:, 2:3] / 2, across * boxes[:, 3:4] / 2
    return boxes[:, None, :2] + np.stack([-wide - high, wide - high, wide + high, high - wide], axis=1)


def stretch(boxes: ArrayLike, across: float, down: float) -> NDArray[np.float64]:
    """Scale a picture's `(N, 5)` xywhr boxes by `across` along x and `down` along y.

    Unequal factors make a parallelogram of a turned rectangle; what stays is the centre and the length of both edges,
    each mapped as a vector, along the longer of them. (`Placement.undo` does the same on the way back.)

    Returns:
        `(N, 5)` float64, le90.
    """
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    wide = np.stack([cos * across, sin * down], axis=1) * boxes[:, 2:3]
    high = np.stack([-sin * across, cos * down], axis=1) * boxes[:, 3:4]
    size = np.stack([np.hypot(*wide.T), np.hypot(*high.T)], axis=1)
    upright = size[:, 1] > size[:, 0]
    angle = np.where(upright, np.arctan2(-high[:, 0], high[:, 1]), np.arctan2(wide[:, 1], wide[:, 0]))
    return regularise(np.concatenate([boxes[:, :2] * (across, down), size, angle[:, None]], axis=1))


def quads_to_xywhr(quads: ArrayLike) -> NDArray[np.float64]:
    """Return the rectangles of least area around quadrilaterals.

    One side of the smallest rectangle lies along an edge of the convex hull (Freeman and Shapira, 1975), and every hull
    edge of four points joins two of them; so the six directions between two points are tried. Points are moved to
    a local origin first, which keeps the precision at large coordinates.

    Args:
        quads: `(N, 4, 2)` corner points in pixels, any order or direction.

    Returns:
        `(N, 5)` float64 xywhr, le90; w = h = 0 where all points coincide.
    """
    points = np.array(quads, dtype=np.float64).reshape(-1, 4, 2)
    origin = points.mean(axis=1)
    points -= origin[:, None]
    sides = np.stack([points[:, j] - points[:, i] for i, j in _PAIRS], axis=1)  # (N, 6, 2)
    length = np.hypot(sides[..., 0], sides[..., 1])
    along = np.divide(sides, length[..., None], out=np.zeros_like(sides), where=length[..., None] > 0)
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    spans = [np.einsum("nkc,npc->nkp", axis, points) for axis in (along, across)]  # (N, 6, 4) each
    low, high = (np.stack([reduce(span, axis=-1) for span in spans], axis=-1) for reduce in (np.min, np.max))
    extent = high - low  # (N, 6, 2)
    area = np.where(length > 0, extent[..., 0] * extent[..., 1], np.inf)
    rows, best = np.arange(len(points)), area.argmin(axis=1)
    middle = (high[rows, best] + low[rows, best]) / 2
    direction, normal = along[rows, best], across[rows, best]
    centre = origin + middle[:, :1] * direction + middle[:, 1:] * normal
    angle = np.arctan2(direction[:, 1], direction[:, 0])
    return regularise(np.concatenate([centre, extent[rows, best], angle[:, None]], axis=1))
