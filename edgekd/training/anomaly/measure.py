"""Figures of an anomaly network on a test set, through any engine; and what its thresholds do there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import _anomaly
from ..._preprocess import ImageArray
from ..data.anomaly import load_mask
from ..metrics.anomaly import measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..._anomaly import Infer, Scored
    from ..._manifest import InputSpec, Thresholds
    from ..data.sample import Dataset, Sample

FIGURES = (
    *("image_AUROC", "image_AP", "image_F1_max", "pixel_AUROC", "pixel_AP", "pixel_F1_max", "AUPRO", "aupro_rd4ad"),
    *("false_alarms", "found"),
)
"""What a run's bundle has receipts of, where it is a number."""


def scored(infer: Infer, samples: Sequence[Sample], spec: InputSpec, sigma: float) -> Iterator[Scored]:
    """Yield score and map of each sample; see `edgekd._anomaly.scored`."""
    return _anomaly.scored(infer, (ImageArray(sample.load(), "rgb") for sample in samples), spec, sigma)


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
