"""What makes two runs the same run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd.errors import RecipeError
from edgekd.training.resume import RunIdentity, data_fingerprint
from edgekd.training.run import read_splits

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd._recipe import Recipe
    from edgekd.training.data.sample import Dataset


def changed(dataset: Dataset, **columns: object) -> Dataset:
    first = dataclasses.replace(dataset.samples[0], **columns)  # type: ignore[arg-type]
    return dataclasses.replace(dataset, samples=(first, *dataset.samples[1:]))


def test_fingerprint_sees_content_and_not_place_or_order(small: Callable[..., Recipe]) -> None:
    dataset = read_splits(small())["train"]
    known = data_fingerprint(dataset)
    first = dataset.samples[0]
    assert data_fingerprint(dataclasses.replace(dataset, samples=dataset.samples[::-1], name="elsewhere")) == known
    assert data_fingerprint(changed(dataset, path=Path("/elsewhere") / first.path.name)) == known
    for other in (
        changed(dataset, boxes=first.boxes + np.float32(0.001)),
        changed(dataset, labels=1 - first.labels),
        changed(dataset, difficult=~first.difficult),
        changed(dataset, path=first.path.with_name("renamed.png")),
        dataclasses.replace(dataset, classes=("red", "green")),
        dataclasses.replace(dataset, samples=dataset.samples[1:]),
    ):
        assert data_fingerprint(other) != known


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"lr": 0.5}, "train.lr"),
        ({"seed": 4}, "train.seed"),
        ({"amp": True}, "train.amp"),
        ({"steps": 7}, "train.steps"),
    ],
)
def test_other_recipe_is_named_by_its_key(small: Callable[..., Recipe], changes: dict[str, object], key: str) -> None:
    recipe = small()
    splits = read_splits(recipe)
    mine, other = (RunIdentity(r, splits, {}) for r in (recipe, small(**changes)))
    with pytest.raises(RecipeError, match=rf"out holds another run \({key}: .* --no-resume"):
        mine.check(other.to_dict(), Path("out"))
    mine.check(mine.to_dict(), Path("out"))


def test_other_data_under_the_same_path_is_another_run(small: Callable[..., Recipe]) -> None:
    recipe = small()
    splits = read_splits(recipe)
    mine = RunIdentity(recipe, splits, {})
    relabelled = changed(splits["train"], labels=1 - splits["train"].samples[0].labels)
    with pytest.raises(RecipeError, match="training data"):
        RunIdentity(recipe, {**splits, "train": relabelled}, {}).check(mine.to_dict(), Path("out"))
