"""Images as cameras give them -> interleaved channels, in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXELS = ("interleaved", "nv12", "yuyv")
"""How pixels can lie in an array; all uint8.

- interleaved: `(H, W, 1)` grey, `(H, W, 3)` BGR or RGB, `(H, W, 4)` the same with alpha.
- nv12: `(3 H / 2, W)`, H and W even: H rows of Y, then H / 2 rows of U, V, U, V, ..., a pair for 2 x 2 pixels.
- yuyv: `(H, W, 2)`, W even: Y in the first channel; in the second U and V in turn, a pair for 2 pixels of a row.
"""

BITS = 20  # of the fraction of the coefficients below


def yuv_to_rgb(y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert limited-range BT.601 to RGB, in exact integers, rounded half up and clamped to 0..255.

    With `c = max(y - 16, 0)`, `d = u - 128`, `e = v - 128`, and sums rounded as `(sum + 2**19) >> 20`:
    R = 1220542 c + 1673527 e, G = 1220542 c - 409993 d - 852492 e, B = 1220542 c + 2116026 d.

    Args:
        y: any shape, uint8.
        u: the same shape.
        v: the same shape.

    Returns:
        uint8 of that shape and a last axis of R, G, B.
    """
    c = np.maximum(y.astype(np.int64) - 16, 0)
    d, e = u.astype(np.int64) - 128, v.astype(np.int64) - 128
    red, green, blue = 1673527 * e, -409993 * d - 852492 * e, 2116026 * d
    sums = 1220542 * c[..., None] + np.stack([red, green, blue], axis=-1)
    levels: NDArray[np.int64] = (sums + (1 << (BITS - 1))) >> BITS
    return np.clip(levels, 0, 255).astype(np.uint8)


def decode_frame(image: NDArray[np.uint8], pixels: str) -> NDArray[np.uint8]:
    """Return `(H, W, 1)` or `(H, W, 3)` uint8 of an array that `check_frame` let pass; nv12 and yuyv become RGB.

    Every pixel has its own Y and the U and V of its pair or block: chroma is not interpolated.
    """
    if pixels == "nv12":
        luma, chroma = image[: len(image) // 3 * 2], image[len(image) // 3 * 2 :].repeat(2, axis=0)
        return yuv_to_rgb(luma, chroma[:, 0::2].repeat(2, axis=1), chroma[:, 1::2].repeat(2, axis=1))
    if pixels == "yuyv":
        u, v = image[:, 0::2, 1].repeat(2, axis=1), image[:, 1::2, 1].repeat(2, axis=1)
        return yuv_to_rgb(image[:, :, 0], u, v)
    return image[:, :, :3]


def check_frame(image: NDArray[np.uint8], pixels: str) -> tuple[int, int]:
    """Return height and width of an image in pixels, or raise UsageError where array and `pixels` do not fit."""
    shape = image.shape
    if pixels == "interleaved":
        expected, fits = "(H, W, 1|3|4)", image.ndim == 3 and shape[2] in (1, 3, 4)
    elif pixels == "nv12":
        expected = "nv12 as (3 H / 2, W), H and W even,"
        fits = image.ndim == 2 and shape[0] % 3 == 0 and shape[1] % 2 == 0
    elif pixels == "yuyv":
        expected, fits = "yuyv as (H, W, 2), W even,", image.ndim == 3 and shape[2] == 2 and shape[1] % 2 == 0
    else:
        raise UsageError(f"pixels: expected one of {', '.join(PIXELS)}, got {pixels!r}")
    if not fits or image.dtype != np.uint8:
        raise UsageError(f"image: expected {expected} uint8, got {shape} {image.dtype}")
    return (shape[0] // 3 * 2, shape[1]) if pixels == "nv12" else (shape[0], shape[1])
