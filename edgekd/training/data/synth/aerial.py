"""Aerial pictures: rotated vehicles, ships and buildings over textured ground among things that look like them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..polygon import regularise
from .aerial_canvas import CLASSES, Canvas
from .aerial_ground import flood, land
from .aerial_layout import houses, lookalikes, moorings, parking, shipping, strays, streets
from .annotations import Annotations, generator
from .textures import fbm

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CLASSES", "DEFAULT_SIZE", "scene"]

DEFAULT_SIZE = 512
REFERENCE = 512  # the image side that the scales below are for
THEMES = ("town", "port", "lot", "port", "country")  # in turn, so that small sets hold ships too


def scene(
    seed: int, index: int, *, split: str = "train", size: int | tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], Annotations]:
    """Draw one aerial picture.

    Args:
        seed: of the data set.
        index: of the image in its split.
        split: "train", "val" or "test": different images for the same index.
        size: side of a square in pixels, or (height, width); None: 512. A smaller image shows the same ground, smaller.

    Returns:
        The image `(H, W, 3)` uint8 RGB and its annotations with xywhr boxes (radians, clockwise on the image, le90),
        exact for the drawn objects; those cut by the border keep their whole box, at least 35 % of it inside.
    """
    rng = generator(seed, split, index)
    height, width = size if isinstance(size, tuple) else (size or DEFAULT_SIZE,) * 2
    canvas = _prepare(rng, height, width)
    _build(canvas, rng, THEMES[index % len(THEMES)])
    return _photograph(canvas, rng), _annotate(canvas)


def _prepare(rng: np.random.Generator, height: int, width: int) -> Canvas:
    grain = np.float32(0.35) * rng.standard_normal((height, width), dtype=np.float32)
    grain += np.float32(0.56) * fbm(rng, height, width, cells=60, octaves=3)
    scale = float(np.exp(rng.uniform(np.log(3.2), np.log(8.0)))) * min(height, width) / REFERENCE
    heading, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.1)
    sun = (float(np.cos(heading) * length), float(np.sin(heading) * length))
    return Canvas(land(rng, height, width, grain), grain, scale, sun)


def _build(canvas: Canvas, rng: np.random.Generator, theme: str) -> None:
    """Lay out one of the themes; what finds no room is left out."""
    heading = rng.uniform(0, np.pi)
    # How much ground there is to fill, relative to the middle of the range of scales.
    room = (canvas.height * canvas.width) / (canvas.scale * 100) ** 2
    if theme == "port" or (theme == "country" and rng.random() < 0.4):
        flood(canvas, rng)
    if theme != "port" or rng.random() < 0.3:
        streets(canvas, rng, heading)
    if canvas.water.any():
        for _ in range(int(rng.integers(0, 4))):
            moorings(canvas, rng)
        shipping(canvas, rng, int(rng.integers(4, 16)))
    for _ in range({"town": 4, "lot": 14, "port": 3, "country": 1}[theme]):
        parking(canvas, rng, heading)
    houses(canvas, rng, heading, int({"town": 60, "lot": 14, "port": 16, "country": 6}[theme] * min(room, 2.5)))
    strays(canvas, rng, int(rng.integers(0, 10)))
    lookalikes(canvas, rng)


def _photograph(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add haze, a light gradient, the lens and the sensor."""
    u = rng.uniform
    light = 1 + u(0, 0.08) * fbm(rng, canvas.height, canvas.width, cells=1.5, octaves=2)[..., None]
    picture = canvas.rgb * light * u(0.8, 1.15)
    haze = u(0, 0.18)
    picture = picture * (1 - haze) + haze * np.array((0.72, 0.76, 0.80), np.float32)
    blurred = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), u(0.35, 0.9))
    noisy = blurred + np.float32(u(0.004, 0.02)) * rng.standard_normal(picture.shape, dtype=np.float32)
    pixels: NDArray[np.uint8] = np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return pixels


def _annotate(canvas: Canvas) -> Annotations:
    boxes = regularise(np.array(canvas.boxes, np.float64).reshape(-1, 5)).astype(np.float32)
    return Annotations(boxes, np.array(canvas.labels, np.int64), np.array(canvas.visibility, np.float32))
