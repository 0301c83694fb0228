"""Is what lies in a folder the same run?"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .data.sample import Dataset, Sample

FREE = {
    "name",
    "predict",
    "data",  # its content is compared by fingerprint, so that a folder may move
    "teacher",  # likewise
    "teachers",
    "unlabelled.images",
    "qat",  # of a run that follows; that one has it in its [train]
    "train.threads",
    "train.workers",
    "train.eval_every",
    "train.checkpoint_every",
}
"""Recipe keys that do not change what a step computes."""


SPLITS = {"train": "training", "val": "validation", "test": "test", "unlabelled": "unlabelled"}
ORDERED = {f"{SPLITS[name]} order": f"{SPLITS[name]} data" for name in ("train", "unlabelled")}
"""Sets whose order decides the batches, which count images by number: key -> key of their content."""


class Plan(Protocol):
    """A recipe of any task."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        ...


class Known(Protocol):
    """A teacher that says where it comes from: at least "state_sha256"; of an own network "taps"."""

    @property
    def source(self) -> dict[str, Any]:
        """Plain values."""
        ...


class RunIdentity:
    """What decides the outcome of a run: recipe keys, data, its order, and teachers; and what a student was made of."""

    def __init__(
        self,
        recipe: Plan,
        data: Mapping[str, Dataset],
        teachers: Mapping[str, Known],
        prepare: object = None,
        made_of: Mapping[str, str] | None = None,
    ) -> None:
        self.values = {key: value for key, value in _flat(recipe.to_dict()).items() if key not in FREE}
        self.values.update({f"{SPLITS[name]} data": data_fingerprint(each) for name, each in data.items()})
        self.values.update(
            {f"{SPLITS[name]} order": data_order(data[name]) for name in ("train", "unlabelled") if name in data}
        )
        for name, teacher in teachers.items():
            whose = "teacher" if name == "teacher" else f"teacher {name}"
            self.values[whose] = teacher.source["state_sha256"]
            if "taps" in teacher.source:
                self.values[f"{whose} taps"] = teacher.source["taps"]
        self.values.update({f"student {name}": value for name, value in (made_of or {}).items()})
        if prepare is not None:
            self.values["prepare"] = getattr(prepare, "__qualname__", type(prepare).__qualname__)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint's metadata."""
        return self.values

    def check(self, other: dict[str, Any], folder: Path) -> None:
        """Compare with the identity in a checkpoint; one from before orders were noted may have any.

        Raises:
            RecipeError: they differ; the message says where and what to type.
        """
        mine = comparable(self.values, other)
        keys = [key for key in sorted({*mine, *other}) if mine.get(key) != other.get(key)]
        keys = [key for key in keys if ORDERED.get(key) not in keys]  # other images have another order too
        if keys:
            changes = "; ".join(
                f"{key}: the same images are in another order now, and batches would be others"
                if key in ORDERED
                else f"{key}: {other.get(key)!r} there, {mine.get(key)!r} now"
                for key in keys[:5]
            )
            raise RecipeError(
                f"{folder} holds another run ({changes}); use another --out, or --no-resume to remove it and start anew"
            )


def comparable(values: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without the orders that another one, of an earlier edgekd, does not know."""
    return {key: value for key, value in values.items() if key in other or key not in ORDERED}


def data_fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 over class names and, for each image, its file name, size and annotations; in any order."""
    return _digest(dataset, sorted(dataset.samples, key=lambda item: item.path.name))


def data_order(dataset: Dataset) -> str:
    """Return the same over the images in the order they have."""
    return _digest(dataset, dataset.samples)


def _digest(dataset: Dataset, samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256(repr((dataset.task, dataset.classes)).encode())
    for sample in samples:
        digest.update(f"{sample.path.name} {sample.size} {sample.boxes.shape}\n".encode())
        for column in (sample.boxes, sample.labels, sample.difficult):
            digest.update(column.tobytes())
    return digest.hexdigest()


def _flat(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the top-level keys; [input], [augment], [train], [student] and [unlabelled] spread as "section.key"."""
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        if key in ("input", "augment", "train", "student", "unlabelled") and value is not None:
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    return flat
