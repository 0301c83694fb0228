"""Letterbox: where an image goes in the network's input, and every byte of the result, in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

COEFFICIENT_BITS = 11  # bilinear weights are integers in 0..2048
MAX_SIDE = 1 << 24  # pixels; keeps every index product far inside 64 bits


@dataclass(frozen=True)
class Placement:
    """Where a letterbox put an image: `network = image * scale + (left, top)`, all in pixels."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    image_height: int
    image_width: int

    def undo(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes from network pixels to pixels of the image.

        Args:
            boxes: `(N, 4)` xyxy, clipped to the image on return; or `(N, 5)` xywhr, which may reach over its border.

        Returns:
            A new float32 array of the same shape.

        Raises:
            UsageError: another shape.
        """
        boxes = np.asarray(boxes, np.float32)
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
            raise UsageError(f"boxes: expected shape (N, 4) or (N, 5), got {boxes.shape}")
        offset = np.array([self.left, self.top], np.float32)
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        if boxes.shape[1] == 5:
            return _undo_xywhr(boxes, offset, scale)
        original = (boxes.reshape(-1, 2, 2) - offset) / scale
        np.maximum(original, np.float32(0), out=original)
        np.minimum(original, np.array([self.image_width, self.image_height], np.float32), out=original)
        return original.reshape(-1, 4)


def _undo_xywhr(
    boxes: NDArray[np.float32], offset: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Both edges are mapped as vectors: rounding the letterbox to whole pixels makes the two scales differ a little."""
    along = np.stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    wide, high = along * boxes[:, 2:3] / scale, across * boxes[:, 3:4] / scale
    centre = (boxes[:, :2] - offset) / scale
    size = np.stack([np.hypot(*wide.T), np.hypot(*high.T)], axis=1)
    long = np.where((size[:, 1] > size[:, 0])[:, None], high, wide)
    angle = (np.arctan2(long[:, 1], long[:, 0]) + np.pi / 2) % np.pi - np.pi / 2
    return np.concatenate([centre, -np.sort(-size, axis=1), angle[:, None]], axis=1).astype(np.float32)


def place(image_height: int, image_width: int, height: int, width: int) -> tuple[Placement, int, int]:
    """Return where an image goes in a `height` x `width` letterbox, and the new `(height, width)` of the image.

    The scale is s = min(width / image_width, height / image_height); the new sizes are image size * s rounded half
    up, at least 1; the image is centred, with the odd pixel of padding on the right and below. All in integers.

    Raises:
        UsageError: a side is not in 1..2**24.
    """
    for side in (image_height, image_width, height, width):
        if not 1 <= side <= MAX_SIDE:
            sizes = f"{image_height}x{image_width} into {height}x{width}"
            raise UsageError(f"letterbox: sides should be in 1..{MAX_SIDE} pixels, got {sizes}")
    if width * image_height <= height * image_width:
        new_height, new_width = max(1, (2 * image_height * width + image_width) // (2 * image_width)), width
    else:
        new_height, new_width = height, max(1, (2 * image_width * height + image_height) // (2 * image_height))
    scale_x, scale_y = new_width / image_width, new_height / image_height
    left, top = (width - new_width) // 2, (height - new_height) // 2
    return Placement(scale_x, scale_y, left, top, image_height, image_width), new_height, new_width


def taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return `(first, second, weight)`, each `(target,)` int64, of a bilinear resize along one axis.

    With half-pixel centres output `x` lies at source position `((2x + 1) source - target) / (2 target)`. In units of
    1/2048, rounded half up, that is `q = floor((((2x + 1) source - target) 2048 + target) / (2 target))`, clamped to
    `0..(source - 1) 2048`; then `first = q >> 11`, `second = min(first + 1, source - 1)`, and of 2048 parts `second`
    gets `weight = q & 2047`, `first` the rest.
    """
    x = np.arange(target, dtype=np.int64)
    q = ((((2 * x + 1) * source - target) << COEFFICIENT_BITS) + target) // (2 * target)
    q = np.clip(q, 0, (source - 1) << COEFFICIENT_BITS)
    first = q >> COEFFICIENT_BITS
    return first, np.minimum(first + 1, source - 1), q & ((1 << COEFFICIENT_BITS) - 1)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize `(H, W, C)` uint8 bilinearly: `(sum of 4 products + 2**21) >> 22` in exact integers, rounded once."""
    rows, rows_next, weight_y = taps(image.shape[0], height)
    cols, cols_next, weight_x = taps(image.shape[1], width)
    one = 1 << COEFFICIENT_BITS
    wx, wy = weight_x[None, :, None], weight_y[:, None, None]

    def across(lines: NDArray[np.int64]) -> NDArray[np.int64]:
        picked = image[lines].astype(np.int64)
        return picked[:, cols] * (one - wx) + picked[:, cols_next] * wx

    total = across(rows) * (one - wy) + across(rows_next) * wy
    return ((total + (1 << (2 * COEFFICIENT_BITS - 1))) >> (2 * COEFFICIENT_BITS)).astype(np.uint8)


def letterbox(
    image: NDArray[np.uint8],
    height: int,
    width: int,
    *,
    swap: bool,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int = 114,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Placement]:
    """Resize an image into a `height` x `width` canvas of grey, reorder its channels and normalise it.

    Each value is `(float32(v) - float32(mean)) / float32(std)`, in float32, with `v` from `resize` or `pad`.

    Args:
        image: `(H, W, 3)` uint8, `(H, W, 1)` (used three times) or `(H, W, 4)` (the fourth, alpha, is ignored).
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        swap: reverse the order of the three channels.
        mean: 3 values in 0..255 units, in the order of the *output* channels.
        std: 3 positive values, likewise.
        pad: grey level of the border, 0..255.
        out: `(3, height, width)` float32, C-contiguous, to be filled; None: a new one.

    Returns:
        The float32 planes `(3, height, width)` and the placement.

    Raises:
        UsageError: a wrong shape, dtype or value.
    """
    check_letterbox(image, mean, std, pad)
    placement, new_height, new_width = place(image.shape[0], image.shape[1], height, width)
    planes = canvas(height, width, out)
    resized = resize(image[:, :, :3], new_height, new_width)
    if swap:
        resized = resized[:, :, ::-1]
    below, right = placement.top + new_height, placement.left + new_width
    for channel in range(3):
        mean32, std32 = np.float32(mean[channel]), np.float32(std[channel])
        planes[channel] = (np.float32(pad) - mean32) / std32
        values = resized[:, :, min(channel, resized.shape[2] - 1)].astype(np.float32)
        planes[channel, placement.top : below, placement.left : right] = (values - mean32) / std32
    return planes, placement


def check_letterbox(image: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], pad: int) -> None:
    """Raise UsageError unless these are valid arguments of `letterbox`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise UsageError(f"image: expected (H, W, 1|3|4) uint8, got {image.shape} {image.dtype}")
    if len(mean) != 3 or len(std) != 3 or not np.isfinite([*mean, *std]).all() or min(std) <= 0:
        raise UsageError(f"mean and std: expected 3 finite values each, std positive; got {mean} and {std}")
    if not 0 <= pad <= 255:
        raise UsageError(f"pad: expected a grey level in 0..255, got {pad}")


def canvas(height: int, width: int, out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return `out` if it can hold a letterbox, or a new array when it is None; UsageError otherwise."""
    if out is None:
        return np.empty((3, height, width), np.float32)
    fits = out.shape == (3, height, width) and out.dtype == np.float32
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        expected = f"a writeable C-contiguous (3, {height}, {width}) float32 array"
        raise UsageError(f"out: expected {expected}, got {out.shape} {out.dtype}")
    return out
