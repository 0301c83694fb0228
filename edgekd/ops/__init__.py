"""What runs around a network, NumPy in and NumPy out: letterbox, candidates, suppression, tiles, anomaly regions.

The semantics, to the bit, are those of `edgekd.geometry`, which also serves where the kernels were not compiled: then
one line on the "edgekd" logger says so at the first call. All functions may be called from any number of threads; the
compiled ones release the GIL, and take no memory in steady state but the arrays that they return.
"""

from __future__ import annotations

from ..geometry import Placement, Regions
from ..native import IMPLEMENTATIONS, available, implementation, select
from ._iou import iou, iou_rotated
from ._letterbox import letterbox
from ._regions import anomaly_regions
from ._suppression import candidates, nms, nms_rotated, suppress
from ._tiles import merge_tiles

__all__ = [
    "IMPLEMENTATIONS",
    "Placement",
    "Regions",
    "anomaly_regions",
    "available",
    "candidates",
    "implementation",
    "iou",
    "iou_rotated",
    "letterbox",
    "merge_tiles",
    "nms",
    "nms_rotated",
    "select",
    "suppress",
]
