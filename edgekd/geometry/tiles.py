"""Tiles of a large image: which windows cover it, and how their detections become those of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from .rotated import iou_rotated, prepare, shared_area
from .suppression import check_nms, small_integers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CUT_MARGIN = 1.0  # pixels; a box that comes so near to a border inside the image may go on beyond it


def windows(height: int, width: int, size: int, overlap: int) -> NDArray[np.int64]:
    """Return `(T, 4)` int64 xyxy windows of `size` x `size` pixels that cover an image, row by row.

    The step is `size - overlap`; the last window of a row or column is moved back so that it ends at the border, and
    the window of an image smaller than `size` is the image (DOTA's devkit).

    Raises:
        UsageError: a side or `size` below 1, or `overlap` not in 0..size - 1.
    """
    if min(height, width, size) < 1 or not 0 <= overlap < size:
        raise UsageError(
            f"tiles: expected sides and size above 0 and 0 <= overlap < size, got {height}x{width}, {size}, {overlap}"
        )
    tops, lefts = _starts(height, size, overlap), _starts(width, size, overlap)
    top, left = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([left, top, np.minimum(left + size, width), np.minimum(top + size, height)], axis=1)


def _starts(length: int, size: int, overlap: int) -> NDArray[np.int64]:
    if length <= size:
        return np.zeros(1, np.int64)
    starts = np.arange(0, length - size, size - overlap, dtype=np.int64)
    return np.append(starts, length - size)


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
    """Return which detections of overlapping tiles stay, best score first.

    An object in the overlap of two tiles is found twice, and where a tile's border cuts it, one of the two is a piece.
    IoU alone would keep the piece beside the whole, and by score alone the piece could win. So boxes that come within
    `CUT_MARGIN` of a border that lies inside the image are "cut": they are looked at after all whole ones, and go if a
    box that stays, of the same label and another tile, covers more than `iof` of their area. Any box goes if one that
    stays, of the same label, overlaps it by more than `iou`. Pieces of an object larger than the overlap, whole in no
    tile, stay.

    Args:
        boxes: `(N, 4)` xyxy or `(N, 5)` xywhr float32, in pixels of the whole image.
        scores: `(N,)` float32; ties go to the lower index.
        labels: `(N,)` int64 in the range of int32; None: all of one.
        tiles: `(N,)` int64, the row of `windows` that each box was found in.
        windows: `(T, 4)` xyxy pixels.
        iou: in [0, 1].
        iof: in [0, 1]; intersection over the area of the cut box.

    Raises:
        UsageError: wrong shapes or values.
    """
    rotated, scores, labels, tiles, cut = check_merge(boxes, scores, labels, tiles, windows, iou, iof)
    prepared = prepare(rotated)
    alive = (prepared.area > 0) & np.isfinite(scores)
    keep = []
    for i in np.lexsort((np.arange(len(scores)), -scores, cut)):
        if not alive[i]:
            continue
        keep.append(i)
        goes = iou_rotated(rotated[i : i + 1], rotated)[0] > np.float32(iou)
        with np.errstate(all="ignore"):
            covered = shared_area(prepared.pick(np.s_[i : i + 1]), prepared) > np.float32(iof) * prepared.area
        goes |= covered & (cut != 0) & (tiles != tiles[i])
        alive &= ~(goes & (labels == labels[i]))
        alive[i] = False
    kept = np.array(keep, np.int64)
    return kept[np.lexsort((kept, -scores[kept]))]


def check_merge(
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike | None,
    tiles: ArrayLike,
    windows: ArrayLike,
    iou: float,
    iof: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Return the boxes as xywhr, scores, labels, tiles and which boxes are cut, or raise UsageError."""
    boxes = np.ascontiguousarray(boxes, np.float32)
    columns = 5 if boxes.ndim == 2 and boxes.shape[1] == 5 else 4
    boxes, scores, labels = check_nms(boxes, scores, iou, labels, columns=columns)
    windows, tiles = np.asarray(windows, np.float32), small_integers("tiles", tiles, len(scores))
    if windows.ndim != 2 or windows.shape[1] != 4:
        raise UsageError(f"windows: expected shape (T, 4), got {windows.shape}")
    if len(tiles) and not 0 <= tiles.min() <= tiles.max() < len(windows):
        raise UsageError(
            f"tiles: expected rows of windows, 0 to {len(windows) - 1}, got {tiles.min()} to {tiles.max()}"
        )
    if not 0.0 <= iof <= 1.0:
        raise UsageError(f"iof should be between 0 and 1, got {iof}")
    with np.errstate(all="ignore"):
        rotated, bounds = (_upright(boxes), boxes) if columns == 4 else (boxes, _bounds(boxes))
    return rotated, scores, labels, tiles, _cut(bounds, tiles, windows)


def _upright(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    half = np.float32(0.5)
    centre, size = half * (boxes[:, :2] + boxes[:, 2:]), boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([centre, size, np.zeros((len(boxes), 1), np.float32)], axis=1)


def _bounds(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    prepared = prepare(boxes)
    extent = np.stack([prepared.extent_x, prepared.extent_y], axis=1)
    return np.concatenate([boxes[:, :2] - extent, boxes[:, :2] + extent], axis=1)


def _cut(bounds: NDArray[np.float32], tiles: NDArray[np.int64], windows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Say, 1 or 0, which boxes come near to a border of their window that is not one of the image."""
    if not len(bounds):
        return np.zeros(0, np.uint8)
    own = windows[tiles]
    near = np.concatenate([bounds[:, :2] <= own[:, :2] + CUT_MARGIN, bounds[:, 2:] >= own[:, 2:] - CUT_MARGIN], axis=1)
    inside = np.concatenate([own[:, :2] > windows[:, :2].min(0), own[:, 2:] < windows[:, 2:].max(0)], axis=1)
    return np.ascontiguousarray((near & inside).any(axis=1), np.uint8)
