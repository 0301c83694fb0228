"""Candidates, NMS and suppress through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import geometry
from ..errors import UsageError
from ..native import METRICS, kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def candidates(
    scores: NDArray[np.float32],
    conf: float,
    limit: int,
    classes: Sequence[int] | None = None,
    *,
    every_class: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pick the rows whose best class scores more than `conf`, best first; see `edgekd.geometry.candidates`.

    Args:
        scores: `(N, C)` float32; values that are not finite are as if absent.
        conf: threshold; strict.
        limit: most candidates, at least 1; those with the best scores stay.
        classes: only these columns compete; None: all.
        every_class: a row is a candidate once for each class over `conf`; by default once, for its best class.

    Returns:
        `(K,)` each: row int64, label int64 (the best class, the lowest on a tie), score float32; by score, ties by row,
        then by label.

    Raises:
        UsageError: a wrong shape, limit or class.
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.candidates(scores, conf, limit, classes, every_class=every_class)
    scores, allowed = geometry.check_candidates(scores, conf, limit, classes)
    most = min(limit, scores.size if every_class else len(scores))
    limit = max(most, 1)  # any number is a limit, and C's end at 64 bits
    rows, labels, best = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.float32)
    count = kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    status = lib.edgekd_candidates(
        pointer(scores, "float[]"), *scores.shape, conf, every_class, limit, pointer(allowed, "uint8_t[]"),
        pointer(rows, "int64_t[]"), pointer(labels, "int64_t[]"), pointer(best, "float[]"), count,
        instructions, *kernels.workspace(lib.edgekd_candidates_workspace(*scores.shape, every_class, limit)),
    )  # fmt: skip
    kernels.check(status, "candidates")
    return rows[: count[0]].copy(), labels[: count[0]].copy(), best[: count[0]].copy()


def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    iou: float,
    labels: NDArray[np.int64] | None = None,
    *,
    images: NDArray[np.int64] | None = None,
    out: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Suppress greedily and exactly, by label, strict `>`, ties by index; see `edgekd.geometry.nms`.

    Args:
        boxes: `(N, 4)` float32 xyxy.
        scores: `(N,)` float32; higher is better.
        iou: threshold in [0, 1].
        labels: `(N,)` int64 in the range of int32; None: all of one.
        images: `(N,)` int64, which image of a batch a box is of: those of two never meet. None: all of one.
        out: int64, C-contiguous, at least N, to hold the result; None: a new array.

    Returns:
        `(K,)` int64 indices of the kept boxes, best score first; a view of `out` if that was given.

    Raises:
        UsageError: wrong shapes, labels or images that are not whole, or `iou` outside [0, 1].
    """
    if not kernels.instructions():
        return _into(out, geometry.nms(boxes, scores, iou, labels, images=images), len(boxes))
    boxes, scores, classes = geometry.check_nms(boxes, scores, iou, labels, images)
    return _keep("nms", boxes, scores, classes, (iou,), out)


def nms_rotated(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    iou: float,
    labels: NDArray[np.int64] | None = None,
    *,
    images: NDArray[np.int64] | None = None,
    metric: str = "iou",
    out: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Suppress rotated boxes greedily and exactly, by label, strict `>`, ties by index.

    The cost follows the overlaps, not N squared. See `edgekd.geometry.nms_rotated`.

    Args:
        boxes: `(N, 5)` float32: centre x, centre y, w, h, r in radians clockwise on the image.
        scores: `(N,)` float32; higher is better.
        iou: threshold in [0, 1].
        labels: `(N,)` int64 in the range of int32; None: all of one.
        images: `(N,)` int64, which image of a batch a box is of: those of two never meet. None: all of one.
        metric: "iou", exact; or "probiou", of the boxes as Gaussians (see `edgekd.geometry.iou_rotated`).
        out: int64, C-contiguous, at least N, to hold the result; None: a new array.

    Returns:
        `(K,)` int64 indices of the kept boxes, best score first; a view of `out` if that was given.

    Raises:
        UsageError: wrong shapes, labels or images that are not whole, no such metric, or `iou` outside [0, 1].
    """
    if not kernels.instructions():
        return _into(out, geometry.nms_rotated(boxes, scores, iou, labels, images=images, metric=metric), len(boxes))
    geometry.check_metric(metric)
    boxes, scores, classes = geometry.check_nms(boxes, scores, iou, labels, images, columns=5)
    return _keep("nms_rotated", boxes, scores, classes, (iou, METRICS[metric]), out)


def _keep(
    name: str,
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    how: tuple[float, ...],
    out: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    n = len(boxes)
    keep = np.empty(n, np.int64) if out is None else _room(out, n)
    count = kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    status = getattr(lib, f"edgekd_{name}")(
        pointer(boxes, "float[]"), pointer(scores, "float[]"), pointer(classes, "int64_t[]"), n, *how,
        max(n, 1), pointer(keep, "int64_t[]"), count,
        kernels.instructions(), *kernels.workspace(getattr(lib, f"edgekd_{name}_workspace")(n)),
    )  # fmt: skip
    kernels.check(status, name)
    return keep[: count[0]].copy() if out is None else keep[: count[0]]


def _into(out: NDArray[np.int64] | None, keep: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return the reference's result in the caller's memory, if there is any."""
    if out is None:
        return keep
    room = _room(out, n)[: len(keep)]
    room[:] = keep
    return room


def _room(out: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    fits = out.ndim == 1 and len(out) >= n and out.dtype == np.int64
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        raise UsageError(
            f"out: expected a writeable C-contiguous int64 array of at least {n}, got {out.shape} {out.dtype}"
        )
    return out


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
    """Turn a network's raw output into detections in one call; see `edgekd.geometry.suppress`.

    Args:
        boxes: `(N, 4)` float32 xyxy, or `(N, 5)` xywhr.
        scores: `(N, C)` float32.
        conf: see `candidates`.
        iou: see `nms`.
        max_det: most detections, at least 1.
        max_candidates: most rows that reach the suppression, at least 1.
        classes: only these; None: all.
        metric: "iou", or "probiou" for rotated boxes.
        every_class: see `candidates`.

    Returns:
        boxes `(K, 4)` or `(K, 5)` float32, scores `(K,)` float32, labels `(K,)` int64; best score first.

    Raises:
        UsageError: wrong shapes or values.
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.suppress(
            boxes,
            scores,
            conf=conf,
            iou=iou,
            max_det=max_det,
            max_candidates=max_candidates,
            classes=classes,
            metric=metric,
            every_class=every_class,
        )
    geometry.check_suppress(boxes, scores, iou, max_det, metric)
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores, allowed = geometry.check_candidates(scores, conf, max_candidates, classes)
    most = min(max_det, scores.size if every_class else len(scores))
    max_candidates, max_det = min(max_candidates, max(scores.size, 1)), max(most, 1)  # C's numbers end at 64 bits
    columns = boxes.shape[1]
    kept, best, labels = np.empty((most, columns), np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    count = kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    workspace = lib.edgekd_suppress_workspace(len(scores), columns, scores.shape[1], every_class, max_candidates)
    status = lib.edgekd_suppress(
        pointer(boxes, "float[]"), columns, pointer(scores, "float[]"), *scores.shape, conf, every_class,
        iou, METRICS[metric], max_candidates, max_det, pointer(allowed, "uint8_t[]"),
        pointer(kept, "float[]"), pointer(best, "float[]"), pointer(labels, "int64_t[]"), count,
        instructions, *kernels.workspace(workspace),
    )  # fmt: skip
    kernels.check(status, "suppress")
    return kept[: count[0]].copy(), best[: count[0]].copy(), labels[: count[0]].copy()
