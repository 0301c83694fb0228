"""Planar outlines: closed polygons `(N, 2)` float64 of (x, y), y down, the vocabulary every generator draws with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Points = NDArray[np.float64]


def points(*xy: tuple[float, float]) -> Points:
    """Return the given (x, y) pairs as an `(N, 2)` array."""
    return np.array(xy, dtype=np.float64)


def rectangle(cx: float, cy: float, width: float, height: float, angle: float = 0.0, corner: float = 0.0) -> Points:
    """Return a rectangle turned by `angle` (radians, clockwise), its corners rounded with radius `corner`."""
    half = np.array([width / 2, height / 2])
    radius = min(corner, float(half.min()))
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    if radius > 0:
        turns = np.linspace(0, np.pi / 2, 5)
        quarter = [np.stack([np.cos(turns + k * np.pi / 2), np.sin(turns + k * np.pi / 2)], 1) for k in range(4)]
        outline = np.concatenate([s * (half - radius) + radius * q for s, q in zip(signs, quarter, strict=True)])
    else:
        outline = signs * half
    return move(outline, angle=angle, shift=(cx, cy))


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, count: int = 28) -> Points:
    """Return an ellipse as a polygon of `count` points."""
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return move(np.stack([rx * np.cos(turns), ry * np.sin(turns)], 1), angle=angle, shift=(cx, cy))


def arc(cx: float, cy: float, radius: float, start: float, end: float, count: int = 16) -> Points:
    """Return the open path along a circle from angle `start` to `end` (radians)."""
    turns = np.linspace(start, end, count)
    return np.stack([cx + radius * np.cos(turns), cy + radius * np.sin(turns)], 1)


def curve(control: ArrayLike, count: int = 24) -> Points:
    """Return a Catmull-Rom spline through the control points `(K, 2)`, as an open path of `count` points."""
    knots = np.asarray(control, dtype=np.float64)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, count)
    left = np.minimum(at.astype(np.intp), len(knots) - 2)
    t = (at - left)[:, None]
    p0, p1, p2, p3 = (padded[left + k] for k in range(4))
    spline: Points = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return spline


def stroke(path: Points, width: float | Sequence[float] | NDArray[np.float64]) -> Points:
    """Return the outline of a pen of `width` (one value, or values spread evenly along the path) drawn along `path`."""
    widths = np.atleast_1d(np.asarray(width, dtype=np.float64))
    half = np.interp(np.linspace(0, 1, len(path)), np.linspace(0, 1, len(widths)), widths)[:, None] / 2
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    return np.concatenate([path + half * normal, (path - half * normal)[::-1]])


def blob(rng: np.random.Generator, radius: float, roughness: float, count: int = 36) -> Points:
    """Return a closed random outline around 0: a circle whose radius carries five random harmonics."""
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    order = np.arange(1, 6)[:, None]
    swing = rng.normal(size=(5, 1)) / order * np.cos(order * turns + rng.uniform(0, 2 * np.pi, (5, 1)))
    radii = radius * np.clip(1 + roughness * swing.sum(0), 0.25, 2.0)
    return np.stack([radii * np.cos(turns), radii * np.sin(turns)], 1)


def move(outline: Points, *, scale: float = 1.0, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> Points:
    """Scale, then turn by `angle` (radians, clockwise on the image), then shift."""
    moved: Points = outline @ turn(angle).T * scale + np.asarray(shift)
    return moved


def turn(angle: float) -> NDArray[np.float64]:
    """Return the 2 x 2 rotation, clockwise on the image because y points down."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def hull(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Return the tight box of the true pixels, half-open xyxy in pixels, or None when there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
