"""Suppression: candidates, exact greedy NMS by label, and both in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .boxes import areas, pairwise
from .rotated import check_metric, overlap, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    iou: float,
    labels: NDArray[np.int64] | None = None,
    *,
    images: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Suppress greedily and exactly: a box goes if a better kept one of its label overlaps it more than `iou`.

    Args:
        boxes: `(N, 4)` float32 xyxy.
        scores: `(N,)` float32; higher is better, ties go to the lower index.
        iou: threshold in [0, 1]; strict: a pair at exactly this overlap stays.
        labels: `(N,)` int64 in the range of int32; boxes of different labels never meet. None: all of one.
        images: `(N,)` int64, which image of a batch a box is of: those of two never meet either. None: all of one.

    Returns:
        `(K,)` int64 indices of the kept boxes, best score first. Boxes or scores that do not count are never kept.

    Raises:
        UsageError: wrong shapes, labels or images that are not whole, or `iou` outside [0, 1].
    """
    boxes, scores, labels = check_nms(boxes, scores, iou, labels, images)
    area = areas(boxes)

    def overlaps(i: int) -> NDArray[Any]:
        return pairwise(boxes[i, None], area[i, None], boxes, area).ravel()

    return _greedy(overlaps, area > 0, scores, iou, labels)


def nms_rotated(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    iou: float,
    labels: NDArray[np.int64] | None = None,
    *,
    images: NDArray[np.int64] | None = None,
    metric: str = "iou",
) -> NDArray[np.int64]:
    """Suppress rotated boxes greedily and exactly, as `nms` does upright ones.

    Args:
        boxes: `(N, 5)` float32 xywhr.
        scores: `(N,)` float32; higher is better, ties go to the lower index.
        iou: threshold in [0, 1] on what `metric` says; strict.
        labels: `(N,)` int64 in the range of int32; boxes of different labels never meet. None: all of one.
        images: `(N,)` int64, which image of a batch a box is of: those of two never meet either. None: all of one.
        metric: "iou" or "probiou", see `iou_rotated`.

    Returns:
        `(K,)` int64 indices of the kept boxes, best score first. Boxes or scores that do not count are never kept.

    Raises:
        UsageError: wrong shapes, labels or images that are not whole, no such metric, or `iou` outside [0, 1].
    """
    check_metric(metric)
    boxes, scores, labels = check_nms(boxes, scores, iou, labels, images, columns=5)
    prepared = prepare(boxes)

    def overlaps(i: int) -> NDArray[Any]:
        return overlap(prepared.pick(np.s_[i : i + 1]), prepared, metric)

    return _greedy(overlaps, prepared.area > 0, scores, iou, labels)


def _greedy(
    overlaps: Callable[[int], NDArray[Any]],
    counts: NDArray[np.bool_],
    scores: NDArray[np.float32],
    threshold: float,
    labels: NDArray[np.int64],
) -> NDArray[np.int64]:
    alive = counts & np.isfinite(scores)
    keep = []
    for i in np.argsort(-scores, kind="stable"):
        if alive[i]:
            keep.append(i)
            alive[i] = False
            alive &= ~((overlaps(i) > np.float32(threshold)) & (labels == labels[i]))
    return np.array(keep, np.int64)


def check_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    iou: float,
    labels: ArrayLike | None,
    images: ArrayLike | None = None,
    *,
    columns: int = 4,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return the arrays of `nms` (5 columns: `nms_rotated`) as float32, float32, int64, or raise UsageError.

    With `images`, the labels returned number the pairs of image and label.
    """
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores = np.ascontiguousarray(scores, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != columns or scores.shape != (len(boxes),):
        raise UsageError(f"expected boxes (N, {columns}) and scores (N,), got {boxes.shape} and {scores.shape}")
    if not 0.0 <= iou <= 1.0:
        raise UsageError(f"iou should be between 0 and 1, got {iou}")
    classes = small_integers("labels", labels, len(boxes))
    if images is None:
        return boxes, scores, classes
    pairs = small_integers("images", images, len(boxes)) * (1 << 32) + classes
    return boxes, scores, np.unique(pairs, return_inverse=True)[1].astype(np.int64)


def small_integers(name: str, values: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Return `(n,)` whole numbers of 32 bits, in any type, as int64; None: zeros. UsageError for anything else."""
    given = np.zeros(n, np.int64) if values is None else np.asarray(values)
    if given.shape != (n,):
        raise UsageError(f"{name}: expected shape ({n},), got {given.shape}")
    if given.dtype.kind not in "biuf":
        raise UsageError(f"{name}: expected whole numbers, got {given.dtype}")
    # Before the conversion, which makes some small number of one that does not fit.
    lowest, highest = (given.min().item(), given.max().item()) if n else (0, 0)
    if not -(1 << 31) <= lowest <= highest < 1 << 31:
        raise UsageError(f"{name}: expected values of 32 bits, got {lowest} to {highest}")
    numbers = np.ascontiguousarray(given, np.int64)
    if given.dtype.kind == "f" and (numbers != given).any():
        raise UsageError(f"{name}: expected whole numbers, got {given[numbers != given][0]}")
    return numbers


def candidates(
    scores: NDArray[np.float32],
    conf: float,
    limit: int,
    classes: Sequence[int] | None = None,
    *,
    every_class: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pick the rows whose best class scores more than `conf`, best first; or each class of a row that does.

    Args:
        scores: `(N, C)` float32; values that are not finite are as if absent.
        conf: threshold; strict.
        limit: most candidates, at least 1; those with the best scores stay.
        classes: only these columns compete; None: all.
        every_class: a row is a candidate once for each class over `conf`, as COCO's evaluation likes it; by default
            once, for its best class.

    Returns:
        `(K,)` each: row int64, label int64 (the best class, the lowest on a tie), score float32; by score, ties by row,
        then by label.

    Raises:
        UsageError: a wrong shape, limit or class.
    """
    scores, allowed = check_candidates(scores, conf, limit, classes)
    if allowed is None:
        allowed = np.ones(scores.shape[1], np.uint8)
    if not allowed.any():
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    usable = np.where(np.isfinite(scores) & (allowed != 0), scores, -np.inf)
    if every_class:
        rows, labels = np.nonzero((usable > np.float32(conf)) & np.isfinite(usable))
    else:
        best = usable.max(axis=1)
        rows = np.flatnonzero((best > np.float32(conf)) & np.isfinite(best))
        labels = usable[rows].argmax(axis=1)
    best = usable[rows, labels]
    order = np.argsort(-best, kind="stable")[:limit]
    return rows[order].astype(np.int64), labels[order].astype(np.int64), best[order].astype(np.float32)


def check_candidates(
    scores: ArrayLike, conf: float, limit: int, classes: Sequence[int] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    """Return the scores as C-contiguous float32 and the `(C,)` mask of classes (None: all), or raise UsageError."""
    scores = np.ascontiguousarray(scores, np.float32)
    if scores.ndim != 2:
        raise UsageError(f"scores: expected shape (N, C), got {scores.shape}")
    if np.isnan(conf):
        raise UsageError("conf should be a number, got NaN")
    if limit < 1:
        raise UsageError(f"limit should be at least 1, got {limit}")
    if classes is None:
        return scores, None
    allowed = np.zeros(scores.shape[1], np.uint8)
    for label in classes:
        # A mask of truth values would index all classes, or none.
        whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
        if not whole or not 0 <= label < len(allowed):
            raise UsageError(f"no class {label}; possible: 0 to {len(allowed) - 1}")
        allowed[label] = 1
    return scores, allowed


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    conf: float,
    iou: float,
    max_det: int,
    max_candidates: int,
    classes: Sequence[int] | None = None,
    metric: str = "iou",
    every_class: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Turn a network's raw output into detections: `candidates`, then suppression by label, then the first `max_det`.

    Args:
        boxes: `(N, 4)` float32 xyxy, or `(N, 5)` xywhr.
        scores: `(N, C)` float32.
        conf: see `candidates`.
        iou: see `nms`.
        max_det: most detections, at least 1.
        max_candidates: most rows that reach the suppression, at least 1.
        classes: only these; None: all.
        metric: "iou", or "probiou" for rotated boxes, see `iou_rotated`.
        every_class: see `candidates`.

    Returns:
        boxes `(K, 4)` or `(K, 5)` float32, scores `(K,)` float32, labels `(K,)` int64; best score first.

    Raises:
        UsageError: wrong shapes or values.
    """
    check_suppress(boxes, scores, iou, max_det, metric)
    rows, labels, best = candidates(scores, conf, max_candidates, classes, every_class=every_class)
    picked = np.asarray(boxes, np.float32)[rows]
    if picked.shape[1] == 5:
        keep = nms_rotated(picked, best, iou, labels, metric=metric)[:max_det]
    else:
        keep = nms(picked, best, iou, labels)[:max_det]
    return picked[keep], best[keep], labels[keep]


def check_suppress(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float, max_det: int, metric: str = "iou"
) -> None:
    """Raise UsageError unless the shapes and the metric fit each other, `iou` is in [0, 1] and `max_det` at least 1."""
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5) or scores.ndim != 2 or len(scores) != len(boxes):
        raise UsageError(f"expected boxes (N, 4) or (N, 5) and scores (N, C), got {boxes.shape} and {scores.shape}")
    check_metric(metric)
    if metric != "iou" and boxes.shape[1] == 4:
        raise UsageError(f"metric {metric!r} is for rotated boxes (N, 5), got {boxes.shape}; possible here: iou")
    if not 0.0 <= iou <= 1.0:
        raise UsageError(f"iou should be between 0 and 1, got {iou}")
    if max_det < 1:
        raise UsageError(f"max_det should be at least 1, got {max_det}")
