"""Merging the detections of overlapping tiles through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import geometry
from ..native import kernels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def merge_tiles(
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike | None,
    tiles: ArrayLike,
    windows: ArrayLike,
    *,
    iou: float = 0.5,
    iof: float = 0.7,
) -> NDArray[np.int64]:
    """Return which detections of overlapping tiles stay, best score first; see `edgekd.geometry.merge_tiles`.

    Args:
        boxes: `(N, 4)` xyxy or `(N, 5)` xywhr float32, in pixels of the whole image.
        scores: `(N,)` float32; ties go to the lower index.
        labels: `(N,)` int64 in the range of int32; None: all of one.
        tiles: `(N,)` int64, the row of `windows` that each box was found in.
        windows: `(T, 4)` xyxy pixels, as `edgekd.geometry.windows` gives them.
        iou: in [0, 1]; two boxes of a label that overlap more are one.
        iof: in [0, 1]; a box cut by its tile's border goes if another tile's covers more of it.

    Returns:
        `(K,)` int64 indices.

    Raises:
        UsageError: wrong shapes or values.
    """
    if not kernels.instructions():
        return geometry.merge_tiles(boxes, scores, labels, tiles, windows, iou=iou, iof=iof)
    rotated, best, classes, rows, cut = geometry.check_merge(boxes, scores, labels, tiles, windows, iou, iof)
    n = len(rotated)
    keep, count = np.empty(n, np.int64), kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    status = lib.edgekd_merge_tiles(
        pointer(rotated, "float[]"), pointer(best, "float[]"), pointer(classes, "int64_t[]"),
        pointer(rows, "int64_t[]"), pointer(cut, "uint8_t[]"), n, iou, iof, pointer(keep, "int64_t[]"), count,
        kernels.instructions(), *kernels.workspace(lib.edgekd_merge_tiles_workspace(n)),
    )  # fmt: skip
    kernels.check(status, "merge_tiles")
    return keep[: count[0]].copy()
