"""Figures of anomaly detection on one category: image and pixel AUROC, AP, F1-max, AUPRO, and that of RD4AD's code.

Pixels of all test images, good ones included, are pooled. Means over categories are the caller's: figures of pixels
pooled over categories would compare one category's scores with another's.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import geometry
from ...errors import UsageError
from .per_image import overlap_of_image
from .ranking import NAN, Ranking

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

LIMIT = 0.3  # of the false-positive rate in AUPRO, as MVTec AD's authors have it


def measure(
    scores: ArrayLike,
    anomalous: Sequence[bool],
    maps: Iterable[NDArray[np.floating]],
    masks: Iterable[NDArray[np.bool_] | None],
    *,
    limit: float = LIMIT,
) -> dict[str, Any]:
    """Return the figures of one category.

    Memory is two values a pixel, in the maps' dtype: `maps` and `masks` may be generators.

    Args:
        scores: `(N,)`, of the images.
        anomalous: N truths of the images, which an empty mask does not change.
        maps: N arrays `(h, w)`, a score a pixel; float32 or float64. Sizes may differ.
        masks: N arrays `(h, w)` bool, true on a defect; None: the image's pixels are not scored.
        limit: of the false-positive rate in AUPRO.

    Returns:
        "image_AUROC", "image_AP", "image_F1_max", "pixel_AUROC", "pixel_AP", "pixel_F1_max", "AUPRO": in [0, 1], or
        NaN; "aupro_rd4ad": likewise, to compare with figures of RD4AD's code only, see `aupro_rd4ad`; "oracle": the
        thresholds of the two F1, "image" and "pixel", which test images have chosen; "undefined": figure -> why it is
        NaN.

    Raises:
        UsageError: lengths or shapes do not fit, or a score is NaN.
    """
    values, truth = np.asarray(scores), np.asarray(anomalous, np.bool_)
    if values.shape != truth.shape:
        raise UsageError(f"scores and truths of the images: expected equal lengths, got {values.shape}, {truth.shape}")
    images = Ranking(values[truth], values[~truth])
    pixels, theirs = rank_pixels(maps, masks, count=len(truth), limit=limit)
    image_f1, pixel_f1 = images.best_f1(), pixels.best_f1()
    undefined = {**_undefined(images, "image", ()), **_undefined(pixels, "pixel", ("AUPRO", "aupro_rd4ad"))}
    if np.isnan(theirs):
        undefined.setdefault("aupro_rd4ad", "no image with anomalous and normal pixels and finite scores")
    return {
        "image_AUROC": images.auroc(),
        "image_AP": images.average_precision(),
        "image_F1_max": image_f1.value,
        "pixel_AUROC": pixels.auroc(),
        "pixel_AP": pixels.average_precision(),
        "pixel_F1_max": pixel_f1.value,
        "AUPRO": pixels.partial_area(limit),
        "aupro_rd4ad": theirs,
        "oracle": {"image": image_f1.threshold, "pixel": pixel_f1.threshold},
        "undefined": undefined,
    }


def aupro(
    maps: Iterable[NDArray[np.floating]], masks: Iterable[NDArray[np.bool_] | None], *, limit: float = LIMIT
) -> float:
    """Return the area under the per-region overlap (Bergmann et al., IJCV 2021, section 6.1).

    One threshold sweeps all images. At each, the false-positive rate is the share of all normal pixels above it, and
    the overlap is the mean over all defects (8-connected components of the masks) of their share above it. The area
    under overlap over rate, from rate 0 to `limit`, is divided by `limit`.

    Args:
        maps: arrays `(h, w)`, a score a pixel.
        masks: arrays `(h, w)` bool; None: not scored.
        limit: in (0, 1].

    Returns:
        In [0, 1]; NaN without any anomalous, or any normal, pixel.

    Raises:
        UsageError: lengths or shapes do not fit, a score is NaN, or the limit is out of range.
    """
    return rank_pixels(maps, masks)[0].partial_area(limit)


def aupro_rd4ad(
    maps: Iterable[NDArray[np.floating]], masks: Iterable[NDArray[np.bool_] | None], *, limit: float = LIMIT
) -> float:
    """Return what the code of RD4AD (Deng and Li, CVPR 2022) and RD++ calls AUPRO: the mean over anomalous images.

    See `per_image.overlap_of_image`. It is another figure than `aupro`, by points: use it beside figures that this
    code has made, and for nothing else.

    Args:
        maps: arrays `(h, w)`, a score a pixel, float32 or float64.
        masks: arrays `(h, w)` bool; None: not scored.
        limit: in (0, 1].

    Returns:
        In [0, 1]; NaN without an image that has anomalous and normal pixels.

    Raises:
        UsageError: lengths or shapes do not fit, a score is NaN, or the limit is out of range.
    """
    ranking, theirs = rank_pixels(maps, masks, limit=limit)
    ranking.partial_area(limit)  # checks the limit
    return theirs


def rank_pixels(
    maps: Iterable[NDArray[np.floating]],
    masks: Iterable[NDArray[np.bool_] | None],
    *,
    count: int | None = None,
    limit: float = LIMIT,
) -> tuple[Ranking, float]:
    """Return the pooled pixels, an anomalous one weighing 1 / (pixels of its defect x number of defects).

    Returns:
        That ranking, and what `aupro_rd4ad` says of the same maps up to the limit.

    Raises:
        UsageError: lengths (of each other, or of `count`) or shapes do not fit, or a score is NaN.
    """
    anomalous, normal, weights = [_NONE], [_NONE], [np.empty(0)]
    defects, alone = 0, []
    for values, mask in _scored(maps, masks, count):
        labels, found = geometry.label(mask)
        part = labels[mask] - 1
        defects += found
        anomalous.append(values[mask])
        normal.append(values[~mask])
        weights.append(1 / np.bincount(part)[part])
        if found:
            alone.append(overlap_of_image(values, labels, found, limit))
    ranking = Ranking(np.concatenate(anomalous), np.concatenate(normal), np.concatenate(weights) / max(1, defects))
    known = [area for area in alone if area is not None]
    return ranking, float(np.mean(known)) if known else NAN


def _scored(
    maps: Iterable[NDArray[np.floating]], masks: Iterable[NDArray[np.bool_] | None], count: int | None
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.bool_]]]:
    """Yield each map that has a mask, with it; arguments and errors as `rank_pixels`."""
    rows = 0
    for values, mask in zip_longest(maps, masks, fillvalue=_MISSING):
        if isinstance(values, _Missing) or isinstance(mask, _Missing):
            raise UsageError(f"maps and masks differ in number: one of them ends after {rows}")
        rows += 1
        if mask is None:
            continue
        if values.ndim != 2 or values.shape != mask.shape:
            raise UsageError(f"map and mask {rows - 1}: expected one (h, w), got {values.shape} and {mask.shape}")
        yield values, mask
    if count is not None and rows != count:
        raise UsageError(f"expected a map and a mask of each of {count} images, got {rows}")


class _Missing:
    """Stands for what the shorter of two sequences lacks."""


_MISSING = _Missing()
_NONE: NDArray[np.floating] = np.empty(0, np.float32)


def _undefined(ranking: Ranking, kind: str, more: tuple[str, ...]) -> dict[str, str]:
    """Return which figures of a ranking are NaN, and why."""
    areas = (f"{kind}_AUROC", *more)
    if not ranking.positives:
        return dict.fromkeys((*areas, f"{kind}_AP", f"{kind}_F1_max"), f"no anomalous {kind}")
    return {} if ranking.negatives else dict.fromkeys(areas, f"no normal {kind}")
