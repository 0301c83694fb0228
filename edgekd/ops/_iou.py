"""Overlap of every box with every other through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import geometry
from ..errors import UsageError
from ..native import METRICS, kernels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray


def iou(a: ArrayLike, b: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return `(N, M)` float32 intersection over union of upright boxes; see `edgekd.geometry.iou`.

    Args:
        a: `(N, 4)` float32 xyxy, pixels.
        b: `(M, 4)` likewise.
        out: `(N, M)` float32, C-contiguous, to be filled; None: a new array.

    Raises:
        UsageError: wrong shapes, or `out` overlaps `a` or `b`.
    """
    first, second = _rows(a, 4, np.float32), _rows(b, 4, np.float32)
    table = _table(out, first, second, np.float32)
    if not kernels.instructions():
        table[:] = geometry.iou(first, second)
        return table
    _call("iou", first, second, (), table)
    return table


def iou_rotated(
    a: ArrayLike,
    b: ArrayLike,
    *,
    metric: str = "iou",
    dtype: DTypeLike = np.float32,
    out: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.floating[Any]]:
    """Return `(N, M)` overlaps of rotated boxes; see `edgekd.geometry.iou_rotated`.

    Args:
        a: `(N, 5)` xywhr: centre x, centre y, w, h in pixels, r in radians clockwise on the image.
        b: `(M, 5)` likewise.
        metric: "iou", exact; or "probiou", of the boxes as Gaussians, float32 only.
        dtype: float32, as suppression computes it; or float64, for evaluation.
        out: `(N, M)` of that type, C-contiguous, to be filled; None: a new array.

    Raises:
        UsageError: wrong shapes, metric or dtype, or `out` overlaps `a` or `b`.
    """
    kind = geometry.check_pairs(metric, dtype)
    first, second = _rows(a, 5, kind), _rows(b, 5, kind)
    table = _table(out, first, second, kind)
    if not kernels.instructions():
        table[:] = geometry.iou_rotated(first, second, metric=metric, dtype=kind)
    elif table.dtype == np.float64:
        _call("iou_rotated_float64", first, second, (), table)
    else:
        _call("iou_rotated", first, second, (METRICS[metric],), table)
    return table


def _rows(boxes: ArrayLike, columns: int, dtype: DTypeLike) -> NDArray[Any]:
    rows = np.ascontiguousarray(boxes, dtype)
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise UsageError(f"boxes: expected shape (N, {columns}), got {rows.shape}")
    return rows


def _table(out: NDArray[Any] | None, a: NDArray[Any], b: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    n, m = len(a), len(b)
    if out is None:
        return np.empty((n, m), dtype)
    fits = out.shape == (n, m) and out.dtype == np.dtype(dtype)
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        expected = f"a writeable C-contiguous ({n}, {m}) {np.dtype(dtype)} array"
        raise UsageError(f"out: expected {expected}, got {out.shape} {out.dtype}")
    if np.may_share_memory(out, a) or np.may_share_memory(out, b):
        raise UsageError("out: it overlaps the boxes in memory")
    return out


def _call(name: str, a: NDArray[Any], b: NDArray[Any], how: tuple[int, ...], table: NDArray[Any]) -> None:
    lib, pointer = kernels.lib, kernels.pointer
    kind = "double[]" if table.dtype == np.float64 else "float[]"
    status = getattr(lib, f"edgekd_{name}")(
        pointer(a, kind), len(a), pointer(b, kind), len(b), *how, pointer(table, kind),
        kernels.instructions(), *kernels.workspace(getattr(lib, f"edgekd_{name}_workspace")(len(b))),
    )  # fmt: skip
    kernels.check(status, name)
