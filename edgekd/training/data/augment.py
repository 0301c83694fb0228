"""Training augmentation: one affine warp an image, then flips by slicing and a colour change.

Coordinates: a pixel i covers [i, i+1], so boxes are edges and the image ends at its width. `cv2` counts pixel centres
from 0, hence the half-pixel shifts around each matrix.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from ...errors import UsageError
from .polygon import regularise

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..._recipe import AugmentConfig

    Scene: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]

VISIBLE = 0.3  # share of an upright box that must stay in the picture
SMALLEST = 1.0  # pixels; a thinner box is dropped
MOSAIC_ZOOM = 0.75  # each picture at three quarters of its letterbox: less is cut than at 1, less is grey than at 0.5
MOSAIC_SHIFT = 0.25  # how far the meeting point wanders, as a share of the picture


class Augment:
    """Random training views of network size.

    Args:
        config: probabilities and ranges; all zero (and `scale` (1, 1)) is a centred letterbox.
        height: of the network input, in pixels.
        width: of the network input, in pixels.
        pad: grey level 0..255 around the image.

    Raises:
        UsageError: the range of scales is empty or not positive.
    """

    def __init__(self, config: AugmentConfig, height: int, width: int, pad: int) -> None:
        if not 0 < config.scale[0] <= config.scale[1]:
            raise UsageError(f"augment.scale should be two positive factors, smallest first, got {config.scale}")
        self.config = config
        self.height = height
        self.width = width
        self.pad = pad

    def __call__(self, rng: np.random.Generator, pick: Callable[[], Scene]) -> Scene:
        """Draw one view.

        Args:
            rng: the only source of chance.
            pick: gives an image `(H, W, 3)` uint8 RGB with boxes `(N, 4)` xyxy or `(N, 5)` xywhr float32 in its pixels
                and labels `(N,)` int64. Called once, or four times for a mosaic; the first is the picture asked for.

        Returns:
            image `(height, width, 3)` uint8 RGB, boxes float32 in its pixels, labels. Upright boxes are clipped, and
            dropped when less than 0.3 of their area stays; oriented ones are dropped when their centre leaves.
        """
        if rng.random() < self.config.mosaic:
            scene = self._mosaic(rng, [pick() for _ in range(4)])
        else:
            scene = self._single(rng, pick())
        image, boxes, labels = self._flip(rng, *scene)
        return self._recolour(rng, image), boxes, labels

    def _single(self, rng: np.random.Generator, scene: Scene) -> Scene:
        image, _, _ = scene
        return self._compose([(scene, _centred(self._fit(image), image))], self._view(rng, 1.0, self.config.translate))

    def _mosaic(self, rng: np.random.Generator, scenes: list[Scene]) -> Scene:
        """Put four pictures around one point, each letterboxed into its own quarter, and look at the meeting point."""
        placed = []
        for scene, (right, low) in zip(scenes, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
            image = scene[0]
            fit = self._fit(image)
            left, top = (right - 1) * image.shape[1], (low - 1) * image.shape[0]
            placed.append((scene, np.array([[fit, 0, left * fit], [0, fit, top * fit], [0, 0, 1.0]])))
        return self._compose(placed, self._view(rng, MOSAIC_ZOOM, max(self.config.translate, MOSAIC_SHIFT)))

    def _fit(self, image: NDArray[np.uint8]) -> float:
        height, width = image.shape[:2]
        return float(min(self.height / height, self.width / width))

    def _view(self, rng: np.random.Generator, zoom: float, shift: float) -> NDArray[np.float64]:
        """Return the `(3, 3)` map from centred network pixels to network pixels: scale, rotation, translation."""
        zoom *= math.exp(rng.uniform(math.log(self.config.scale[0]), math.log(self.config.scale[1])))
        angle = math.radians(rng.uniform(-1, 1) * self.config.rotate_deg)
        x = self.width * (0.5 + rng.uniform(-shift, shift))
        y = self.height * (0.5 + rng.uniform(-shift, shift))
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        return np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1.0]])

    def _compose(self, placed: list[tuple[Scene, NDArray[np.float64]]], view: NDArray[np.float64]) -> Scene:
        """Warp each picture once, straight into the output."""
        canvas = np.full((self.height, self.width, 3), self.pad, dtype=np.uint8)
        boxes, labels = [], []
        for (image, found, names), place in placed:
            matrix = view @ place
            _draw(canvas, image, matrix, self.pad, alone=len(placed) == 1)
            moved, keep = self._move(found, matrix, image.shape[:2])
            boxes.append(moved[keep])
            labels.append(names[keep])
        return canvas, np.concatenate(boxes).astype(np.float32), np.concatenate(labels)

    def _move(
        self, boxes: NDArray[np.float32], matrix: NDArray[np.float64], size: tuple[int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the boxes under `matrix` and which of them to keep."""
        if boxes.shape[1] == 5:
            moved = _move_oriented(boxes, matrix)
            inside = (moved[:, :2] >= 0) & (moved[:, :2] < (self.width, self.height))
            return moved, inside.all(axis=1) & (moved[:, 3] >= SMALLEST)
        hull = _move_upright(_clip(boxes.astype(np.float64), size[1], size[0]), matrix)
        moved = _clip(hull, self.width, self.height)
        sides, before = moved[:, 2:] - moved[:, :2], hull[:, 2:] - hull[:, :2]
        visible = sides.prod(axis=1) >= VISIBLE * before.prod(axis=1)
        return moved, visible & (sides >= SMALLEST).all(axis=1)

    def _flip(
        self, rng: np.random.Generator, image: NDArray[np.uint8], boxes: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> Scene:
        mirrored = rng.random(2) < (self.config.flip, self.config.flip_vertical)
        for axis, size in ((0, self.width), (1, self.height)):
            if mirrored[axis]:
                image = np.asarray(cv2.flip(image, 1 - axis), dtype=np.uint8)
                boxes = _mirror(boxes, axis, size)
        return image, boxes, labels

    def _recolour(self, rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Shift the hue and scale saturation and value by up to the configured share of their range."""
        change = rng.uniform(-1, 1, 3) * self.config.hsv
        if not change.any():
            return image
        ramp = np.arange(256)
        hue = (ramp + round(change[0] * 180)) % 180  # 8-bit OpenCV hue counts 0..179
        table = np.stack([hue, *(np.clip(ramp * (1 + share), 0, 255) for share in change[1:])], axis=-1)
        colours = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        colours = cv2.LUT(colours, table.round().astype(np.uint8)[None])
        return np.asarray(cv2.cvtColor(colours, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def _centred(fit: float, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = image.shape[:2]
    return np.array([[fit, 0, -fit * width / 2], [0, fit, -fit * height / 2], [0, 0, 1.0]])


def _draw(
    canvas: NDArray[np.uint8], image: NDArray[np.uint8], matrix: NDArray[np.float64], pad: int, *, alone: bool
) -> None:
    """Warp `image` onto `canvas`; several pictures leave each other's pixels alone."""
    centres = matrix.copy()  # T(-1/2) @ matrix @ T(1/2)
    centres[:2, 2] += matrix[:2, :2].sum(axis=1) / 2 - 0.5
    if alone:
        border, area = cv2.BORDER_CONSTANT, canvas
    else:  # only the part of the canvas that the picture reaches
        border = cv2.BORDER_TRANSPARENT
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]])
        hull = _clip(_move_upright(whole, matrix), canvas.shape[1], canvas.shape[0])[0]
        left, top = (int(value) for value in np.floor(hull[:2]))
        right, bottom = (int(value) for value in np.ceil(hull[2:]))
        area = canvas[top:bottom, left:right]
        centres[:2, 2] -= left, top
    if area.size:
        size, grey = (area.shape[1], area.shape[0]), (pad, pad, pad)
        cv2.warpAffine(image, centres[:2], size, dst=area, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=grey)


def _move_upright(boxes: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the upright hulls of the moved boxes."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _move_oriented(boxes: NDArray[np.float32], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move xywhr boxes by a similarity: the centre moves, sides scale, the angle turns."""
    moved = boxes.astype(np.float64)
    moved[:, :2] = moved[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
    moved[:, 2:4] *= math.hypot(matrix[0, 0], matrix[1, 0])
    moved[:, 4] += math.atan2(matrix[1, 0], matrix[0, 0])
    return regularise(moved)


def _mirror(boxes: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    """Mirror along x (axis 0) or y (axis 1); the angle of an oriented box changes sign either way."""
    boxes = boxes.copy()
    if boxes.shape[1] == 5:
        boxes[:, axis] = size - boxes[:, axis]
        boxes[:, 4] *= -1
        return regularise(boxes).astype(np.float32)
    boxes[:, [axis, axis + 2]] = size - boxes[:, [axis + 2, axis]]
    return boxes


def _clip(boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    return np.clip(boxes, 0, (width, height, width, height))
