"""Thresholds of anomaly detection from normal images alone, by split-conformal calibration.

The scores of n normal images that took no part in training, and that of a new normal image, come in any order with
equal probability. So the new one exceeds the k-th smallest of the n with a probability of at most 1 - k / (n + 1):
Papadopoulos et al., ECML 2002; Lei et al., JASA 2018, theorem 2.2. With k = ceil((n + 1)(1 - alpha)) that is alpha or
less, on average over the draw of the n images; whatever the distribution, the network and the number of images.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from ._anomaly_recipe import ALPHA, PIXEL_ALPHA
from ._manifest import Thresholds
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from numpy.typing import ArrayLike, NDArray

LOW = 0.01  # quantile of the normal scores that a calibrated score shows as 0


def fit(
    scores: ArrayLike,
    maps: Iterable[NDArray[np.floating]],
    *,
    alpha: float = ALPHA,
    pixel_alpha: float = PIXEL_ALPHA,
    sigma: float = 0.0,
) -> Thresholds:
    """Return the thresholds that normal images ask for.

    Args:
        scores: `(n,)`, of normal images that were not trained on.
        maps: their anomaly maps, blurred as they will be cut; any shapes.
        alpha: expected share of false alarms among normal images, at most; in (0, 1).
        sigma: of the blur that the maps have had, in pixels of the raw map; kept beside the thresholds.
        pixel_alpha: share of the maps' pixels that lie above the pixel threshold, at most; in [0, 1). Neighbouring
            pixels are no independent draws: this one describes these images and promises nothing for others.

    Raises:
        UsageError: too few images for that alpha (the message says how many it takes), a value that is not finite, or
            an alpha out of range.
    """
    values = _finite(scores, "scores")
    pixels = np.concatenate([np.empty(0, np.float32), *(_finite(np.ravel(each), "map values") for each in maps)])
    return Thresholds(
        image=image_threshold(values, alpha),
        pixel=pixel_threshold(pixels, pixel_alpha),
        low=float(np.quantile(values, LOW)),
        alpha=alpha,
        pixel_alpha=pixel_alpha,
        images=len(values),
        sigma=sigma,
    )


def image_threshold(scores: ArrayLike, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n normal scores; a score *above* it is an alarm.

    Raises:
        UsageError: as `fit`.
    """
    values = _finite(scores, "scores")
    needed = images_needed(alpha)
    if len(values) < needed:
        possible = (
            f"the least alpha possible with {len(values)} is {_least(len(values))}" if len(values) else "got none"
        )
        raise UsageError(f"alpha = {alpha:g} takes {needed} normal images that were not trained on; {possible}")
    rank = len(values) + 1 - math.floor((len(values) + 1) * _exact(alpha))
    return float(np.partition(values, rank - 1)[rank - 1])


def pixel_threshold(pixels: ArrayLike, alpha: float) -> float:
    """Return the least of the values that at most a share `alpha` of them exceeds.

    Raises:
        UsageError: there is no value, one is not finite, or alpha is not in [0, 1).
    """
    values = _finite(pixels, "map values")
    if not 0 <= alpha < 1:
        raise UsageError(f"pixel_alpha should be at least 0 and below 1, got {alpha}")
    if not len(values):
        raise UsageError("a pixel threshold takes at least one map of a normal image, got none")
    rank = len(values) - math.floor(len(values) * _exact(alpha))
    return float(np.partition(values, rank - 1)[rank - 1])


def images_needed(alpha: float) -> int:
    """Return how many normal images a false-alarm rate takes: the least n of at least 1 / alpha - 1.

    Raises:
        UsageError: alpha is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha should be above 0 and below 1, for example {ALPHA}; got {alpha}")
    return max(1, math.ceil(1 / _exact(alpha)) - 1)


def moved(thresholds: Thresholds, *, image: float | None = None, pixel: float | None = None) -> Thresholds:
    """Return thresholds set by hand, of which no share of false alarms is known any more; None: as it was.

    `low` moves along with the image threshold, so a calibrated score keeps its scale and is 0.5 at the new one.
    """
    if image is not None:
        low = thresholds.low + (image - thresholds.image)
        thresholds = dataclasses.replace(thresholds, image=image, low=low, alpha=None)
    if pixel is not None:
        thresholds = dataclasses.replace(thresholds, pixel=pixel, pixel_alpha=None)
    return thresholds


def calibrated(score: float, thresholds: Thresholds) -> float:
    """Return a score in [0, 1] to show: 0.5 at the image threshold, 0 at `low` and 1 as far above; monotone.

    It is no probability. Where all normal scores were equal, 0.5 stands alone between 0 and 1.
    """
    reach = thresholds.image - thresholds.low
    if reach <= 0:
        return 0.5 + 0.5 * float(np.sign(score - thresholds.image))
    return min(1.0, max(0.0, 0.5 + 0.5 * (score - thresholds.image) / reach))


def _exact(alpha: float) -> Fraction:
    """Return alpha as the decimal number that was typed: 0.1 is a tenth, and 10 images are enough for it."""
    from fractions import Fraction  # three modules that loading a bundle does without

    return Fraction(repr(float(alpha)))


def _least(count: int) -> str:
    """Return 1 / (n + 1), rounded up to a number that can be typed."""
    return f"{math.ceil(10_000 / (count + 1)) / 10_000:g}"


def _finite(values: ArrayLike, what: str) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.ndim != 1:
        raise UsageError(f"{what}: expected shape (n,), got {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{int((~np.isfinite(array)).sum())} of {array.size} {what} are not finite")
    return array
