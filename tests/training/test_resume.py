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


def test_same_images_in_another_order_are_another_run(small: Callable[..., Recipe]) -> None:
    """Batches count images by number, so that a list that was sorted gives others."""
    recipe = small()
    splits = read_splits(recipe)
    before = RunIdentity(recipe, splits, {}).to_dict()
    turned = {name: dataclasses.replace(each, samples=each.samples[::-1]) for name, each in splits.items()}
    now = RunIdentity(recipe, turned, {})
    with pytest.raises(RecipeError, match=r"\(training order: the same images are in another order now.*--no-resume"):
        now.check(before, Path("out"))
    RunIdentity(recipe, {**turned, "train": splits["train"]}, {}).check(before, Path("out"))  # of val it means nothing
    RunIdentity(recipe, splits, {}).check(before, Path("out"))
    del before["training order"]  # as edgekd wrote it before
    now.check(before, Path("out"))


def test_other_data_under_the_same_path_is_another_run(small: Callable[..., Recipe]) -> None:
    recipe = small()
    splits = read_splits(recipe)
    mine = RunIdentity(recipe, splits, {})
    relabelled = changed(splits["train"], labels=1 - splits["train"].samples[0].labels)
    with pytest.raises(RecipeError, match=r"run \(training data: [^;]*\); use"):
        RunIdentity(recipe, {**splits, "train": relabelled}, {}).check(mine.to_dict(), Path("out"))
