"""Candidates, NMS and suppress through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import geometry
from ..native import kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def candidates(
    scores: NDArray[np.float32], conf: float, limit: int, classes: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pick the rows whose best class scores more than `conf`, best first; see `edgekd.geometry.candidates`.

    Args:
        scores: `(N, C)` float32; values that are not finite are as if absent.
        conf: threshold; strict.
        limit: most rows, at least 1; those with the best scores stay.
        classes: only these columns compete; None: all.

    Returns:
        `(K,)` each: row int64, label int64 (the lowest on a tie), score float32; by score, ties by row.

    Raises:
        UsageError: a wrong shape, limit or class.
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.candidates(scores, conf, limit, classes)
    scores, allowed = geometry.check_candidates(scores, conf, limit, classes)
    most = min(limit, len(scores))
    rows, labels, best = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.float32)
    count = kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    status = lib.edgekd_candidates(
        pointer(scores, "float[]"), *scores.shape, conf, limit, pointer(allowed, "uint8_t[]"),
        pointer(rows, "int64_t[]"), pointer(labels, "int64_t[]"), pointer(best, "float[]"), count,
        instructions, *kernels.workspace(lib.edgekd_candidates_workspace(len(scores))),
    )  # fmt: skip
    kernels.check(status, "candidates")
    return rows[: count[0]].copy(), labels[: count[0]].copy(), best[: count[0]].copy()


def nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float, labels: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Suppress greedily and exactly, by label, strict `>`, ties by index; see `edgekd.geometry.nms`.

    Args:
        boxes: `(N, 4)` float32 xyxy.
        scores: `(N,)` float32; higher is better.
        iou: threshold in [0, 1].
        labels: `(N,)` int64 in the range of int32; None: all of one.

    Returns:
        `(K,)` int64 indices of the kept boxes, best score first.

    Raises:
        UsageError: wrong shapes, or `iou` outside [0, 1].
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.nms(boxes, scores, iou, labels)
    boxes, scores, classes = geometry.check_nms(boxes, scores, iou, labels)
    keep = np.empty(len(boxes), np.int64)
    count = kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    status = lib.edgekd_nms(
        pointer(boxes, "float[]"), pointer(scores, "float[]"), pointer(classes, "int64_t[]"), len(boxes), iou,
        max(len(boxes), 1), pointer(keep, "int64_t[]"), count,
        instructions, *kernels.workspace(lib.edgekd_nms_workspace(len(boxes))),
    )  # fmt: skip
    kernels.check(status, "nms")
    return keep[: count[0]].copy()


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    conf: float,
    iou: float,
    max_det: int,
    max_candidates: int,
    classes: Sequence[int] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Turn a network's raw output into detections in one call; see `edgekd.geometry.suppress`.

    Args:
        boxes: `(N, 4)` float32 xyxy.
        scores: `(N, C)` float32.
        conf: see `candidates`.
        iou: see `nms`.
        max_det: most detections, at least 1.
        max_candidates: most rows that reach the suppression, at least 1.
        classes: only these; None: all.

    Returns:
        boxes `(K, 4)` float32, scores `(K,)` float32, labels `(K,)` int64; best score first.

    Raises:
        UsageError: wrong shapes or values.
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.suppress(
            boxes, scores, conf=conf, iou=iou, max_det=max_det, max_candidates=max_candidates, classes=classes
        )
    geometry.check_suppress(boxes, scores, iou, max_det)
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores, allowed = geometry.check_candidates(scores, conf, max_candidates, classes)
    most = min(max_det, len(scores))
    kept, best, labels = np.empty((most, 4), np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    count = kernels.ffi.new("int64_t *")
    pointer, lib = kernels.pointer, kernels.lib
    status = lib.edgekd_suppress(
        pointer(boxes, "float[]"), pointer(scores, "float[]"), *scores.shape, conf, iou, max_candidates, max_det,
        pointer(allowed, "uint8_t[]"), pointer(kept, "float[]"), pointer(best, "float[]"), pointer(labels, "int64_t[]"),
        count, instructions, *kernels.workspace(lib.edgekd_suppress_workspace(len(scores), max_candidates)),
    )  # fmt: skip
    kernels.check(status, "suppress")
    return kept[: count[0]].copy(), best[: count[0]].copy(), labels[: count[0]].copy()
