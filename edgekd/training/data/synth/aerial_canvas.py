"""The picture an aerial scene is painted on: antialiased polygons, cast shadows, and who stands where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .attenuation import window
from .outline import Points, move, rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ("vehicle", "ship", "building")
SEEN = 0.35  # an object with less of its box inside the image is not drawn at all
Colour = tuple[float, float, float]


class Canvas:
    """An RGB float32 picture in [0, 1] with its ground truth.

    Attributes:
        rgb: `(H, W, 3)` float32.
        taken: `(H, W)` bool, ground that something stands on.
        roads: `(H, W)` bool, carriageways and bridges.
        water: `(H, W)` bool.
        grain: `(H, W)` float32 around 0, fine texture that surfaces share.
        scale: pixels per metre.
        sun: (x, y) that a shadow of one metre of height reaches, in metres.
        boxes, labels, visibility: the objects so far; boxes are xywhr with w along the object, not yet long-edge.
    """

    def __init__(
        self, rgb: NDArray[np.float32], grain: NDArray[np.float32], scale: float, sun: tuple[float, float]
    ) -> None:
        self.rgb, self.grain, self.scale, self.sun = rgb, grain, scale, sun
        self.taken = np.zeros(rgb.shape[:2], np.bool_)
        self.roads = np.zeros(rgb.shape[:2], np.bool_)
        self.water = np.zeros(rgb.shape[:2], np.bool_)
        self.boxes: list[tuple[float, float, float, float, float]] = []
        self.labels: list[int] = []
        self.visibility: list[float] = []

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.rgb.shape[1])

    def window(self, outline: Points) -> tuple[slice, slice, NDArray[np.float32]] | None:
        """Return the rows and columns that the polygon touches and how much of each pixel it covers."""
        return window(outline, self.height, self.width)

    def paint(self, outline: Points, colour: Colour, *, alpha: float = 1.0, rough: float = 0.0) -> None:
        """Fill a polygon (pixels); `rough` is how much of the shared grain shows."""
        spot = self.window(outline)
        if spot is None:
            return
        rows, columns, mask = spot
        mask = mask[..., None] * np.float32(alpha)
        fill = np.asarray(colour, np.float32) * (1 + np.float32(rough) * self.grain[rows, columns, None])
        self.rgb[rows, columns] += mask * (fill - self.rgb[rows, columns])

    def shade(self, outline: Points, factor: float) -> None:
        """Multiply the picture under a polygon."""
        spot = self.window(outline)
        if spot is not None:
            rows, columns, mask = spot
            self.rgb[rows, columns] *= 1 - np.float32(1 - factor) * mask[..., None]

    def shadow(self, outline: Points, height: float) -> None:
        """Darken where an upright prism over the polygon, `height` metres tall, keeps the sun away."""
        top = outline + np.asarray(self.sun) * height * self.scale
        both = np.concatenate([outline, top]).astype(np.float32)
        self.shade(cv2.convexHull(both)[:, 0].astype(np.float64), 0.5)

    def free(self, outline: Points, *, on_water: bool = False, on_road: bool = False) -> bool:
        """Tell whether the polygon touches nothing taken and lies wholly on open land (or on water, or on a road)."""
        spot = self.window(outline)
        if spot is None:
            return False
        rows, columns, mask = spot
        under = mask > 0
        if (self.taken[rows, columns] & under).any():
            return False
        road = self.roads[rows, columns][under]
        if on_road:
            return bool(road.all())
        return not road.any() and bool((self.water[rows, columns][under] == on_water).all())

    def take(self, outline: Points, *, road: bool = False) -> None:
        """Mark the ground under a polygon as taken, or as a road."""
        spot = self.window(outline)
        if spot is not None:
            rows, columns, mask = spot
            (self.roads if road else self.taken)[rows, columns] |= mask > 0

    def annotate(self, label: str, box: tuple[float, float, float, float, float]) -> None:
        """Note an object: its xywhr in pixels, w along it."""
        self.boxes.append(box)
        self.labels.append(CLASSES.index(label))
        self.visibility.append(self.inside(box))

    def inside(self, box: tuple[float, float, float, float, float]) -> float:
        """Return the share of an xywhr box that lies inside the image."""
        corners = rectangle(*box).astype(np.float32)
        border = rectangle(self.width / 2, self.height / 2, self.width, self.height).astype(np.float32)
        area, _ = cv2.intersectConvexConvex(corners, border)
        return float(np.clip(area / (box[2] * box[3]), 0, 1))

    def room(self, x: float, y: float, length: float, width: float, angle: float, **where: bool) -> bool:
        """Tell whether `length` x `width` metres at (x, y) pixels, and a little air around them, are `free`."""
        box = (x, y, length * self.scale, width * self.scale, angle)
        if box[3] < 3 or self.inside(box) < SEEN:
            return False
        air = max(1.0, 0.15 * box[3])
        return self.free(rectangle(x, y, box[2] + 2 * air, box[3] + 2 * air, angle), **where)

    def at(self, outline: Points, x: float, y: float, angle: float) -> Points:
        """Bring a polygon from metres around an object's centre to pixels."""
        return move(outline, scale=self.scale, angle=angle, shift=(x, y))

    def spot(self, rng: np.random.Generator) -> tuple[float, float]:
        """Return a random position in pixels, up to 2 % outside the image."""
        u = rng.uniform(-0.02, 1.02, 2)
        return float(u[0] * self.width), float(u[1] * self.height)
