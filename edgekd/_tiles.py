"""Large images by tiles: the windows that the network sees, and their detections as those of the image."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import geometry, ops
from ._detections import Detections
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ._preprocess import ImageArray

DEFAULT_SHARE = 5  # of a tile: neighbours share a fifth, near DOTA's 200 of 1024 pixels
MAX_WINDOWS = 4096  # of an image: enough for tiles of 640 pixels on the largest one


@dataclass(frozen=True)
class Tiling:
    """Windows of `tile` x `tile` pixels of the image, of which neighbours share `overlap` pixels."""

    tile: int
    overlap: int

    def fits(self, image: ImageArray) -> bool:
        """Whether the image is no larger than one tile, so that it goes the usual way."""
        height, width = image.pixels.shape[:2]
        return bool(max(height, width) <= self.tile)

    def windows(self, image: ImageArray) -> NDArray[np.int64]:
        """Return `(T, 4)` xyxy windows, see `edgekd.geometry.windows`.

        Raises:
            UsageError: more than MAX_WINDOWS; every one is a run of the network.
        """
        height, width = image.pixels.shape[:2]
        count = self._count(height) * self._count(width)
        if count > MAX_WINDOWS:
            raise UsageError(
                f"tile={self.tile}, overlap={self.overlap} cuts an image of {width}x{height} pixels into {count} "
                f"windows, of at most {MAX_WINDOWS}; take larger tiles that share less, for example tile=1024"
            )
        return geometry.windows(height, width, self.tile, self.overlap)

    def _count(self, length: int) -> int:
        """Return how many windows lie along a side."""
        return 1 + math.ceil(max(length - self.tile, 0) / (self.tile - self.overlap))


def tiling(tile: int | None, overlap: int | None) -> Tiling | None:
    """Return what `predict` was asked for; None: whole images.

    Raises:
        UsageError: sides that are no whole numbers or out of range, or an overlap of no tiles.
    """
    if tile is None:
        if overlap is not None:
            raise UsageError(f"overlap={overlap} is between tiles; give their side as well, for example tile=1024")
        return None
    if not whole(tile) or tile < 1:
        raise UsageError(f"tile should be a whole number of pixels, at least 1, got {tile!r}")
    shared = tile // DEFAULT_SHARE if overlap is None else overlap
    if not whole(shared) or not 0 <= shared < tile:
        raise UsageError(f"overlap should be a whole number of pixels, 0 to tile - 1 = {tile - 1}, got {overlap!r}")
    return Tiling(int(tile), int(shared))


def whole(value: object) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def merge(
    found: Sequence[Detections],
    windows: NDArray[np.int64],
    image_size: tuple[int, int],
    *,
    decode_s: float,
    iou: float,
    max_det: int | None,
) -> Detections:
    """Return the detections of an image from those of its windows, by the rule of `edgekd.geometry.merge_tiles`.

    Args:
        found: one a window, in pixels of the window.
        windows: `(T, 4)` int64 xyxy, pixels of the image.
        image_size: `(height, width)` in pixels.
        decode_s: seconds that decoding the image took.
        iou: two boxes of a class that overlap more than this are one object.
        max_det: most objects; None: all.
    """
    start = time.perf_counter()
    boxes = np.concatenate([_moved(item.boxes, window[:2]) for item, window in zip(found, windows, strict=True)])
    scores = np.concatenate([item.scores for item in found])
    labels = np.concatenate([item.labels for item in found])
    tiles = np.repeat(np.arange(len(found)), [len(item) for item in found])
    keep = ops.merge_tiles(boxes, scores, labels, tiles, windows, iou=iou)[:max_det]
    names = [name for name in found[0].timings_ms if name not in ("decode", "total")]  # those of the session
    stages = {name: sum(item.timings_ms[name] for item in found) for name in names}
    timings = {"decode": 1e3 * decode_s, **stages, "merge": 1e3 * (time.perf_counter() - start)}
    timings["total"] = sum(timings.values())
    return Detections(boxes[keep], scores[keep], labels[keep], found[0].classes, image_size, timings)


def _moved(boxes: NDArray[np.float32], corner: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return boxes of a window, `(N, 4)` xyxy or `(N, 5)` xywhr, in pixels of the image."""
    moved = boxes.copy()
    moved[:, :2] += corner
    if boxes.shape[1] == 4:
        moved[:, 2:] += corner
    return moved
