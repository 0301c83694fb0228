"""Letterbox: where an image goes in the network's input, and every byte of the result, in integers."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .frames import check_frame, decode_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

COEFFICIENT_BITS = 11  # bilinear weights are integers in 0..2048
MAX_SIDE = 1 << 24  # pixels; keeps every index product far inside 64 bits
DTYPES = tuple(np.dtype(name) for name in ("float32", "float16", "uint8", "int8"))
LAYOUTS = ("nchw", "nhwc")
RANGES: dict[np.dtype[Any], tuple[int, int]] = {
    np.dtype(kind): (int(np.iinfo(kind).min), int(np.iinfo(kind).max)) for kind in (np.uint8, np.int8)
}
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)  # of what may divide, in float32


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
            boxes: `(N, 4)` xyxy, clipped to the image on return; or `(N, 5)` xywhr or `(N, K, 2)` corners, which may
                reach over its border.

        Returns:
            A new float32 array of the same shape.

        Raises:
            UsageError: another shape.
        """
        boxes = np.asarray(boxes, np.float32)
        offset = np.array([self.left, self.top], np.float32)
        scale = np.array([self.scale_x, self.scale_y], np.float32)
        if boxes.ndim == 3 and boxes.shape[2] == 2:
            return (boxes - offset) / scale
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
            raise UsageError(f"boxes: expected shape (N, 4), (N, 5) or (N, K, 2), got {boxes.shape}")
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


def place(
    image_height: int, image_width: int, height: int, width: int, *, stretch: bool = False
) -> tuple[Placement, int, int]:
    """Return where an image goes in a `height` x `width` letterbox, and the new `(height, width)` of the image.

    The scale is s = min(width / image_width, height / image_height); the new sizes are image size * s rounded half
    up, at least 1; the image is centred, with the odd pixel of padding on the right and below. All in integers.
    With `stretch` each axis has a scale of its own, and the image fills the whole.

    Raises:
        UsageError: a side is not in 1..2**24.
    """
    # Small integers of NumPy's would overflow in the products below.
    image_height, image_width, height, width = map(index, (image_height, image_width, height, width))
    for side in (image_height, image_width, height, width):
        if not 1 <= side <= MAX_SIDE:
            sizes = f"{image_height}x{image_width} into {height}x{width}"
            raise UsageError(f"letterbox: sides should be in 1..{MAX_SIDE} pixels, got {sizes}")
    if stretch:
        new_height, new_width = height, width
    elif width * image_height <= height * image_width:
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
    out: NDArray[Any] | None = None,
    pixels: str = "interleaved",
    dtype: DTypeLike = np.float32,
    layout: str = "nchw",
    scale: float = 1.0,
    zero_point: int = 0,
    stretch: bool = False,
    bordered: Placement | None = None,
) -> tuple[NDArray[Any], Placement]:
    """Resize an image into a `height` x `width` canvas of grey, reorder its channels, normalise and quantize it.

    Each value is that of `value_table`, at its channel and its level 0..255: the level from `resize` of the decoded
    image, or `pad`.

    Args:
        image: uint8, in one of the ways of `PIXELS`: `(H, W, 3)`; `(H, W, 1)` (used three times); `(H, W, 4)` (the
            fourth, alpha, is ignored); or a camera frame, which is decoded to RGB (see `yuv_to_rgb`).
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        swap: reverse the order of the three channels.
        mean: 3 values in 0..255 units, in the order of the *output* channels.
        std: 3 positive values, likewise.
        pad: grey level of the border, 0..255.
        out: an array of that shape and type, C-contiguous, to be filled; None: a new one.
        pixels: how the image lies in its array: "interleaved", "nv12" or "yuyv".
        dtype: of the values: float32, float16, uint8 or int8.
        layout: "nchw": planes `(3, height, width)`; "nhwc": pixels `(height, width, 3)`.
        scale: of uint8 and int8, which are value / scale + zero_point; positive.
        zero_point: likewise; in the range of the type.
        stretch: fill the canvas, each axis with a scale of its own; there is no border.
        bordered: where the call that filled `out` last put its image, all else being the same: if this image goes there
            too, as those of a camera do, the border is left as it is. None: it is written.

    Returns:
        The network's input, and the placement.

    Raises:
        UsageError: a wrong shape, type or value; `out` overlaps `image`; `bordered` without `out`.
    """
    size = check_frame(image, pixels)
    kind = check_values(mean, std, pad, dtype, scale, zero_point)
    placement, new_height, new_width = place(*size, height, width, stretch=stretch)
    filled = canvas(height, width, out, kind, layout)
    check_reuse(image, out, bordered)
    resized = resize(decode_frame(image, pixels), new_height, new_width)
    if swap:
        resized = resized[:, :, ::-1]
    table = value_table(mean, std, kind, scale, zero_point)
    rows = slice(placement.top, placement.top + new_height)
    columns = slice(placement.left, placement.left + new_width)
    for channel, values in enumerate(table):
        plane = filled[channel] if layout == "nchw" else filled[:, :, channel]
        if placement != bordered:
            plane[...] = values[pad]
        plane[rows, columns] = values[resized[:, :, min(channel, resized.shape[2] - 1)]]
    return filled, placement


def value_table(
    mean: Sequence[float], std: Sequence[float], dtype: DTypeLike, scale: float = 1.0, zero_point: int = 0
) -> NDArray[Any]:
    """Return `(3, 256)` of `dtype`: what each level becomes in each channel of a network's input.

    - float32: `f = (float32(level) - float32(mean)) / float32(std)`, each step in float32.
    - float16: f to the nearest half, ties to even: large values become infinite, subnormal ones are kept.
    - uint8, int8: `f / float32(scale)` in float32, to the nearest whole number, ties to even; `zero_point` is added,
      and the sum clamped to the range of the type.
    """
    kind: np.dtype[Any] = np.dtype(dtype)
    levels, means, divisors = (np.asarray(values, np.float32) for values in (range(256), mean, std))
    with np.errstate(over="ignore"):
        values = (levels - means[:, None]) / divisors[:, None]
        if kind.kind == "f":
            return values.astype(kind)
        steps = np.rint(values / np.float32(scale))
    lowest, highest = RANGES[kind]
    zero_point = index(zero_point)  # small integers of NumPy's would overflow in the differences below
    bounded: NDArray[np.float32] = np.clip(steps, lowest - zero_point, highest - zero_point)
    return (bounded + zero_point).astype(kind)


def check_values(
    mean: Sequence[float], std: Sequence[float], pad: int, dtype: DTypeLike, scale: float, zero_point: int
) -> np.dtype[Any]:
    """Return `dtype` as NumPy has it; UsageError unless these are valid arguments of `letterbox`."""
    if len(mean) != 3 or len(std) != 3 or not all(_within(value, -LARGEST) for value in mean) or not _divisors(std):
        raise UsageError(f"mean and std: expected 3 finite values each, std positive; got {mean} and {std}")
    if not _whole(pad, 0, 255):
        raise UsageError(f"pad: expected a grey level in 0..255, got {pad}")
    kind: np.dtype[Any]
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind not in DTYPES:
        raise UsageError(f"dtype: expected float32, float16, uint8 or int8, got {dtype!r}")
    if kind.kind == "f":
        if (scale, zero_point) != (1, 0):
            given = f"scale {scale} and zero_point {zero_point}"
            raise UsageError(f"{given}: only uint8 and int8 are quantized, and dtype is {kind}")
        return kind
    if not _divisors([scale]):
        raise UsageError(f"scale: expected a positive number, got {scale}")
    lowest, highest = RANGES[kind]
    if not _whole(zero_point, lowest, highest):
        raise UsageError(f"zero_point: expected a whole number in {lowest}..{highest} for {kind}, got {zero_point}")
    return kind


def _divisors(values: Sequence[float]) -> bool:
    return all(_within(value, SMALLEST) for value in values)


def _within(value: float, lowest: float) -> bool:
    """Say whether a number is in `lowest..LARGEST`; a half of NumPy's would round these to 0 and infinity first."""
    return lowest <= (float(value) if isinstance(value, np.floating) else value) <= LARGEST


def _whole(value: int, lowest: int, highest: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and lowest <= value <= highest


def canvas(height: int, width: int, out: NDArray[Any] | None, dtype: np.dtype[Any], layout: str) -> NDArray[Any]:
    """Return `out` if it can hold a letterbox, or a new array when it is None; UsageError otherwise."""
    if layout not in LAYOUTS:
        raise UsageError(f"layout: expected nchw or nhwc, got {layout!r}")
    shape = (3, height, width) if layout == "nchw" else (height, width, 3)
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.carray:
        expected = f"a writeable, aligned, C-contiguous {shape} {dtype} array"
        raise UsageError(f"out: expected {expected}, got {out.shape} {out.dtype}")
    return out


def check_reuse(image: NDArray[np.uint8], out: NDArray[Any] | None, bordered: Placement | None) -> None:
    """Raise UsageError where `out` would be written over the image, or has no border that could be left."""
    if out is not None and np.may_share_memory(out, image):
        raise UsageError("out: it overlaps the image in memory")
    if out is None and bordered is not None:
        raise UsageError("bordered: a new array has no border yet, and there is no `out`")
