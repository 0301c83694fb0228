"""The AUPRO of RD4AD's code: image by image, on 200 thresholds. For comparison with published figures only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLDS = 200  # equally spaced from the least score of the image up, its greatest not among them


def overlap_of_image(
    values: NDArray[np.floating], labels: NDArray[np.integer], defects: int, limit: float
) -> float | None:
    """Return the area under the per-region overlap of one image, as the code of RD4AD (Deng and Li, CVPR 2022) has it.

    At each threshold, the rate is the share of *this image's* normal pixels above it, the overlap the mean over its
    defects of their share above it. Points whose rate reaches the limit are dropped, the rates of the others divided by
    the greatest of them, and the area taken by trapezoids. So images with different limits are averaged, what lies
    left of the first point is not counted, and a map with an outlier has few points: MVTec AD's authors have one
    threshold for all images, interpolate at the limit, and divide by it.

    Where the code has no number this one goes on: no rate above 0 leaves a vertical line, whose upper end counts; no
    point at all is 0.

    Args:
        values: `(h, w)`, float32 or float64.
        labels: `(h, w)`, 0 of a normal pixel, 1 to `defects` of the defects'.
        defects: at least one.
        limit: of the false-positive rate.

    Returns:
        In [0, 1]; None without a normal pixel, or without thresholds for want of finite scores.
    """
    inside = labels > 0
    normal = np.sort(values[~inside])
    low, high = float(values.min()), float(values.max())
    if not len(normal) or not np.isfinite(high - low):
        return None
    levels = low + (high - low) * np.arange(THRESHOLDS)[::-1] / THRESHOLDS  # falling, so that rates rise
    rates = (len(normal) - np.searchsorted(normal, levels, side="right")) / len(normal)
    part = labels[inside] - 1
    scores, shares = values[inside], 1 / (np.bincount(part)[part] * defects)
    order = np.argsort(scores, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(shares[order])])
    overlaps = below[-1] - below[np.searchsorted(scores[order], levels, side="right")]
    rates, overlaps = rates[rates < limit], overlaps[rates < limit]
    if not len(rates):
        return 0.0
    if not rates[-1]:
        return float(overlaps.max())
    return float((np.diff(rates / rates[-1]) * (overlaps[1:] + overlaps[:-1])).sum() / 2)
