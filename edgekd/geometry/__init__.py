"""The reference: boxes, letterbox, candidates and suppression in plain NumPy. The kernels give the same bits, faster.

Conventions, said once:

- Pixels: x grows to the right, y grows *down*. A box's coordinates are continuous: pixel `i` covers `[i, i + 1)`.
- `xyxy (N, 4)`: left, top, right, bottom. `xywhr (N, 5)`: centre x, centre y, w, h, r; `r` is the angle of the w-edge
  in radians, *clockwise on the image*, long edge w >= h, in [-pi/2, pi/2) (le90). `corners (N, 4, 2)`: clockwise too.
- A box counts if its width, height and area (float32) are positive and finite; one that does not is never selected and
  overlaps nothing. A score counts if it is finite.

The letterbox is defined in integers, so that every implementation gives the same pixels: see `taps`,
`value_table` and `letterbox`; so is the decoding of camera frames: see `yuv_to_rgb`.
"""

from __future__ import annotations

from .boxes import areas, iou, xywhr_to_corners, xyxy_to_corners
from .frames import PIXELS, check_frame, decode_frame, yuv_to_rgb
from .letterbox import (
    DTYPES,
    LAYOUTS,
    MAX_SIDE,
    Placement,
    canvas,
    check_values,
    letterbox,
    place,
    resize,
    taps,
    value_table,
)
from .suppression import candidates, check_candidates, check_nms, check_suppress, nms, suppress

__all__ = [
    "DTYPES",
    "LAYOUTS",
    "MAX_SIDE",
    "PIXELS",
    "Placement",
    "areas",
    "candidates",
    "canvas",
    "check_candidates",
    "check_frame",
    "check_nms",
    "check_suppress",
    "check_values",
    "decode_frame",
    "iou",
    "letterbox",
    "nms",
    "place",
    "resize",
    "suppress",
    "taps",
    "value_table",
    "xywhr_to_corners",
    "xyxy_to_corners",
    "yuv_to_rgb",
]
