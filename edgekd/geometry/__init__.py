"""The reference in plain NumPy: boxes, letterbox, suppression, anomaly regions. The kernels give the same bits, faster.

Conventions, said once:

- Pixels: x grows to the right, y grows *down*. A box's coordinates are continuous: pixel `i` covers `[i, i + 1)`.
- `xyxy (N, 4)`: left, top, right, bottom. `xywhr (N, 5)`: centre x, centre y, w, h, r; `r` is the angle of the w-edge
  in radians, *clockwise on the image*, long edge w >= h, in [-pi/2, pi/2) (le90). `corners (N, 4, 2)`: clockwise too.
- A box counts if its width, height and area (float32) are positive and finite; one that does not is never selected and
  overlaps nothing. A rotated box needs a finite centre too and an angle of at most 2**20; its sides may come in either
  order. A score counts if it is finite.

The letterbox is defined in integers, so that every implementation gives the same pixels: see `taps`,
`value_table` and `letterbox`; so is the decoding of camera frames: see `yuv_to_rgb`.
"""

from __future__ import annotations

from .boxes import areas, box_distances, iou, xywhr_to_corners, xyxy_to_corners
from .frames import PIXELS, check_frame, decode_frame, yuv_to_rgb
from .letterbox import (
    DTYPES,
    LAYOUTS,
    MAX_SIDE,
    Placement,
    canvas,
    check_reuse,
    check_values,
    letterbox,
    place,
    resize,
    taps,
    value_table,
)
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
from .rotated import METRICS, check_metric, check_pairs, iou_rotated
from .suppression import candidates, check_candidates, check_nms, check_suppress, nms, nms_rotated, suppress
from .tiles import check_merge, merge_tiles, windows

__all__ = [
    "DTYPES",
    "LAYOUTS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MAX_SIGMA",
    "METRICS",
    "PIXELS",
    "Placement",
    "Regions",
    "anomaly_regions",
    "areas",
    "blur",
    "box_distances",
    "candidates",
    "canvas",
    "check_candidates",
    "check_frame",
    "check_merge",
    "check_metric",
    "check_nms",
    "check_pairs",
    "check_regions",
    "check_reuse",
    "check_suppress",
    "check_values",
    "decode_frame",
    "gaussian",
    "iou",
    "iou_rotated",
    "label",
    "letterbox",
    "merge_tiles",
    "nms",
    "nms_rotated",
    "place",
    "region_arrays",
    "resize",
    "resize_map",
    "suppress",
    "taps",
    "value_table",
    "windows",
    "xywhr_to_corners",
    "xyxy_to_corners",
    "yuv_to_rgb",
]
