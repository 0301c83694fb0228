"""Figures of an anomaly network on a test set, through any engine; and what its thresholds do there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import ops
from ..data.anomaly import load_mask
from ..metrics.anomaly import measure
from .images import network_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..._manifest import InputSpec, Thresholds
    from ..._session import Outputs
    from ..data.sample import Dataset, Sample

    Infer = Callable[[NDArray[np.float32]], Outputs]

BATCH = 8


class Scored(NamedTuple):
    """One image's raw score, and its map blurred and enlarged to the network's input, `(H, W)` float32."""

    score: float
    map: NDArray[np.float32]


def scored(infer: Infer, samples: Sequence[Sample], spec: InputSpec, sigma: float) -> Iterator[Scored]:
    """Yield score and map of each sample.

    Args:
        infer: takes `(B, 3, H, W)` float32, returns raw maps `(B, 1, h, w)` and scores `(B,)`, as `Session.infer`.
        samples: the images.
        spec: of the network's input.
        sigma: of the blur, in pixels of the raw map.
    """
    for start in range(0, len(samples), BATCH):
        maps, scores = infer(network_input(samples[start : start + BATCH], spec))
        for raw, score in zip(maps, scores, strict=True):
            found = ops.anomaly_regions(raw[0], spec.height, spec.width, sigma=sigma, threshold=math.inf)
            yield Scored(float(score), found.map)


def evaluate(infer: Infer, dataset: Dataset, spec: InputSpec, thresholds: Thresholds) -> dict[str, Any]:
    """Return `metrics.anomaly.measure` at the size of the network's input, and what the deployed threshold does.

    Returns:
        Those figures, and "false_alarms" and "found": shares of the normal and of the anomalous images that score above
        the image threshold; NaN where there are none.
    """
    return figures(list(scored(infer, dataset.samples, spec, thresholds.sigma)), dataset, spec, thresholds)


def figures(found: Sequence[Scored], dataset: Dataset, spec: InputSpec, thresholds: Thresholds) -> dict[str, Any]:
    """Return what `evaluate` does, of images that have been scored."""
    scores, truth = [each.score for each in found], [bool(sample.anomalous) for sample in dataset.samples]
    masks = (load_mask(sample, spec.height, spec.width) for sample in dataset.samples)
    measured = measure(scores, truth, (each.map for each in found), masks)
    above = np.asarray(scores) > thresholds.image
    for name, kind in (("false_alarms", False), ("found", True)):
        rows = above[np.asarray(truth) == kind]
        measured[name] = float(rows.mean()) if len(rows) else math.nan
    return measured
