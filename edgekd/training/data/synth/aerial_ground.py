"""The ground of the aerial scenes: land cover, water, roads, lots, and what only looks like an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .aerial_objects import BOXES, PAINT, lit, tint
from .outline import Points, blob, ellipse, move, points, rectangle, stroke
from .textures import fbm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .aerial_canvas import Canvas, Colour

LAND: tuple[tuple[Colour, Colour], ...] = (
    ((0.26, 0.33, 0.18), (0.43, 0.46, 0.28)),
    ((0.33, 0.38, 0.22), (0.55, 0.52, 0.35)),
    ((0.50, 0.44, 0.33), (0.66, 0.60, 0.46)),
    ((0.40, 0.33, 0.26), (0.56, 0.47, 0.37)),
    ((0.46, 0.45, 0.43), (0.60, 0.58, 0.55)),
)
WATER: tuple[tuple[Colour, Colour], ...] = (
    ((0.07, 0.16, 0.20), (0.13, 0.25, 0.29)),
    ((0.12, 0.20, 0.17), (0.20, 0.29, 0.24)),
    ((0.16, 0.27, 0.34), (0.26, 0.38, 0.43)),
)
ASPHALT: Colour = (0.34, 0.34, 0.35)
MARKING: Colour = (0.82, 0.82, 0.78)


def blend(pair: tuple[Colour, Colour], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix two colours by a field `(H, W)` in [0, 1]."""
    first, second = (np.asarray(c, np.float32) for c in pair)
    mixed: NDArray[np.float32] = first + weight[..., None] * (second - first)
    return mixed


def land(rng: np.random.Generator, height: int, width: int, grain: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(height, width, 3)` float32: two kinds of land cover in patches, rough at every scale."""
    first, second = (LAND[int(k)] for k in rng.choice(len(LAND), 2, replace=False))
    patches = fbm(rng, height, width, cells=rng.uniform(2, 5), octaves=6)
    rough = np.clip(0.5 + 0.22 * fbm(rng, height, width, cells=rng.uniform(8, 20), octaves=4), 0, 1)
    where = np.clip(0.5 + (patches - rng.uniform(-0.5, 1.5)) * 3, 0, 1)[..., None]
    cover = blend(first, rough) * (1 - where) + blend(second, rough) * where
    ground: NDArray[np.float32] = (cover * (1 + 0.10 * grain[..., None])).astype(np.float32)
    return ground


def flood(canvas: Canvas, rng: np.random.Generator) -> None:
    """Put water on one side of a wavering coast, with waves, a wet shore and glints."""
    height, width = canvas.height, canvas.width
    heading, share = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.2)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    across = (columns / width - 0.5) * np.cos(heading) + (rows / height - 0.5) * np.sin(heading)
    coast = across + rng.uniform(0.02, 0.09) * fbm(rng, height, width, cells=3) - share
    depth = cv2.GaussianBlur(coast.astype(np.float32), (0, 0), 1.2)
    canvas.water = depth > 0
    waves = _waves(rng, height, width)
    sea = blend(WATER[int(rng.integers(len(WATER)))], np.clip(0.5 + 0.25 * waves, 0, 1))
    sea += (np.clip(waves - 2.2, 0, 1) * rng.uniform(0, 0.5))[..., None]
    shore = np.exp(-(np.clip(depth, 0, None) / 0.02))[..., None]
    sea = sea * (1 - 0.5 * shore) + 0.5 * shore * np.array((0.62, 0.63, 0.58), np.float32)
    mask = np.clip(depth * max(height, width) * 0.6, 0, 1)[..., None]
    canvas.rgb += mask * (sea - canvas.rgb)


def _waves(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return a field of wave crests, stretched across the wind."""
    field = fbm(rng, height * 2, width * 2, cells=rng.uniform(30, 60), octaves=3, gain=0.7)
    angle, squeeze = rng.uniform(0, 180), rng.uniform(1.5, 3.0)
    matrix = cv2.getRotationMatrix2D((width, height), angle, 1.0)
    matrix[:, :2] = matrix[:, :2] @ np.diag([1.0, squeeze * 0.5])
    warped = cv2.warpAffine(
        field, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    return warped.astype(np.float32)


def road(canvas: Canvas, rng: np.random.Generator, path: Points, lanes: int) -> None:
    """Draw a road of `lanes` x 3.3 m along a path in pixels: kerbs, asphalt, broken or double centre line."""
    wide = 3.3 * lanes * canvas.scale
    grey = lit(ASPHALT, rng.uniform(0.8, 1.35))
    canvas.paint(stroke(path, wide + 3.0 * canvas.scale), (0.60, 0.59, 0.56), rough=0.1)
    canvas.paint(stroke(path, wide), grey, rough=0.12)
    canvas.take(stroke(path, wide + 3.0 * canvas.scale), road=True)
    line = max(0.16 * canvas.scale, 0.7)
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    for start in np.arange(0, steps[-1], 9 * canvas.scale):
        for lane in range(1, lanes):
            along = np.linspace(start, start + (3.5 if lane != lanes / 2 else 9) * canvas.scale, 4)
            piece = np.stack([np.interp(along, steps, path[:, k]) for k in (0, 1)], 1)
            if np.linalg.norm(piece[-1] - piece[0]) > 1:
                canvas.paint(stroke(offset(piece, (lane - lanes / 2) * 3.3 * canvas.scale), line), MARKING, alpha=0.8)
    if rng.random() < 0.4:  # a crossing
        k = int(rng.integers(len(path) // 4, 3 * len(path) // 4))
        heading = np.arctan2(*(path[k + 1] - path[k])[::-1])
        for at in np.arange(-wide / 2 + 0.5 * canvas.scale, wide / 2, 1.1 * canvas.scale):
            bar = rectangle(0, at, 3 * canvas.scale, 0.55 * canvas.scale)
            canvas.paint(move(bar, angle=heading, shift=(path[k, 0], path[k, 1])), MARKING, alpha=0.85)


def offset(path: Points, distance: float) -> Points:
    """Return the path moved sideways (to the right when walking along it, y down)."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    moved: Points = path + distance * np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    return moved


def containers(canvas: Canvas, rng: np.random.Generator) -> None:
    """Lay out a yard of containers: the size of lorries, not to be found."""
    x, y = canvas.spot(rng)
    angle, high = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3)
    columns, rows = int(rng.integers(2, 7)), int(rng.integers(2, 8))
    length = float(rng.choice([6.1, 12.2]))
    yard = canvas.at(rectangle(0, 0, columns * (length + 1.2), rows * 3.0), x, y, angle)
    if not canvas.free(yard):
        return
    canvas.paint(yard, (0.52, 0.51, 0.49), rough=0.1)
    for i in range(columns):
        for j in range(rows):
            if rng.random() < 0.8:
                at = ((i - (columns - 1) / 2) * (length + 1.2), (j - (rows - 1) / 2) * 3.0)
                box = canvas.at(rectangle(*at, length, 2.44), x, y, angle)
                canvas.shadow(box, 2.5 * high)
                canvas.paint(box, tint(rng, BOXES))
                rib = stroke(points((at[0] - length / 2, at[1]), (at[0] + length / 2, at[1])), 0.3)
                canvas.shade(canvas.at(rib, x, y, angle), 0.85)
    canvas.take(yard)


def court(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint a sports court, a pool or solar panels on the ground: a rectangle without a roof."""
    x, y = canvas.spot(rng)
    angle, length, width = rng.uniform(0, np.pi), rng.uniform(9, 26), rng.uniform(5, 13)
    flat = canvas.at(rectangle(0, 0, length, width), x, y, angle)
    if not canvas.free(flat):
        return
    kind = rng.integers(3)
    canvas.paint(flat, ((0.35, 0.45, 0.33), (0.30, 0.58, 0.66), (0.13, 0.16, 0.24))[kind], rough=0.05)
    if kind == 2:
        for at in np.arange(-length / 2, length / 2, 1.7):
            bar = rectangle(at, 0, 0.25, width)
            canvas.paint(canvas.at(bar, x, y, angle), (0.55, 0.56, 0.58))
    else:
        rim = rectangle(0, 0, length * 0.85, width * 0.8) if kind == 0 else rectangle(0, 0, length, width)
        canvas.paint(canvas.at(stroke(np.concatenate([rim, rim[:1]]), 0.3), x, y, angle), MARKING)
    canvas.take(flat)


def rock(canvas: Canvas, rng: np.random.Generator, *, on_water: bool) -> None:
    """Put a rock, lit from one side, on land or in the water (there with foam around it: looks like a boat)."""
    x, y = canvas.spot(rng)
    outline = blob(rng, float(np.exp(rng.uniform(np.log(0.8), np.log(3.5)))), 0.4) * (rng.uniform(1, 2.4), 1)
    stone = canvas.at(outline, x, y, rng.uniform(0, 2 * np.pi))
    if not canvas.free(stone, on_water=on_water):
        return
    if on_water:
        canvas.paint(canvas.at(outline * 1.35, x, y, 0), (0.68, 0.73, 0.73), alpha=0.35, rough=0.6)
    else:
        canvas.shadow(stone, 1.2)
    colour = tint(rng, ((0.46, 0.43, 0.40), (0.58, 0.55, 0.50), (0.32, 0.30, 0.29)), 0.012)
    canvas.paint(stone, colour, rough=0.2)
    light = stone - np.asarray(canvas.sun) * 0.35 * canvas.scale
    canvas.paint((light - light.mean(0)) * 0.6 + light.mean(0), lit(colour, 1.3), alpha=0.7, rough=0.2)
    canvas.take(stone)


def tree(canvas: Canvas, rng: np.random.Generator) -> None:
    """Plant a tree: a lumpy crown with its shadow; only the middle has to be free, so it may overhang objects."""
    x, y = canvas.spot(rng)
    radius = rng.uniform(1.2, 4.0)
    if not canvas.free(ellipse(x, y, radius * 0.4 * canvas.scale, radius * 0.4 * canvas.scale)):
        return
    crown = canvas.at(blob(rng, radius, 0.25), x, y, 0.0)
    canvas.shade(crown + np.asarray(canvas.sun) * radius * 1.2 * canvas.scale, 0.55)
    green = tint(rng, ((0.17, 0.26, 0.13), (0.24, 0.32, 0.17), (0.30, 0.34, 0.20)), 0.015)
    canvas.paint(crown, green, rough=0.3)
    for _ in range(4):
        u, v = rng.normal(0, 0.35, 2) * radius - np.asarray(canvas.sun) * radius * 0.3
        tuft = move(blob(rng, radius * 0.35, 0.4), shift=(u, v))
        canvas.paint(canvas.at(tuft, x, y, 0), lit(green, 1.35), alpha=0.5, rough=0.4)


def pontoon(canvas: Canvas, rng: np.random.Generator) -> None:
    """Float a pontoon or a raft: long and pale on the water, no ship."""
    x, y = canvas.spot(rng)
    length, width, angle = rng.uniform(5, 22), rng.uniform(1.5, 4.0), rng.uniform(0, np.pi)
    deck = canvas.at(rectangle(0, 0, length, width), x, y, angle)
    if not canvas.free(deck, on_water=True):
        return
    canvas.shadow(deck, 0.8)
    canvas.paint(deck, tint(rng, (*PAINT[1:3], (0.50, 0.42, 0.33))), rough=0.15)
    for at in np.arange(-length / 2 + 0.6, length / 2, 1.3):
        canvas.shade(canvas.at(rectangle(at, 0, 0.2, width), x, y, angle), 0.8)
    canvas.take(deck)
