"""Anomaly regions: a raw map blurred, resized to the image, cut at a threshold, and taken apart into components."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from .letterbox import COEFFICIENT_BITS, MAX_SIDE, taps

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_SIGMA = 4096.0  # map pixels
MAX_PIXELS = 1 << 32  # of the image; keeps the number of a component inside 32 bits


@dataclass(frozen=True, eq=False)
class Regions:
    """An anomaly map in pixels of the image, and its regions, best peak first.

    Attributes:
        map: `(H, W)` float32, blurred and resized.
        mask: `(H, W)` bool: above the threshold and in a region of enough area.
        boxes: `(K, 4)` float32 xyxy around whole pixels: `[xmin, ymin, xmax + 1, ymax + 1]`.
        areas: `(K,)` int64, pixels.
        peaks: `(K,)` float32, the greatest value of the map in the region; descending.
    """

    map: NDArray[np.float32]
    mask: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    areas: NDArray[np.int64]
    peaks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.peaks)


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
    """Turn a network's raw anomaly map into regions of the image.

    The steps are `blur` with the weights of `gaussian`, `resize_map`, `> float32(threshold)`, and `label`. Values that
    are not finite take part as IEEE 754 says: they spread to what is computed from them, two equal infinities blend to
    NaN, and NaN is never above.

    Args:
        raw: `(h, w)` float32; another type is converted.
        height: of the image, pixels.
        width: of the image, pixels; `height * width` at most 2**32.
        sigma: of the blur, in pixels of the raw map, at most 4096; below 0.125: no blur.
        threshold: strict: a pixel at exactly this value is not above. May be infinite.
        min_area: least pixels of a region; a smaller one leaves the mask too.
        max_regions: most regions, at least 1; those with the best peaks stay. The mask keeps all.
        out: the map and the mask to be filled, `(height, width)` float32 and bool, C-contiguous; None: new ones.

    Returns:
        The regions by peak, ties by their first pixel in raster order.

    Raises:
        UsageError: a wrong shape, dtype or value, or `out` overlaps `raw`.
    """
    raw, weights, level = check_regions(raw, height, width, sigma, threshold, min_area, max_regions)
    values, mask = region_arrays(raw, height, width, out)
    with np.errstate(all="ignore"):
        values[:] = resize_map(blur(raw, weights), *values.shape)
        np.greater(values, level, out=mask)
    labels, count = label(mask)
    boxes, areas, peaks = _measure(labels, count, values)
    kept = np.flatnonzero(areas >= min_area)
    mask &= np.isin(labels, kept + 1)
    best = kept[np.argsort(-peaks[kept], kind="stable")][:max_regions]
    return Regions(values, mask, boxes[best], areas[best], peaks[best])


def gaussian(sigma: float) -> NDArray[np.float32]:
    """Return `(radius + 1,)` float32 weights of a Gaussian, the middle one first; `radius = int(4 sigma + 0.5)`.

    They are computed in float64, divided by their sum (all but the middle one count twice), and rounded once.
    The kernels are handed these weights; across machines they are as equal as NumPy's `exp`.
    """
    sigma = float(sigma)  # a small integer of NumPy's would overflow in the product below
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return np.ones(1, np.float32)
    weights: NDArray[np.float64] = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    return weights.astype(np.float32)


def blur(raw: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur `(h, w)` down its columns, then along its rows, with `weights` from the middle outwards.

    Beyond a border the map is reflected without repeating the border's pixels, again and again if need be (as
    `np.pad(mode="reflect")`). With `x[k]` the value `k` pixels away, each pass computes, from left to right,
    `0 + w[radius] * (x[-radius] + x[radius]) + ... + w[1] * (x[-1] + x[1]) + w[0] * x[0]`: float32 at each step.
    """
    return _blur_down(_blur_down(raw, weights).T, weights).T


def _blur_down(image: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    size, radius = len(image), len(weights) - 1
    padded = image[_reflect(np.arange(-radius, size + radius), size)]
    total = np.zeros_like(image)
    for k in range(radius, 0, -1):
        before, after = padded[radius - k :][:size], padded[radius + k :][:size]
        total += weights[k] * (before + after)
    total += weights[0] * image
    return total


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return where in `0..size - 1` each index falls: 2 1 | 0 1 2 3 | 2 1."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


def resize_map(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Resize `(h, w)` float32 bilinearly with half-pixel centres: along rows, then down columns.

    Each is `first + (second - first) * (weight / 2048)` of `taps`, float32 at each step. It lies between its two values
    if their difference is finite.
    """
    cols, cols_next, weight_x = taps(values.shape[1], width)
    rows, rows_next, weight_y = taps(values.shape[0], height)
    across = _between(values[:, cols], values[:, cols_next], _share(weight_x)[None, :])
    return _between(across[rows], across[rows_next], _share(weight_y)[:, None])


def _between(
    first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    return first + (second - first) * share


def _share(weight: NDArray[np.int64]) -> NDArray[np.float32]:
    return weight.astype(np.float32) / np.float32(1 << COEFFICIENT_BITS)  # exact: 11 bits


def label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Return `(H, W)` int64 with the number of each pixel's 8-connected component, and how many there are.

    Components are 1, 2, ... by their first pixel in raster order; 0: not in the mask. A run of a row joins the runs
    above that it touches.
    """
    parents: list[int] = []

    def root(part: int) -> int:
        while parents[part] != part:
            part = parents[part]
        return part

    runs: list[tuple[int, int, int, int]] = []
    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
        here = []
        for begin, end in edges.tolist():
            touched = {root(part) for left, right, part in above if left <= end and begin <= right}
            first = min(touched, default=len(parents))
            parents.extend([first] * (first == len(parents)))
            for part in touched:
                parents[part] = first
            here.append((begin, end, first))
            runs.append((y, begin, end, first))
        above = here
    numbers = {part: number for number, part in enumerate((p for p in range(len(parents)) if parents[p] == p), 1)}
    labels = np.zeros(mask.shape, np.int64)
    for y, begin, end, part in runs:
        labels[y, begin:end] = numbers[root(part)]
    return labels, len(numbers)


def _measure(
    labels: NDArray[np.int64], count: int, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Return boxes `(count, 4)`, areas and peaks `(count,)` of all components."""
    y, x = np.nonzero(labels)
    part = labels[y, x] - 1
    low, high = np.full((count, 2), MAX_SIDE), np.zeros((count, 2), np.int64)
    points = np.stack([x, y], axis=1)
    np.minimum.at(low, part, points)
    np.maximum.at(high, part, points + 1)
    peaks = np.full(count, -np.inf, np.float32)
    np.maximum.at(peaks, part, values[y, x])  # whichever zero comes first: the blur leaves no -0.0
    return np.concatenate([low, high], axis=1).astype(np.float32), np.bincount(part, minlength=count), peaks


def check_regions(
    raw: ArrayLike, height: int, width: int, sigma: float, threshold: float, min_area: int, max_regions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], np.float32]:
    """Return the map as C-contiguous float32, the blur's weights and the threshold, or raise UsageError."""
    raw = np.ascontiguousarray(raw, np.float32)
    if raw.ndim != 2 or not all(1 <= side <= MAX_SIDE for side in raw.shape):
        raise UsageError(f"anomaly map: expected shape (h, w), sides in 1..{MAX_SIDE}, got {raw.shape}")
    height, width = index(height), index(width)  # small integers of NumPy's would overflow in their product
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE and height * width <= MAX_PIXELS):
        raise UsageError(f"image: sides should be in 1..{MAX_SIDE}, {MAX_PIXELS} pixels at most, got {height}x{width}")
    if not 0.0 <= sigma <= MAX_SIGMA:
        raise UsageError(f"sigma should be between 0 and {MAX_SIGMA:g} map pixels, got {sigma}")
    if np.isnan(threshold):
        raise UsageError("threshold should be a number, got NaN")
    if min_area < 0 or max_regions < 1:
        raise UsageError(f"min_area and max_regions should be at least 0 and 1, got {min_area} and {max_regions}")
    with np.errstate(over="ignore"):
        return raw, gaussian(sigma), np.float32(threshold)


def region_arrays(
    raw: NDArray[np.float32], height: int, width: int, out: tuple[NDArray[np.float32], NDArray[np.bool_]] | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the two arrays of `out` if they can hold a map and a mask, or new ones when it is None; or UsageError."""
    if out is None:
        return np.empty((height, width), np.float32), np.empty((height, width), np.bool_)
    if len(out) != 2:
        raise UsageError(f"out: expected two arrays, the map and the mask, got {len(out)}")
    for array, dtype in zip(out, (np.float32, np.bool_), strict=True):
        fits = array.shape == (height, width) and array.dtype == dtype
        if not (fits and array.flags.c_contiguous and array.flags.writeable):
            expected = f"writeable C-contiguous ({height}, {width}) arrays, float32 and bool"
            raise UsageError(f"out: expected {expected}; got {array.shape} {array.dtype}")
    values, mask = out
    if np.may_share_memory(values, raw) or np.may_share_memory(mask, raw) or np.may_share_memory(values, mask):
        raise UsageError("out: the map, the mask and the raw map overlap in memory")
    return values, mask
