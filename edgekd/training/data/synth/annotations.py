"""`Annotations`: what a generator knows about the image it drew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Annotations:
    """Ground truth of one scene.

    Attributes:
        boxes: `(N, 4)` float32 xyxy (tight hulls of the drawn pixels, half-open) or `(N, 5)` float32 xywhr (radians,
            clockwise on the image, le90), in pixels.
        labels: `(N,)` int64, index into the generator's `CLASSES`.
        visibility: `(N,)` float32 in [0, 1]. xray: mean transmission of all else over the object's pixels;
            aerial: share of the object that lies inside the image; surface: empty.
        mask: `(H, W)` bool, defective pixels, surface scenes only.
        category, defect: names, surface scenes only; `defect` is "good" for a normal image.
        contrast: |mean change of luminance over the mask| in standard deviations of the surface; None without a defect.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    visibility: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None
    category: str | None = None
    defect: str | None = None
    contrast: float | None = None


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """Return the random generator of one image: the same for the same (seed, split, index), whatever else is drawn."""
    return np.random.default_rng((seed, SPLITS.index(split), index))
