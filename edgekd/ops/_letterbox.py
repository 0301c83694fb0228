"""Letterbox through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import geometry
from ..native import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..geometry import Placement


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
    """Resize, pad, reorder and normalise an image in one pass; see `edgekd.geometry.letterbox` for all but speed.

    Crops and flipped views are read where they lie; only an image whose rows are not runs of pixels is copied first.

    Args:
        image: `(H, W, 1|3|4)` uint8, any strides.
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        swap: reverse the order of the three channels.
        mean: 3 values in 0..255 units, in the order of the output channels.
        std: 3 positive values, likewise.
        pad: grey level of the border, 0..255.
        out: `(3, height, width)` float32, C-contiguous, to be filled; None: a new one.

    Returns:
        The float32 planes `(3, height, width)` and the placement.

    Raises:
        UsageError: a wrong shape, dtype or value.
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.letterbox(image, height, width, swap=swap, mean=mean, std=std, pad=pad, out=out)
    geometry.check_letterbox(image, mean, std, pad)
    placement, new_height, new_width = geometry.place(image.shape[0], image.shape[1], height, width)
    planes = geometry.canvas(height, width, out)
    image, swap = _readable(image, swap)
    rows, columns, channels = image.shape
    ffi, lib = kernels.ffi, kernels.lib
    workspace = kernels.workspace(lib.edgekd_letterbox_workspace(new_width))
    status = lib.edgekd_letterbox(
        ffi.cast("uint8_t *", image.__array_interface__["data"][0]), rows, columns, channels, image.strides[0],
        kernels.pointer(planes, "float[]"), height, width, new_height, new_width, placement.left, placement.top,
        swap, tuple(mean), tuple(std), pad, instructions, *workspace,
    )  # fmt: skip
    kernels.check(status, "letterbox")
    return planes, placement


def _readable(image: NDArray[np.uint8], swap: bool) -> tuple[NDArray[np.uint8], bool]:
    """Return the image with adjacent pixels in each row, and `swap`: `image[:, :, ::-1]` is undone, not copied."""
    channels = image.shape[2]
    if channels == 3 and image.strides[2] == -1:
        image, swap = image[:, :, ::-1], not swap
    packed = channels == 1 or image.strides[2] == 1  # NumPy says anything about the stride of an axis of length 1
    if packed and (image.strides[1] == channels or image.shape[1] == 1):
        return image, swap
    return np.ascontiguousarray(image), swap
