"""Training batches by step number: what a step sees depends on the seed and the step alone.

So a run resumed at any step goes on exactly as it would have, and `torchrun` ranks take slices of one batch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from ...errors import DataError, UsageError
from .augment import Augment
from .cache import CACHE_BYTES, Cache
from .polygon import stretch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..._recipe import AugmentConfig, InputConfig
    from .augment import Scene
    from .sample import Dataset

OVERSIZE = 1.5  # cached pictures are at most this much larger than the network input, so that zooming in stays sharp

_ORDER, _VIEW = 0, 1  # separate streams of chance


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch.

    Attributes:
        images: `(B, 3, H, W)` uint8 in `InputConfig.color` order, not normalised.
        boxes: one `(n, 4)` xyxy or `(n, 5)` xywhr float32 tensor an image, in network pixels.
        labels: one `(n,)` int64 tensor an image.
        labelled: only the first so many images have targets; None: all.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    labelled: int | None = None


class TrainBatches:
    """Random access to augmented batches of a data set.

    Every epoch is a permutation without repetition; a batch may span two. Which objects are targets,
    `Dataset.taught` says.

    Args:
        dataset: of task "detect" or "obb".
        input: network size, colour order and padding.
        augment: what to do to the pictures.
        batch: images a step, over all ranks.
        seed: non-negative.
        cache: keep decoded pictures, up to 2 GiB.

    Raises:
        DataError: the data set is empty or has no boxes to learn.
        UsageError: the batch is not positive or the seed negative.
    """

    def __init__(
        self,
        dataset: Dataset,
        input: InputConfig,  # noqa: A002 - the recipe's name of that section
        augment: AugmentConfig,
        batch: int,
        seed: int,
        cache: bool = True,
    ) -> None:
        if not len(dataset) or dataset.task not in ("detect", "obb"):
            raise DataError(f"{dataset.name}: a {dataset.task} set of {len(dataset)} images is nothing to train on")
        if batch < 1 or seed < 0:
            raise UsageError(f"batch should be at least 1 and seed at least 0, got {batch} and {seed}")
        self.dataset = dataset
        self.input = input
        self.batch = batch
        self.seed = seed
        self._augment = Augment(augment, input.height, input.width, input.pad)
        self._scenes = Cache(CACHE_BYTES if cache else 0, self._shrunk, lambda scene: scene[0].nbytes)
        self._permutation = functools.lru_cache(maxsize=2)(self._shuffle)

    def batch_at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the batch of a step, or a rank's slice of it; joined in rank order, slices are the whole batch.

        Safe to call from several threads.

        Raises:
            DataError: an image cannot be decoded.
            UsageError: the batch does not divide evenly over the ranks.
        """
        if self.batch % world or not 0 <= rank < world:
            raise UsageError(f"batch {self.batch} does not divide over {world} ranks (rank {rank}); use a multiple")
        share = self.batch // world
        slots = range(rank * share, (rank + 1) * share)
        pixels = np.empty((share, 3, self.input.height, self.input.width), dtype=np.uint8)
        boxes, labels = [], []
        for row, slot in enumerate(slots):
            image, found, names = self._draw(step, slot)
            planes = cv2.split(image)
            for channel, plane in enumerate(planes if self.input.color == "rgb" else reversed(planes)):
                pixels[row, channel] = plane
            boxes.append(torch.from_numpy(found))
            labels.append(torch.from_numpy(names))
        return Batch(torch.from_numpy(pixels), boxes, labels)

    def _draw(self, step: int, slot: int) -> Scene:
        """Return one augmented picture."""
        rng = np.random.default_rng([self.seed, _VIEW, step, slot])
        epoch, place = divmod(step * self.batch + slot, len(self.dataset))
        waiting = [int(self._permutation(epoch)[place])]

        def pick() -> Scene:
            return self._scenes[waiting.pop() if waiting else int(rng.integers(len(self.dataset)))]

        return self._augment(rng, pick)

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.dataset))

    def _shrunk(self, index: int) -> Scene:
        """Return a decoded picture, shrunk to about network size, with its training targets."""
        sample = self.dataset.samples[index]
        image = sample.load()
        taught = self.dataset.taught(sample)
        boxes, labels = sample.boxes[taught], sample.labels[taught]
        height, width = image.shape[:2]
        ratio = OVERSIZE * min(self.input.height / height, self.input.width / width)
        if ratio >= 1:
            return image, boxes, labels
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        across, down = size[0] / width, size[1] / height
        if boxes.shape[1] == 4:
            return image, (boxes * (across, down, across, down)).astype(np.float32), labels
        return image, stretch(boxes, across, down).astype(np.float32), labels  # rounding makes the two differ a little


class MixedBatches:
    """Batches of labelled images followed by others.

    Args:
        labelled: batches whose images have targets.
        others: batches of unlabelled images.
        targets: whether the others have targets too, from a teacher.
    """

    def __init__(self, labelled: TrainBatches, others: TrainBatches, *, targets: bool) -> None:
        self.labelled, self.others, self.targets = labelled, others, targets

    def batch_at(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Return the batch of a step, or a rank's slices of its two parts."""
        first, second = (part.batch_at(step, rank, world) for part in (self.labelled, self.others))
        count = None if self.targets else len(first.images)
        images = torch.cat([first.images, second.images])
        return Batch(images, first.boxes + second.boxes, first.labels + second.labels, count)


def normalise(images: Tensor, input: InputConfig) -> Tensor:  # noqa: A002 - the recipe's name of that section
    """Return `(images - mean) / std` as float32, `(B, 3, H, W)` uint8 in, on the same device."""
    mean, std = (torch.tensor(value, dtype=torch.float32, device=images.device) for value in (input.mean, input.std))
    return (images.float() - mean[:, None, None]) / std[:, None, None]
