"""One engine over a set: raw outputs of every image, and the figures that they give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._anomaly import Scored
from .._detections import Detections
from .data import placed

if TYPE_CHECKING:
    from .._manifest import Manifest
    from .._session import Outputs, Session, SessionInfo
    from ..training.data.sample import Dataset


@dataclass(frozen=True)
class Run:
    """What an engine gave.

    Attributes:
        outputs: of each image, batch 1, float32; empty once they are released.
        figures: as `edgekd eval` has them: AP and the like, or image_AUROC and the like.
        session: what ran.
    """

    outputs: tuple[Outputs, ...]
    figures: dict[str, Any]
    session: SessionInfo

    @property
    def figure(self) -> float:
        """The one that the gates look at: AP, or image AUROC; a fraction."""
        return float(self.figures["AP" if "AP" in self.figures else "image_AUROC"])

    def released(self) -> Run:
        """Return the run without its outputs, which are megabytes an image and serve the gates alone."""
        return replace(self, outputs=())


def run_set(session: Session, manifest: Manifest, dataset: Dataset, *, whole: bool = True) -> Run:
    """Show every image of a set to an engine, and measure what it gives.

    Args:
        session: the engine.
        manifest: of its network.
        dataset: annotated images.
        whole: also the figures that no gate looks at; those of an anomaly map's pixels take seconds.
    """
    outputs, found = [], []
    measure = _object_figures if manifest.thresholds is None else _anomaly_figures if whole else _image_figures
    for sample in dataset.samples:
        pixels, placement = placed(manifest, sample.load())
        given = tuple(np.array(item) for item in session.infer(pixels))
        outputs.append(given)
        found.append(_found(given, placement, manifest, dataset))
    return Run(tuple(outputs), measure(found, dataset, manifest), session.info)


def _found(given: Outputs, placement: ops.Placement, manifest: Manifest, dataset: Dataset) -> Any:
    if manifest.thresholds is not None:
        spec = manifest.input
        regions = ops.anomaly_regions(
            given[0][0, 0], spec.height, spec.width, sigma=manifest.thresholds.sigma, threshold=float("inf")
        )
        return Scored(float(given[1][0]), regions.map)
    from ..training.metrics.measure import limits

    cut = limits(dataset, oriented_boxes=manifest.angle is not None)._asdict()
    boxes, scores, labels = ops.suppress(
        given[0][0], given[1][0], max_candidates=manifest.predict.max_candidates, **cut
    )
    size = (placement.image_height, placement.image_width)
    return Detections(placement.undo(boxes), scores, labels, manifest.classes, size, {})


def _object_figures(found: list[Any], dataset: Dataset, manifest: Manifest) -> dict[str, Any]:
    del manifest
    from ..training.metrics.measure import measure

    return measure(found, dataset)


def _image_figures(found: list[Any], dataset: Dataset, manifest: Manifest) -> dict[str, Any]:
    del manifest
    from ..training.metrics.ranking import Ranking

    scores, anomalous = np.array([item.score for item in found]), np.array([s.anomalous for s in dataset.samples], bool)
    return {"image_AUROC": Ranking(scores[anomalous], scores[~anomalous]).auroc()}


def _anomaly_figures(found: list[Any], dataset: Dataset, manifest: Manifest) -> dict[str, Any]:
    from ..training.anomaly.measure import figures

    assert manifest.thresholds is not None
    return figures(found, dataset, manifest.input, manifest.thresholds)
