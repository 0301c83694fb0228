"""The report on an anomaly network: what it scores on a test set, image by image, as one HTML file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..checkpoint import write_bytes
from ..metrics.ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..._anomaly import Scored
    from ..._manifest import Manifest, Thresholds
    from ..data.sample import Dataset, Sample

PAGE = "report.html"
SHOWN = 6  # images a section


class Case(NamedTuple):
    """One test image: `alarm` says that it scores above the threshold; `map` is blurred, at the network's input."""

    sample: Sample
    score: float
    map: NDArray[np.float32]
    alarm: bool

    @property
    def name(self) -> str:
        """Folder and file."""
        return f"{self.sample.path.parent.name}/{self.sample.path.name}"


class Kind(NamedTuple):
    """One folder of test images: how many, how many alarms, and how well its scores stand out from the normal ones.

    `auroc` and `median` are NaN where they do not exist; normal images have no `auroc`.
    """

    name: str
    images: int
    alarms: int
    auroc: float
    median: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page says.

    Attributes:
        name: of the network.
        data: of the test set.
        engine: what ran, in words.
        metrics: as `measure.evaluate` returns them.
        thresholds: the deployed ones.
        cases: all test images.
        provenance: of the bundle.
        recipe: of the bundle, if it has one.
        notes: what to know before figures are believed.
    """

    name: str
    data: str
    engine: str
    metrics: dict[str, Any]
    thresholds: Thresholds
    cases: tuple[Case, ...]
    provenance: dict[str, Any]
    recipe: dict[str, Any] | None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        dataset: Dataset,
        found: Sequence[Scored],
        metrics: dict[str, Any],
        *,
        engine: str,
    ) -> Report:
        """Return the report on a bundle whose network has scored a set."""
        thresholds = manifest.thresholds
        assert thresholds is not None  # of an anomaly bundle the reader has checked it
        cases = tuple(
            Case(sample, each.score, each.map, each.score > thresholds.image)
            for sample, each in zip(dataset.samples, found, strict=True)
        )
        notes = manifest.provenance.get("notes")  # a bundle from elsewhere may have none, or something else
        return cls(
            name=manifest.name,
            data=dataset.name,
            engine=engine,
            metrics=metrics,
            thresholds=thresholds,
            cases=cases,
            provenance=manifest.provenance,
            recipe=manifest.recipe,
            notes=tuple(str(note) for note in notes) if isinstance(notes, list) else (),
        )

    def of_kind(self, *, anomalous: bool) -> tuple[Case, ...]:
        """Return the normal or the anomalous images, as their folders say, highest score first."""
        chosen = (case for case in self.cases if bool(case.sample.anomalous) is anomalous)
        return tuple(sorted(chosen, key=lambda case: -case.score))

    def kinds(self) -> list[Kind]:
        """Return the folders, normal images first."""
        normal = [case.score for case in self.of_kind(anomalous=False)]
        folders: dict[tuple[bool, str], list[Case]] = defaultdict(list)
        for case in self.cases:
            folders[bool(case.sample.anomalous), case.sample.defect or "good"].append(case)
        rows = []
        for (anomalous, name), cases in sorted(folders.items(), key=lambda item: item[0]):
            scores = [case.score for case in cases]
            auroc = Ranking(scores, normal).auroc() if anomalous else float("nan")
            rows.append(Kind(name, len(cases), sum(case.alarm for case in cases), auroc, float(np.median(scores))))
        return rows

    def examples(self) -> tuple[Case, ...]:
        """Return of each kind of defect the found image of median score."""
        folders: dict[str, list[Case]] = defaultdict(list)
        for case in self.of_kind(anomalous=True):
            if case.alarm:
                folders[case.sample.defect or ""].append(case)
        return tuple(cases[len(cases) // 2] for _, cases in sorted(folders.items()))


def write_report(report: Report, path: Path) -> None:
    """Write the page, atomically; its folder is created if missing.

    Raises:
        DataError: an image or mask cannot be decoded.
    """
    from .report_page import render

    page = render(report).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page)
