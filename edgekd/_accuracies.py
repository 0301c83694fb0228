"""What bundles' receipts say of their accuracy, and whether it can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._bundle import Bundle
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

METRICS = {"detect": "AP", "anomaly": "image_AUROC"}  # of a task, unless another is asked for
SPLITS = ("test", "val")  # looked at first


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A figure that a bundle's receipts hold.

    Attributes:
        metric: "AP", ...
        split: of the data.
        value: in [0, 1], larger is better.
        data_sha256: fingerprint of the split.
        images: how many it has; None: not said.
    """

    metric: str
    split: str
    value: float
    data_sha256: str
    images: int | None


def accuracies(paths: Sequence[Path], metric: str | None, split: str | None) -> list[Accuracy]:
    """Return one comparable figure a bundle.

    Raises:
        UsageError: there is none, or they are of different tasks or data.
    """
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


def _of_one_data(fitting: dict[str, list[Accuracy]]) -> dict[str, Accuracy]:
    """Return one figure a bundle, the latest of the data that all have a figure of.

    Raises:
        UsageError: there are no such data, or nobody knows which they are.
    """
    first, *others = fitting.values()
    known = [row.data_sha256 for row in first if all(_of(rows, row.data_sha256) for rows in others)]
    if not known:
        listed = "\n  ".join(
            f"{path}: {row.metric} {row.value:.3f} on {row.split} {row.data_sha256[:16] or '(no fingerprint)'}"
            for path, rows in fitting.items()
            for row in rows
        )
        raise UsageError(f"the accuracies are of different data and cannot be compared:\n  {listed}")
    if not known[-1] and others:
        raise UsageError(f"the receipts do not say which data {first[0].metric} was measured on: it cannot be compared")
    return {path: _of(rows, known[-1])[-1] for path, rows in fitting.items()}


def _of(rows: Sequence[Accuracy], data_sha256: str) -> list[Accuracy]:
    return [row for row in rows if row.data_sha256 == data_sha256]


def _has(rows: Sequence[Accuracy], metric: str, split: str) -> bool:
    return any(row.metric == metric and row.split == split for row in rows)


def _figures(bundle: Bundle) -> list[Accuracy]:
    """Return the figures in [0, 1] of a bundle's receipts, with the fingerprints of their data."""
    data = bundle.manifest.provenance.get("data")
    found = []
    for row in bundle.manifest.receipts:
        split = row.get("split")
        if "comparison" in row or not isinstance(split, str) or not 0 <= float(row["value"]) <= 1:
            continue
        about = data.get(split) if isinstance(data, dict) else None
        known = str(about.get("sha256", "")) if isinstance(about, dict) else ""
        images = row.get("images")
        found.append(
            Accuracy(
                metric=str(row["what"]), split=split, value=float(row["value"]),
                data_sha256=str(row.get("data_sha256", known)), images=images if isinstance(images, int) else None,
            )
        )  # fmt: skip
    return found


def _missing(path: str, rows: Sequence[Accuracy], metric: str, split: str, figures: dict[str, list[Accuracy]]) -> str:
    if not rows:
        return f"{path} has no accuracy in its receipts; to measure it: edgekd eval {path} DATA --receipt"
    have = ", ".join(dict.fromkeys(f"{row.metric} on {row.split}" for row in rows))
    if split:
        return f"{path} has no {metric} on {split}; it has: {have}"
    listed = "\n  ".join(
        f"{name}: {', '.join(sorted({row.split for row in each if row.metric == metric})) or 'none'}"
        for name, each in figures.items()
    )
    head = f"the bundles have no {metric} of one split in common:\n  {listed}"
    return f"{head}\n{path} has: {have}; or name another --metric"
