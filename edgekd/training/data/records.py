"""What a reader finds, before class names become labels; `assemble` makes a Dataset of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError
from .polygon import quads_to_xywhr
from .sample import Dataset, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NO_AREA = "has no area; dropped"  # ends a line of `Dataset.problems`, as the next does; lint sorts them by it
WRAPPED = "breaks the long-edge rule; same rectangle kept under it"
COORDINATE_LIMIT = 1e7  # pixels; more is a damaged file


@dataclass(frozen=True)
class Annotation:
    """One object as the file says it: class name, `box` xyxy or xywhr in pixels, where it stands."""

    name: str
    box: tuple[float, ...]
    where: str
    difficult: bool = False
    note: str = ""  # goes to `Dataset.problems`
    crowd: bool = False  # a box around many; difficult as well


@dataclass(frozen=True)
class Record:
    """One image with its objects; `size` is `(width, height)` in pixels."""

    path: Path
    size: tuple[int, int]
    annotations: Sequence[Annotation]


def dropped(dataset: Dataset) -> tuple[str, ...]:
    """Return what the reader left out of a set, one line each; not what it kept by another name."""
    return tuple(line for line in dataset.problems if not line.endswith(WRAPPED))


def number(text: object, where: str, what: str) -> float:
    """Return a finite number of sane magnitude, from text or JSON.

    Raises:
        DataError: it is something else.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int, float)) or (isinstance(text, str) and "_" in text):
        raise DataError(f"{where}: {what} should be a number, got {text!r}")
    try:
        value = float(text)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: {what} should be a number, got {str(text)[:40]!r}") from error
    if not math.isfinite(value) or abs(value) > COORDINATE_LIMIT:
        raise DataError(f"{where}: {what} should be finite and below {COORDINATE_LIMIT:g}, got {value}")
    return value


def corners_to_box(words: Sequence[object], where: str) -> tuple[float, ...]:
    """Return the xywhr box in le90 around four corners `x1 y1 .. x4 y4`.

    Raises:
        DataError: a corner is no number.
    """
    return tuple(quads_to_xywhr([number(word, where, "a corner") for word in words])[0].tolist())


def assemble(
    name: str,
    task: str,
    records: Iterable[Record],
    *,
    classes: Sequence[str] | None,
    own_classes: Sequence[str] | None = None,
    problems: Iterable[str] = (),
) -> Dataset:
    """Turn records into a Dataset.

    Boxes without area are dropped; so are objects of a class that `classes` lacks. Both are listed in
    `Dataset.problems`.

    Args:
        name: of the data set.
        task: "detect" or "obb".
        records: what the reader found.
        classes: the names asked for, in label order; None takes `own_classes`.
        own_classes: the names the format itself orders; None: the names found, sorted.
        problems: lines the reader already has.

    Raises:
        DataError: no image, a class named twice, or not one object of the classes asked for.
    """
    records = list(records)
    if not records:
        raise DataError(f"{name} holds no image")
    names = {annotation.name for record in records for annotation in record.annotations}
    order = tuple(classes or own_classes or sorted(names))
    if len(set(order)) != len(order):
        raise DataError(f"{name}: a class is named twice in {', '.join(order)}")
    if classes and names and not names & set(order):
        raise DataError(f"{name} has no object of {', '.join(order)}; its classes are {', '.join(sorted(names))}")
    labels = {item: label for label, item in enumerate(order)}
    lines, foreign = list(problems), Counter[str]()
    samples = [_sample(record, task, labels, lines, foreign) for record in records]
    lines += [f"{name}: {count} objects of class {item!r} dropped: not asked for" for item, count in foreign.items()]
    return Dataset(name=name, task=task, classes=order, samples=tuple(samples), problems=tuple(lines))


def _sample(record: Record, task: str, labels: dict[str, int], lines: list[str], foreign: Counter[str]) -> Sample:
    """Make one sample, adding dropped objects to `lines` and `foreign`."""
    kept = []
    for annotation in record.annotations:
        if not _has_area(annotation.box):
            box = ", ".join(f"{value:g}" for value in annotation.box)
            lines.append(f"{annotation.where}: {annotation.name} [{box}] {NO_AREA}")
        elif annotation.name not in labels:
            foreign[annotation.name] += 1
        else:
            kept.append(annotation)
            if annotation.note:
                lines.append(f"{annotation.where}: {annotation.note}")
    columns = 5 if task == "obb" else 4
    return Sample(
        path=record.path,
        size=record.size,
        boxes=np.array([item.box for item in kept], dtype=np.float32).reshape(-1, columns),
        labels=np.array([labels[item.name] for item in kept], dtype=np.int64),
        difficult=np.array([item.difficult for item in kept], dtype=np.bool_),
        crowd=np.array([item.crowd for item in kept], dtype=np.bool_) if any(item.crowd for item in kept) else None,
    )


def _has_area(box: tuple[float, ...]) -> bool:
    if len(box) == 5:
        return box[2] > 0 and box[3] > 0
    return box[2] > box[0] and box[3] > box[1]
