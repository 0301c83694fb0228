"""Lint of one split's boxes and classes; pixels are not needed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ...geometry import xywhr_to_corners
from .lint_report import Finding, SplitSummary
from .records import NO_AREA, WRAPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .sample import Dataset, Sample

    Mask = NDArray[np.bool_]

BORDER_SLACK = 1.0  # pixels: tools that count from 1 end their boxes at width + 1
THIN = 2.0  # pixels
SQUARE = 0.05  # relative difference of the sides
IMBALANCE = 10.0  # objects of the most frequent class to those of the rarest


def summarise(dataset: Dataset) -> SplitSummary:
    """Count images, objects and classes."""
    labels = np.concatenate([sample.labels for sample in dataset.samples])
    counts = np.bincount(labels, minlength=len(dataset.classes))
    empty = sum(not len(sample.boxes) for sample in dataset.samples)
    classes = {name: int(count) for name, count in zip(dataset.classes, counts, strict=True)}
    if dataset.task == "anomaly":
        classes = dict(sorted(Counter(sample.defect or "?" for sample in dataset.samples).items()))
        empty = 0
    return SplitSummary(dataset.name, dataset.task, len(dataset), len(labels), empty, classes)


def check_boxes(dataset: Dataset) -> Iterator[Finding]:
    """Yield what is wrong with the boxes of one split, and what its reader dropped."""
    yield from _reader_problems(dataset)
    checks: list[tuple[str, str, str, Callable[[Sample], Mask]]] = [
        ("outside", "error", "boxes lie outside their image: wrong image, wrong size or wrong units", _outside),
        ("clipped", "warning", "boxes reach over the border; training clips upright ones to the image", _clipped),
        ("thin", "warning", f"boxes are thinner than {THIN:g} px", _thin),
        ("repeated", "warning", "boxes stand twice in their image, with the same class", _repeated),
    ]
    if dataset.task == "obb":
        text = f"boxes have sides within {SQUARE:.0%}: their angle is ambiguous by 90 degrees"
        checks.append(("square", "warning", text, _square))
    total = sum(len(sample.boxes) for sample in dataset.samples)
    for kind, severity, text, check in checks:
        places = [place for sample in dataset.samples for place in _places(sample, check(sample))]
        if places:
            yield Finding(kind, severity, dataset.name, f"{len(places)} of {total} {text}", tuple(places))


def check_classes(summaries: Sequence[SplitSummary]) -> Iterator[Finding]:
    """Yield imbalance within a split, and classes that later splits have and the first lacks."""
    summaries = [item for item in summaries if item.task != "anomaly"]
    for item in summaries:
        found = {name: count for name, count in item.classes.items() if count}
        if found and max(found.values()) > IMBALANCE * min(found.values()):
            most, least = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
            ratio = found[most] / found[least]
            text = f"{ratio:.0f} times as many {most} ({found[most]}) as {least} ({found[least]})"
            yield Finding("imbalance", "warning", item.name, text, (most, least))
    for item in summaries[1:]:
        new = [name for name, count in item.classes.items() if count and not summaries[0].classes.get(name)]
        if new:
            text = f"classes without an object in {summaries[0].name}, so they cannot be learnt: {', '.join(new)}"
            yield Finding("unlearnable", "error", item.name, text, tuple(new))


def _reader_problems(dataset: Dataset) -> Iterator[Finding]:
    no_area = tuple(line for line in dataset.problems if line.endswith(NO_AREA))
    wrapped = tuple(line for line in dataset.problems if line.endswith(WRAPPED))
    other = tuple(line for line in dataset.problems if not line.endswith((NO_AREA, WRAPPED)))
    if no_area:
        yield Finding("degenerate", "error", dataset.name, f"boxes without area: {len(no_area)}", no_area)
    if wrapped:
        text = f"oriented boxes with w < h or an angle outside [-pi/2, pi/2]: {len(wrapped)}"
        yield Finding("angle", "warning", dataset.name, text, wrapped)
    if other:
        yield Finding("dropped", "warning", dataset.name, f"notes of the reader: {len(other)}", other)


def _places(sample: Sample, wrong: Mask) -> Iterator[str]:
    for row in np.flatnonzero(wrong):
        box = ", ".join(f"{value:.6g}" for value in sample.boxes[row])
        yield f"{sample.path}: box {row + 1} [{box}]"


def _hulls(sample: Sample) -> NDArray[np.float32]:
    if sample.boxes.shape[1] == 4:
        return sample.boxes
    corners = xywhr_to_corners(sample.boxes)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _sides(sample: Sample) -> NDArray[np.float32]:
    return sample.boxes[:, 2:4] if sample.boxes.shape[1] == 5 else sample.boxes[:, 2:] - sample.boxes[:, :2]


def _outside(sample: Sample) -> Mask:
    hulls = _hulls(sample)
    return np.asarray(((hulls[:, 2:] <= 0) | (hulls[:, :2] >= sample.size)).any(axis=1))


def _clipped(sample: Sample) -> Mask:
    hulls, limit = _hulls(sample), np.array(sample.size)
    beyond = (hulls[:, :2] < -BORDER_SLACK) | (hulls[:, 2:] > limit + BORDER_SLACK)
    return beyond.any(axis=1) & ~_outside(sample)


def _thin(sample: Sample) -> Mask:
    return np.asarray((_sides(sample) < THIN).any(axis=1))


def _square(sample: Sample) -> Mask:
    sides = _sides(sample)
    return np.asarray(sides[:, 1] > (1 - SQUARE) * sides[:, 0])


def _repeated(sample: Sample) -> Mask:
    rows = np.concatenate([sample.boxes, sample.labels[:, None].astype(np.float32)], axis=1)
    seen: set[bytes] = set()
    repeated = np.zeros(len(rows), dtype=np.bool_)
    for i, row in enumerate(rows):
        repeated[i] = row.tobytes() in seen
        seen.add(row.tobytes())
    return repeated
