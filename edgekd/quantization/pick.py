"""Which images calibrate: none twice, and every kind of object and light as evenly as the set allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Stratum = tuple[str, int] | tuple[str]

HASH_SIDE = 8  # an image's fingerprint has 8 x 8 bits
NEAR = 3  # bits: fingerprints closer than this are of one image
BRIGHTNESS_BINS, SIZE_BINS, ANGLE_BINS = 5, 6, 6


@dataclass(frozen=True)
class View:
    """What the choice knows of an image.

    Attributes:
        fingerprint: `(64,)` bool, see `fingerprint`.
        brightness: mean pixel in [0, 1].
        labels: `(n,)` classes of its objects.
        boxes: `(n, 4)` xyxy or `(n, 5)` xywhr, pixels.
        size: `(width, height)` of the image, pixels.
    """

    fingerprint: NDArray[np.bool_]
    brightness: float
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]
    size: tuple[int, int]


def view(image: NDArray[np.uint8], labels: NDArray[np.int64], boxes: NDArray[np.float32]) -> View:
    """Return what the choice looks at, of an image `(H, W, 3)` uint8 and its objects."""
    height, width = image.shape[:2]
    return View(fingerprint(image), float(image.mean()) / 255, labels, boxes, (width, height))


def fingerprint(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return `(64,)` bool: whether each of 8 x 8 places is brighter than its right neighbour, of 9 x 8 mean values.

    A difference hash (Krawetz, 2013): copies that were scaled or compressed anew differ in a few bits.
    """
    sums = image.sum(axis=2, dtype=np.int64)
    for axis, parts in enumerate((HASH_SIDE, HASH_SIDE + 1)):
        edges = np.linspace(0, sums.shape[axis], parts + 1).astype(int)
        starts = np.minimum(edges[:-1], sums.shape[axis] - 1)
        widths = np.maximum(np.diff(edges), 1).reshape([-1 if item == axis else 1 for item in range(2)])
        sums = np.add.reduceat(sums, starts, axis) / widths
    return np.asarray(sums[:, :-1] > sums[:, 1:]).reshape(-1)


def distinct(views: Sequence[View]) -> list[int]:
    """Return the indices of the views without those that are near copies of an earlier one."""
    kept: list[int] = []
    bits = np.empty((0, HASH_SIDE * HASH_SIDE), np.bool_)
    for index, item in enumerate(views):
        if not len(bits) or int((bits != item.fingerprint).sum(axis=1).min()) >= NEAR:
            kept.append(index)
            bits = np.vstack([bits, item.fingerprint])
    return kept


def pick(views: Sequence[View], count: int) -> list[int]:
    """Return the indices of at most `count` distinct images, sorted.

    Each image belongs to strata: the classes, sizes and angles of its objects, its brightness, whether it is empty. One
    after another, the image is taken whose strata have been seen least so far; ties by index.
    """
    waiting = distinct(views)
    strata = {index: _strata(views[index]) for index in waiting}
    seen: Counter[Stratum] = Counter()
    chosen: list[int] = []
    while waiting and len(chosen) < count:
        best = max(waiting, key=lambda index: (_need(strata[index], seen), -index))
        waiting.remove(best)
        chosen.append(best)
        seen.update(strata[best])
    return sorted(chosen)


def _need(strata: Sequence[Stratum], seen: Counter[Stratum]) -> float:
    """Return how much an image would add: a stratum that was seen k times counts 1 / (1 + k)^2."""
    return sum(1 / (1 + seen[item]) ** 2 for item in strata)


def _strata(item: View) -> tuple[Stratum, ...]:
    """Return the strata of an image, in an order of their own, so that sums over them are the same in every process."""
    found: set[Stratum] = {("brightness", min(int(item.brightness * BRIGHTNESS_BINS), BRIGHTNESS_BINS - 1))}
    if not len(item.labels):
        return (*sorted(found), ("empty",))
    sides = item.boxes[:, 2:4] - (item.boxes[:, :2] if item.boxes.shape[1] == 4 else 0)
    share = np.sqrt(np.maximum(sides.prod(axis=1), 1e-6) / (item.size[0] * item.size[1]))
    sizes = np.clip(np.round(-np.log2(np.clip(share, 1e-6, 1))), 0, SIZE_BINS - 1).astype(int)  # 1, 1/2, 1/4, ... wide
    found |= {("class", int(label)) for label in item.labels} | {("size", int(size)) for size in sizes}
    if item.boxes.shape[1] == 5:
        turned = (item.boxes[:, 4] / np.pi + 0.5) * ANGLE_BINS
        found |= {("angle", int(step) % ANGLE_BINS) for step in turned}
    return tuple(sorted(found))
