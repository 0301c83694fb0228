"""What bundles' receipts say of their accuracy, and whether it can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._bundle import Bundle
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ._manifest import Manifest

METRICS = {"detect": "AP", "anomaly": "image_AUROC"}  # of a task, unless another is asked for
LESS_IS_BETTER = ("false_alarms",)  # among the receipts' shares: not to be maximised
SPLITS = ("test", "val")  # looked at first
DEFAULT_MODE = "area"  # of `evaluate`, for oriented boxes


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A figure that a bundle's receipts hold.

    Attributes:
        metric: "AP", ...
        split: of the data.
        value: in [0, 1], larger is better.
        data_sha256: fingerprint of the split.
        images: how many it has; None: not said.
        mode: how the curve of oriented boxes became a number, "area" or "voc07"; None: as COCO does.
        target: of the artifact that was measured; empty: not said.
        precision: of that artifact; a training, which does not say, measures fp32.
    """

    metric: str
    split: str
    value: float
    data_sha256: str
    images: int | None
    mode: str | None
    target: str
    precision: str

    @property
    def measured_by(self) -> tuple[str, str | None]:
        """What has to be the same in figures that are compared."""
        return self.data_sha256, self.mode


def default_mode(manifest: Manifest) -> str | None:
    """Return how a curve became a number where a receipt does not say."""
    return None if manifest.angle is None else DEFAULT_MODE


def of_artifact(rows: Sequence[Accuracy], target: str, precision: str) -> Accuracy:
    """Return the latest figure of the artifact that ran; without one, of its precision; without that, of any."""

    def nearness(index: int) -> tuple[bool, bool, int]:
        row = rows[index]
        return (row.target, row.precision) == (target, precision), row.precision == precision, index

    return rows[max(range(len(rows)), key=nearness)]


def accuracies(paths: Sequence[Path], metric: str | None, split: str | None) -> list[list[Accuracy]]:
    """Return the comparable figures of each bundle, which differ in the artifact that was measured; latest last.

    Raises:
        UsageError: there are none, or they are of different tasks, data or modes; or less of the metric is better.
    """
    if metric in LESS_IS_BETTER:
        usual = " or ".join(METRICS.values())
        raise UsageError(f"of {metric} less is better; name a --metric of which more is, as {usual}")
    if not paths:
        raise UsageError("no bundle to choose from: edgekd pick --budget '8 ms p99' a.bin b.bin")
    tasks: dict[str, str] = {}
    figures: dict[str, list[Accuracy]] = {}
    for path in paths:
        with Bundle.read(path) as bundle:
            tasks[str(path)] = bundle.manifest.task
            figures[str(path)] = _figures(bundle)
    if len(set(tasks.values())) > 1:
        listed = ", ".join(f"{path}: {task}" for path, task in tasks.items())
        raise UsageError(f"bundles of different tasks have no accuracy in common ({listed})")
    wanted = metric or METRICS[next(iter(tasks.values()))]
    shared = (each for each in _splits(figures) if all(_has(rows, wanted, each) for rows in figures.values()))
    wanted_split = split or next(shared, "")
    fitting: dict[str, list[Accuracy]] = {}
    for named, rows in figures.items():
        fitting[named] = [row for row in rows if row.metric == wanted and row.split == wanted_split]
        if not fitting[named]:
            raise UsageError(_missing(named, rows, wanted, wanted_split, figures))
    chosen = _of_one_data(fitting)
    return [chosen[str(path)] for path in paths]


def _splits(figures: dict[str, list[Accuracy]]) -> list[str]:
    """Return the splits that there are figures of, those that are usual first."""
    return list(dict.fromkeys([*SPLITS, *(row.split for rows in figures.values() for row in rows)]))


def _of_one_data(fitting: dict[str, list[Accuracy]]) -> dict[str, list[Accuracy]]:
    """Return the figures of each bundle on the data, and in the mode, that all have one of.

    Raises:
        UsageError: there are no such data, or nobody knows which they are.
    """
    first, *others = fitting.values()
    known = [row.measured_by for row in first if all(_of(rows, row.measured_by) for rows in others)]
    if not known:
        listed = "\n  ".join(
            f"{path}: {row.metric} {row.value:.3f} on {row.split} {row.data_sha256[:16] or '(no fingerprint)'}"
            + ("" if row.mode is None else f", mode {row.mode}")
            for path, rows in fitting.items()
            for row in rows
        )
        raise UsageError(
            f"the accuracies are of different data, or in different modes, and cannot be compared:\n  {listed}"
        )
    if not known[-1][0] and others:
        raise UsageError(f"the receipts do not say which data {first[0].metric} was measured on: it cannot be compared")
    return {path: _of(rows, known[-1]) for path, rows in fitting.items()}


def _of(rows: Sequence[Accuracy], measured_by: tuple[str, str | None]) -> list[Accuracy]:
    return [row for row in rows if row.measured_by == measured_by]


def _has(rows: Sequence[Accuracy], metric: str, split: str) -> bool:
    return any(row.metric == metric and row.split == split for row in rows)


def _figures(bundle: Bundle) -> list[Accuracy]:
    """Return the figures in [0, 1] of a bundle's receipts, with the fingerprints of their data.

    Figures by tiles are left out: they take many calls of what is timed once.
    """
    data = bundle.manifest.provenance.get("data")
    found = []
    for row in bundle.manifest.receipts:
        split = row.get("split")
        if "comparison" in row or not isinstance(split, str) or not 0 <= float(row["value"]) <= 1:
            continue
        if row.get("tile") is not None:
            continue
        about = data.get(split) if isinstance(data, dict) else None
        known = str(about.get("sha256", "")) if isinstance(about, dict) else ""
        images = row.get("images")
        found.append(
            Accuracy(
                metric=str(row["what"]), split=split, value=float(row["value"]),
                data_sha256=str(row.get("data_sha256", known)), images=images if isinstance(images, int) else None,
                mode=row.get("mode", default_mode(bundle.manifest)), target=str(row.get("target", "")),
                precision=str(row.get("precision", "fp32")),
            )
        )  # fmt: skip
    return found


def _missing(path: str, rows: Sequence[Accuracy], metric: str, split: str, figures: dict[str, list[Accuracy]]) -> str:
    if not rows:
        return (
            f"{path} has no accuracy in its receipts (by tiles does not count: whole images are timed); to measure it: "
            f"edgekd eval {path} DATA --receipt"
        )
    have = ", ".join(dict.fromkeys(f"{row.metric} on {row.split}" for row in rows))
    if split:
        return f"{path} has no {metric} on {split}; it has: {have}"
    listed = "\n  ".join(
        f"{name}: {', '.join(sorted({row.split for row in each if row.metric == metric})) or 'none'}"
        for name, each in figures.items()
    )
    head = f"the bundles have no {metric} of one split in common:\n  {listed}"
    return f"{head}\n{path} has: {have}; or name another --metric"
