"""The reference in plain NumPy: boxes, letterbox, suppression, anomaly regions. The kernels give the same bits, faster.

Conventions, said once:

- Pixels: x grows to the right, y grows *down*. A box's coordinates are continuous: pixel `i` covers `[i, i + 1)`.
- `xyxy (N, 4)`: left, top, right, bottom. `xywhr (N, 5)`: centre x, centre y, w, h, r; `r` is the angle of the w-edge
  in radians, *clockwise on the image*, long edge w >= h, in [-pi/2, pi/2) (le90). `corners (N, 4, 2)`: clockwise too.
- A box counts if its width, height and area (float32) are positive and finite; one that does not is never selected and
  overlaps nothing. A score counts if it is finite.

The letterbox is defined in integers, so that every implementation gives the same pixels: see `taps` and `letterbox`.
"""

from __future__ import annotations

from .boxes import areas, iou, xywhr_to_corners, xyxy_to_corners
from .letterbox import MAX_SIDE, Placement, canvas, check_letterbox, letterbox, place, resize, taps
from .regions import (
    MAX_PIXELS,
    MAX_SIGMA,
    Regions,
    anomaly_regions,
    blur,
    check_regions,
    gaussian,
    label,
    region_arrays,
    resize_map,
)
from .suppression import candidates, check_candidates, check_nms, check_suppress, nms, suppress

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "MAX_SIGMA",
    "Placement",
    "Regions",
    "anomaly_regions",
    "areas",
    "blur",
    "candidates",
    "canvas",
    "check_candidates",
    "check_letterbox",
    "check_nms",
    "check_regions",
    "check_suppress",
    "gaussian",
    "iou",
    "label",
    "letterbox",
    "nms",
    "place",
    "region_arrays",
    "resize",
    "resize_map",
    "suppress",
    "taps",
    "xywhr_to_corners",
    "xyxy_to_corners",
]
