"""Is what lies in a folder the same run?"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from .._recipe import Recipe
    from .data.sample import Dataset
    from .teacher import Teacher

FREE = {
    "name",
    "predict",
    "data",  # its content is compared by fingerprint, so that a folder may move
    "teacher",  # likewise
    "train.threads",
    "train.workers",
    "train.eval_every",
    "train.checkpoint_every",
}
"""Recipe keys that do not change what a step computes."""


class RunIdentity:
    """What decides the outcome of a run: recipe keys, data and teacher."""

    def __init__(self, recipe: Recipe, train: Dataset, val: Dataset, teacher: Teacher | None) -> None:
        self.values = {key: value for key, value in _flat(recipe.to_dict()).items() if key not in FREE}
        self.values["training data"] = data_fingerprint(train)
        self.values["validation data"] = data_fingerprint(val)
        self.values["teacher"] = teacher.source["state_sha256"] if teacher is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint's metadata."""
        return self.values

    def check(self, other: dict[str, Any], folder: Path) -> None:
        """Compare with the identity in a checkpoint.

        Raises:
            RecipeError: they differ; the message says where and what to type.
        """
        keys = [key for key in sorted({*self.values, *other}) if self.values.get(key) != other.get(key)]
        if keys:
            changes = "; ".join(f"{key}: {other.get(key)!r} there, {self.values.get(key)!r} now" for key in keys[:5])
            raise RecipeError(
                f"{folder} holds another run ({changes}); use another --out, or --no-resume to remove it and start anew"
            )


def data_fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 over class names and, for each image, its file name, size and annotations."""
    digest = hashlib.sha256(repr((dataset.task, dataset.classes)).encode())
    for sample in sorted(dataset.samples, key=lambda item: item.path.name):
        digest.update(f"{sample.path.name} {sample.size} {sample.boxes.shape}\n".encode())
        for column in (sample.boxes, sample.labels, sample.difficult):
            digest.update(column.tobytes())
    return digest.hexdigest()


def _flat(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the top-level keys, the sections [input], [augment], [train] and [student] spread as "section.key"."""
    flat: dict[str, Any] = {}
    for key, value in raw.items():
        if key in ("input", "augment", "train", "student"):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    return flat
