"""Letterbox through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import geometry
from ..native import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    from ..geometry import Placement

INTERLEAVED = {1: 0, 3: 1, 4: 2}  # enum edgekd_pixels, by the number of channels
CAMERA = {"nv12": 3, "yuyv": 4}  # and by name
VALUES = {kind: value for value, kind in enumerate(geometry.DTYPES)}  # enum edgekd_values
LAYOUTS = {layout: value for value, layout in enumerate(geometry.LAYOUTS)}  # enum edgekd_layout


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
    """Resize, pad, reorder, normalise and quantize an image in one pass; see `edgekd.geometry.letterbox` for the bits.

    Crops, padded rows and flipped views are read where they lie; only an image whose rows are not runs of pixels is
    copied first. Of a camera frame only the rows that the resize touches are decoded.

    Args:
        image: uint8, any strides: `(H, W, 1|3|4)`; as "nv12" `(3 H / 2, W)`, H and W even; as "yuyv" `(H, W, 2)`, W
            even. Camera frames are decoded to RGB.
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        swap: reverse the order of the three channels.
        mean: 3 values in 0..255 units, in the order of the output channels.
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
    instructions = kernels.instructions()
    if not instructions:
        return geometry.letterbox(
            image, height, width, swap=swap, mean=mean, std=std, pad=pad, out=out, pixels=pixels, dtype=dtype,
            layout=layout, scale=scale, zero_point=zero_point, stretch=stretch, bordered=bordered,
        )  # fmt: skip
    size = geometry.check_frame(image, pixels)
    kind = geometry.check_values(mean, std, pad, dtype, scale, zero_point)
    placement, new_height, new_width = geometry.place(*size, height, width, stretch=stretch)
    filled = geometry.canvas(height, width, out, kind, layout)
    geometry.check_reuse(image, out, bordered)
    image, swap = _readable(image, swap)
    to = kernels.ffi.new("edgekd_canvas *", {
        "data": kernels.pointer(filled, "void *"), "height": height, "width": width, "new_height": new_height,
        "new_width": new_width, "left": placement.left, "top": placement.top, "values": VALUES[kind],
        "layout": LAYOUTS[layout], "swap": swap, "pad": pad, "mean": tuple(mean), "std": tuple(std), "scale": scale,
        "zero_point": zero_point,
    })  # fmt: skip
    workspace = kernels.workspace(kernels.lib.edgekd_letterbox_workspace(size[1], new_width))
    frame, keep_border = _frame(image, size, pixels), placement == bordered
    status = kernels.lib.edgekd_letterbox(frame, to, keep_border, instructions, *workspace)
    kernels.check(status, "letterbox")
    return filled, placement


def _frame(image: NDArray[np.uint8], size: tuple[int, int], pixels: str) -> Any:
    """Return the C struct that says where the pixels lie; the caller keeps the array alive."""
    first = image.__array_interface__["data"][0]
    row_stride = image.strides[0] if len(image) > 1 else 0  # of a single row it may be anything
    return kernels.ffi.new("edgekd_frame *", {
        "data": kernels.ffi.cast("uint8_t *", first), "row_stride": row_stride,
        "chroma": kernels.ffi.cast("uint8_t *", first + size[0] * row_stride), "chroma_stride": row_stride,
        "height": size[0], "width": size[1],
        "pixels": INTERLEAVED[image.shape[2]] if pixels == "interleaved" else CAMERA[pixels],
    })  # fmt: skip


def _readable(image: NDArray[np.uint8], swap: bool) -> tuple[NDArray[np.uint8], bool]:
    """Return the image with adjacent pixels in each row, and `swap`: `image[:, :, ::-1]` is undone, not copied."""
    if image.ndim == 2:
        return (image if image.strides[1] == 1 else np.ascontiguousarray(image)), swap
    channels = image.shape[2]
    if channels == 3 and image.strides[2] == -1:
        image, swap = image[:, :, ::-1], not swap
    packed = channels == 1 or image.strides[2] == 1  # NumPy says anything about the stride of an axis of length 1
    if packed and (image.strides[1] == channels or image.shape[1] == 1):
        return image, swap
    return np.ascontiguousarray(image), swap
