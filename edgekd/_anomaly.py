"""From an anomaly network's raw map and score to a verdict, regions and a mask in pixels of the image."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import ops
from ._thresholds import calibrated
from .errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ._manifest import InputSpec, Thresholds
    from ._preprocess import ImageArray
    from ._session import Outputs

    Infer = Callable[[NDArray[np.float32]], Outputs]

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


class Scored(NamedTuple):
    """One image's raw score, and its map blurred and enlarged to the network's input, `(H, W)` float32."""

    score: float
    map: NDArray[np.float32]


def network_input(images: Sequence[ImageArray], spec: InputSpec) -> NDArray[np.float32]:
    """Return `(B, 3, H, W)` float32: images stretched and normalised, as a session takes them."""
    pixels = np.empty((len(images), 3, spec.height, spec.width), np.float32)
    for array, row in zip(images, pixels, strict=True):
        ops.letterbox(
            array.pixels, spec.height, spec.width,
            swap=array.swaps(spec.color), mean=spec.mean, std=spec.std, stretch=True, out=row,
        )  # fmt: skip
    return pixels


def scored(infer: Infer, images: Iterable[ImageArray], spec: InputSpec, sigma: float) -> Iterator[Scored]:
    """Yield score and map of each image; a few are in memory at a time.

    Args:
        infer: takes `(B, 3, H, W)` float32, returns raw maps `(B, 1, h, w)` and scores `(B,)`, as `Session.infer`.
        images: decoded.
        spec: of the network's input.
        sigma: of the blur, in pixels of the raw map.
    """
    waiting = iter(images)
    while batch := list(itertools.islice(waiting, BATCH)):
        maps, scores = infer(network_input(batch, spec))
        for raw, score in zip(maps, scores, strict=True):
            found = ops.anomaly_regions(raw[0], spec.height, spec.width, sigma=sigma, threshold=math.inf)
            yield Scored(float(score), found.map)
