"""From an anomaly network's raw map and score to a verdict, regions and a mask in pixels of the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import ops
from ._preprocess import decode
from ._thresholds import calibrated
from .errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ._manifest import Manifest, Thresholds
    from ._session import Outputs

MIN_SHARE = 2e-4  # of the image: a smaller region is dropped; one pixel of a 64x64 map is a little more
BATCH = 8


def columns(
    raw: NDArray[np.float32],
    score: float,
    size: tuple[int, int],
    thresholds: Thresholds,
    *,
    max_regions: int,
    gated: bool,
) -> dict[str, Any]:
    """Return what `Detections` holds of one image, by name.

    The score is the graph's own, so it does not depend on the image's size. Regions are cut from the map at the image's
    size; the score of one is its peak, calibrated as the image's score is.

    Args:
        raw: `(1, h, w)` float32, neither blurred nor enlarged.
        score: of the image, raw.
        size: `(height, width)` of the image, pixels.
        thresholds: the bundle's.
        max_regions: most regions; those with the best peaks stay, and the mask keeps all.
        gated: give no regions, and an empty mask, where the image as a whole is normal.

    Raises:
        SessionError: the score or the map is not finite. An inspection must not pass what it could not judge.
    """
    if not (math.isfinite(score) and np.isfinite(raw).all()):
        raise SessionError(f"the network gave values that are not finite (score {score}); check it: edgekd verify")
    silent = gated and score <= thresholds.image
    found = ops.anomaly_regions(
        raw[0],
        *size,
        sigma=thresholds.sigma,
        threshold=math.inf if silent else thresholds.pixel,
        min_area=max(1, round(MIN_SHARE * size[0] * size[1])),
        max_regions=max_regions,
    )
    scores = [calibrated(float(peak), thresholds) for peak in found.peaks]
    return {
        "boxes": found.boxes,
        "scores": np.array(scores, np.float32),
        "labels": np.zeros(len(found), np.int64),
        "score": score,
        "thresholds": thresholds,
        "mask": found.mask,
        "anomaly_map": found.map,
    }


def scored(
    infer: Callable[[NDArray[np.float32]], Outputs], images: Sequence[Any], manifest: Manifest, sigma: float
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield each image's raw score, and its map blurred and enlarged to the network's input, `(H, W)` float32.

    Args:
        infer: as `Session.infer`.
        images: what `predict` takes; decoded a few at a time.
        manifest: of the bundle.
        sigma: of the blur, in pixels of the raw map.

    Raises:
        ImageError: an image cannot be used.
    """
    spec = manifest.input
    for start in range(0, len(images), BATCH):
        batch = [decode(image) for image in images[start : start + BATCH]]
        pixels = np.empty((len(batch), 3, spec.height, spec.width), np.float32)
        for array, row in zip(batch, pixels, strict=True):
            ops.letterbox(
                array.pixels, spec.height, spec.width,
                swap=array.swaps(spec.color), mean=spec.mean, std=spec.std, stretch=True, out=row,
            )  # fmt: skip
        maps, scores = infer(pixels)
        for raw, score in zip(maps, scores, strict=True):
            found = ops.anomaly_regions(raw[0], spec.height, spec.width, sigma=sigma, threshold=math.inf)
            yield float(score), found.map
