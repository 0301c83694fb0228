"""Images as an anomaly network sees them: stretched to its input, by the kernel that the runtime uses."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from ... import ops
from ..._thresholds import images_needed
from ...errors import DataError
from ..data.cache import CACHE_BYTES, Cache
from ..data.sample import Dataset
from ..seeding import derived_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from ..._recipe import InputConfig
    from ..data.sample import Sample

MOST_HELD_OUT = 0.5


class NormalBatches:
    """Batches of normal images by step number: uint8 `(B, 3, H, W)`, in the colour order of the input.

    Every epoch is a permutation without repetition; a batch may span two. Nothing is augmented (RD4AD, section 4.1).

    Args:
        samples: at least one.
        input: size and colour order.
        batch: images a step.
        seed: of the order.
    """

    def __init__(self, samples: Sequence[Sample], input: InputConfig, batch: int, seed: int) -> None:  # noqa: A002
        self.samples, self.input, self.batch, self.seed = samples, input, batch, seed
        self._images = Cache(CACHE_BYTES, lambda row: stretched(samples[row], input), lambda image: image.nbytes)
        self._order = functools.lru_cache(maxsize=2)(self._shuffle)

    def batch_at(self, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """Return the batch of a step; one process only."""
        assert (rank, world) == (0, 1)
        places = (divmod(step * self.batch + slot, len(self.samples)) for slot in range(self.batch))
        return torch.from_numpy(np.stack([self._images[int(self._order(epoch)[place])] for epoch, place in places]))

    def all(self, most: int | None = None) -> Iterator[Tensor]:
        """Yield every image once, or the first `most`, in batches."""
        count = len(self.samples[:most])
        for start in range(0, count, self.batch):
            rows = range(start, min(start + self.batch, count))
            yield torch.from_numpy(np.stack([self._images[row] for row in rows]))

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(derived_seed(self.seed, "order", epoch)).permutation(len(self.samples))


def stretched(sample: Sample, input: InputConfig) -> NDArray[np.uint8]:  # noqa: A002
    """Return an image as `(3, H, W)` uint8 in the colour order of the input, filling it."""
    pixels, _ = ops.letterbox(
        sample.load(), input.height, input.width,
        swap=input.color == "bgr", mean=(0, 0, 0), std=(1, 1, 1), dtype=np.uint8, stretch=True,
    )  # fmt: skip
    return pixels


def hold_out(dataset: Dataset, share: float, alpha: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split normal images into those to train on and those that thresholds are calibrated on, at random by the seed.

    Held out are `share` of them, or as many as alpha takes if those are more.

    Raises:
        DataError: that would be more than half of them, or nothing to train on; says what would do.
    """
    count, needed = len(dataset), images_needed(alpha)
    held = max(math.ceil(share * count), needed)
    if held > MOST_HELD_OUT * count:
        raise DataError(
            f"{dataset.name} has {count} normal images; a false-alarm rate alpha = {alpha:g} takes {needed} that are "
            f"not trained on, and data.calibration = {share:g} asks for {math.ceil(share * count)}: that leaves less "
            f"than half. Take more images, or a greater predict.alpha ({1 / (count // 2 + 1):.2g} or more)"
        )
    order = np.random.default_rng(derived_seed(seed, "calibration")).permutation(count)
    parts = []
    for what, rows in (("training", order[held:]), ("calibration", order[:held])):
        samples = tuple(dataset.samples[row] for row in sorted(rows.tolist()))
        parts.append(Dataset(f"{dataset.name} ({what})", dataset.task, dataset.classes, samples, dataset.problems))
    return parts[0], parts[1]
