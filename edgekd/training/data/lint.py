"""`lint`: what is wrong with a data set before anybody trains on it.

Errors, which make training or its metric wrong: annotation (a split that no reader takes), degenerate, outside,
unreadable, size, mask, leak, unlearnable. Warnings: clipped, thin, repeated, square, angle, dropped, imbalance, empty,
near-leak, duplicate.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from .lint_boxes import check_boxes, check_classes, summarise
from .lint_images import check_images
from .lint_report import Finding, LintReport, SplitSummary
from .read import FORMATS, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .sample import Dataset

EMPTY_SHARE = 0.5


def lint(
    paths: Sequence[str | Path],
    *,
    format: str = "auto",  # noqa: A002 - the recipe's name of it
    splits: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> LintReport:
    """Check splits alone and against each other; every image is decoded once.

    Args:
        paths: what `read` takes, training set first.
        format: as in `read`.
        splits: names of the splits each path holds; empty: each path is one.
        progress: called with (images done, images in all).

    Raises:
        DataError: no path is given, a path does not exist, or the format is unknown.
    """
    if not paths or format not in FORMATS:
        raise DataError(f"lint needs a path and one of the formats {', '.join(FORMATS)}, got {format!r}")
    missing = [str(path) for path in paths if not Path(path).exists()]
    if missing:
        raise DataError(f"no file or folder at {', '.join(missing)}")
    datasets: list[Dataset] = []
    findings: list[Finding] = []
    for path in paths:
        for split in splits or (None,):
            item = _read(path, format, split)
            if isinstance(item, Finding):
                findings.append(item)
            else:
                datasets.append(item)
    summaries = tuple(summarise(dataset) for dataset in datasets)
    for dataset, summary in zip(datasets, summaries, strict=True):
        findings += [*check_boxes(dataset), *_empty(summary)]
    findings += [*check_classes(summaries), *check_images(datasets, progress)]
    findings.sort(key=lambda item: item.severity != "error")
    return LintReport(summaries, tuple(findings))


def _read(path: str | Path, data_format: str, split: str | None) -> Dataset | Finding:
    name = f"{path}:{split}" if split else str(path)
    try:
        return dataclasses.replace(read(path, data_format, split), name=name)
    except DataError as error:
        return Finding("annotation", "error", name, "the split cannot be read", (str(error),))


def _empty(summary: SplitSummary) -> list[Finding]:
    if summary.empty <= EMPTY_SHARE * summary.images:
        return []
    text = f"{summary.empty} of {summary.images} images hold no object: label files missing?"
    return [Finding("empty", "warning", summary.name, text, ())]
