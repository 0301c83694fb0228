"""What runs around a network, NumPy in and NumPy out: letterbox, candidates, suppression, anomaly regions.

The semantics, to the bit, are those of `edgekd.geometry`, which also serves where the kernels were not compiled: then
one line on the "edgekd" logger says so at the first call. All functions may be called from any number of threads; the
compiled ones release the GIL, and take no memory in steady state but the arrays that they return.
"""

from __future__ import annotations

from ..geometry import Placement, Regions
from ..native import IMPLEMENTATIONS, available, implementation, select
from ._letterbox import letterbox
from ._regions import anomaly_regions
from ._suppression import candidates, nms, suppress

__all__ = [
    "IMPLEMENTATIONS",
    "Placement",
    "Regions",
    "anomaly_regions",
    "available",
    "candidates",
    "implementation",
    "letterbox",
    "nms",
    "select",
    "suppress",
]
