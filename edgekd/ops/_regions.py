"""Anomaly regions through the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import geometry
from ..native import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..geometry import Regions


def anomaly_regions(
    raw: NDArray[np.float32],
    height: int,
    width: int,
    *,
    sigma: float = 4.0,
    threshold: float,
    min_area: int = 1,
    max_regions: int = 100,
    out: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None,
) -> Regions:
    """Blur, resize, cut and measure an anomaly map; see `edgekd.geometry.anomaly_regions` for all but speed.

    Args:
        raw: `(h, w)` float32; copied first if it is not C-contiguous.
        height: of the image, pixels.
        width: of the image, pixels; `height * width` at most 2**32.
        sigma: of the blur, in pixels of the raw map, at most 4096; below 0.125: no blur.
        threshold: strict; may be infinite.
        min_area: least pixels of a region; a smaller one leaves the mask too.
        max_regions: most regions, at least 1; those with the best peaks stay. The mask keeps all.
        out: the map and the mask to be filled, `(height, width)` float32 and bool, C-contiguous; None: new ones.

    Returns:
        The regions by peak, ties by their first pixel in raster order.

    Raises:
        UsageError: a wrong shape, dtype or value, or `out` overlaps `raw`.
    """
    instructions = kernels.instructions()
    if not instructions:
        return geometry.anomaly_regions(
            raw, height, width, sigma=sigma, threshold=threshold, min_area=min_area, max_regions=max_regions, out=out
        )
    raw, weights, level = geometry.check_regions(raw, height, width, sigma, threshold, min_area, max_regions)
    values, mask = geometry.region_arrays(raw, height, width, out)
    height, width = values.shape  # small integers of NumPy's would overflow in the products below
    most = min(max_regions, ((height + 1) // 2) * ((width + 1) // 2))  # no image has more
    boxes, areas, peaks = np.empty((most, 4), np.float32), np.empty(most, np.int64), np.empty(most, np.float32)
    count = kernels.ffi.new("int64_t *")
    pointer, lib, radius = kernels.pointer, kernels.lib, len(weights) - 1
    status = lib.edgekd_regions(
        pointer(raw, "float[]"), *raw.shape, pointer(weights, "float[]"), radius,
        pointer(values, "float[]"), pointer(mask.view(np.uint8), "uint8_t[]"), height, width, float(level),
        min(min_area, height * width + 1), most, pointer(boxes, "float[]"), pointer(areas, "int64_t[]"),
        pointer(peaks, "float[]"), count, instructions,
        *kernels.workspace(lib.edgekd_regions_workspace(raw.shape[1], radius, height, width)),
    )  # fmt: skip
    kernels.check(status, "anomaly regions")
    found = count[0]
    return geometry.Regions(values, mask, boxes[:found].copy(), areas[:found].copy(), peaks[:found].copy())
