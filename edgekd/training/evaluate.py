"""Accuracy of a torch detector on a data set, through the letterbox and the suppression of the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import ops
from .._detections import Detections
from .metrics.measure import limits, measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from .._recipe import InputConfig
    from .data.sample import Dataset, Sample
    from .metrics.measure import Limits
    from .models import Detector

MAX_CANDIDATES = 3000


def evaluate(model: Detector, dataset: Dataset, input: InputConfig, device: torch.device) -> dict[str, Any]:  # noqa: A002
    """Return `measure` of the model on every image of the set, in fp32; the model's mode is restored."""
    return measure(list(detect(model, dataset, input, device)), dataset)


def detect(
    model: Detector,
    dataset: Dataset,
    input: InputConfig,  # noqa: A002 (the recipe's name)
    device: torch.device,
    batch: int = 8,
) -> Iterator[Detections]:
    """Yield the detections of each sample, in order, in pixels of the original image."""
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(dataset), batch):
            pixels, placements = network_pixels(dataset.samples[start : start + batch], input)
            boxes, scores = _forward(model, torch.from_numpy(pixels).to(device))
            cut = limits(dataset, oriented_boxes=boxes.shape[2] == 5)
            for placement, its_boxes, its_scores in zip(placements, boxes, scores, strict=True):
                yield _detections(its_boxes.numpy(), its_scores.numpy(), placement, dataset.classes, cut)
    finally:
        model.train(was_training)


def network_pixels(
    samples: Sequence[Sample],
    input: InputConfig,  # noqa: A002 (the recipe's name)
) -> tuple[NDArray[np.float32], list[ops.Placement]]:
    """Return images `(B, 3, H, W)` as the network sees them, through the runtime's letterbox, and where they lie."""
    pixels = np.empty((len(samples), 3, input.height, input.width), np.float32)
    swap, mean, std, pad = input.color == "bgr", input.mean, input.std, input.pad
    placements = [
        ops.letterbox(sample.load(), input.height, input.width, swap=swap, mean=mean, std=std, pad=pad, out=row)[1]
        for sample, row in zip(samples, pixels, strict=True)
    ]
    return pixels, placements


@torch.no_grad()
def _forward(model: Detector, pixels: Tensor) -> tuple[Tensor, Tensor]:
    boxes, scores = model(pixels)
    return boxes.float().cpu(), scores.float().cpu()


def _detections(
    boxes: np.ndarray, scores: np.ndarray, placement: ops.Placement, classes: tuple[str, ...], cut: Limits
) -> Detections:
    kept, score, label = ops.suppress(boxes, scores, **cut._asdict(), max_candidates=MAX_CANDIDATES, classes=None)
    size = (placement.image_height, placement.image_width)
    return Detections(placement.undo(kept), score, label, classes, size)
