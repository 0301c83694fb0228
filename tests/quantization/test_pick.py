"""Which images calibrate: no copies, every kind of object and light, the same ones in every process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekd.geometry import resize
from edgekd.quantization.pick import NEAR, View, _strata, distinct, fingerprint, pick, view

from ..conformance import bundles

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_OBJECTS = (np.empty(0, np.int64), np.empty((0, 4), np.float32))


def scene(seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    """Return a picture of blobs, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3))
    return np.asarray(coarse.repeat(10, axis=0).repeat(10, axis=1), np.uint8)


def jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    held = io.BytesIO()
    Image.fromarray(image).save(held, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(held))


COPIES = {
    "itself": lambda image: image,
    "jpeg 70": lambda image: jpeg(image, 70),
    "half the size": lambda image: resize(image, 45, 60),
    "twice the size": lambda image: resize(image, 180, 240),
    "noise": lambda image: np.clip(
        image.astype(int) + np.random.default_rng(1).integers(-4, 5, image.shape), 0, 255
    ).astype(np.uint8),
    "brighter": lambda image: (image * 0.9 + 25).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_near_copies_are_dropped_and_other_scenes_are_not(kind: str) -> None:
    images = [scene(seed) for seed in range(12)]
    copies = [COPIES[kind](image) for image in images]
    views = [view(image, *NO_OBJECTS) for image in (*images, *copies)]
    assert distinct(views) == list(range(12)), "the first of each is kept, and no scene is taken for another"
    assert pick(views, 100) == list(range(12))


def test_fingerprint_is_that_of_neighbouring_places() -> None:
    ramp = np.broadcast_to(np.linspace(255, 0, 90).astype(np.uint8)[None, :, None], (80, 90, 3))
    assert fingerprint(ramp).all()
    assert not fingerprint(np.ascontiguousarray(ramp[:, ::-1])).any()
    assert fingerprint(scene(0)).shape == (64,)


def made(bits: int, brightness: float, labels: list[int], boxes: list[list[float]], columns: int = 4) -> View:
    """Return a view of a 640 x 480 image; fingerprints of different `bits` are far apart."""
    mark = np.random.default_rng(bits).random(64) > 0.5
    held = np.array(boxes, np.float32).reshape(-1, columns)
    return View(mark, brightness, np.array(labels, np.int64), held, (640, 480))


def test_fingerprints_that_differ_by_less_than_the_bound_are_one_image() -> None:
    first = made(0, 0.5, [], [])
    for flipped, kept in ((NEAR - 1, [0]), (NEAR, [0, 1])):
        mark = first.fingerprint.copy()
        mark[:flipped] ^= True
        assert distinct([first, View(mark, *NO_VIEW)]) == kept


NO_VIEW = (0.5, *NO_OBJECTS, (640, 480))


def views_of(seed: int, count: int, *, oriented: bool) -> list[View]:
    """Return views whose strata are very uneven: most show one large object of class 0 in daylight."""
    rng = np.random.default_rng(seed)
    columns = 5 if oriented else 4
    views = []
    for index in range(count):
        objects = int(rng.integers(0, 4))
        side = 2.0 ** -rng.integers(0, 7, objects) * 400
        labels = np.minimum(rng.geometric(0.6, objects) - 1, 7)
        if oriented:
            boxes = np.stack([side, side, side, side, rng.uniform(-np.pi / 2, np.pi / 2, objects)], axis=1)
        else:
            boxes = np.stack([np.zeros(objects), np.zeros(objects), side, side], axis=1)
        light = float(np.clip(rng.normal(0.5, 0.2), 0, 1))
        views.append(made(1000 * seed + index, light, labels.tolist(), boxes.tolist(), columns))
    return views


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 80), oriented=st.booleans())
def test_every_stratum_is_among_the_chosen_where_the_count_allows(seed: int, count: int, oriented: bool) -> None:
    views = views_of(seed, count, oriented=oriented)
    present = {stratum for index in distinct(views) for stratum in _strata(views[index])}
    chosen = pick(views, len(present))
    assert {stratum for index in chosen for stratum in _strata(views[index])} == present
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= len(present)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), most=st.integers(1, 70))
def test_as_many_are_chosen_as_there_are_or_were_asked_for(seed: int, count: int, most: int) -> None:
    views = views_of(seed, count, oriented=False)
    chosen = pick(views, most)
    assert len(chosen) == min(most, len(distinct(views)))
    assert set(chosen) <= set(distinct(views))


def test_strata_are_evened_out() -> None:
    """95 bright images and 5 dark ones: of ten chosen, all the dark ones."""
    views = [made(index, 0.9 if index % 20 else 0.1, [0], [[0, 0, 100, 100]]) for index in range(100)]
    chosen = pick(views, 10)
    assert {index for index in chosen if index % 20 == 0} == {0, 20, 40, 60, 80}


def test_strata_of_an_image() -> None:
    upright = made(0, 0.5, [2, 2, 1], [[0, 0, 640, 480], [0, 0, 320, 240], [10, 10, 10, 40]])
    assert set(_strata(upright)) == {
        ("brightness", 2), ("class", 1), ("class", 2), ("size", 0), ("size", 1), ("size", 5)
    }  # fmt: skip
    assert set(_strata(made(0, 1.0, [], []))) == {("brightness", 4), ("empty",)}
    turned = made(0, 0.0, [0, 0], [[9, 9, 640, 480, -np.pi / 2], [9, 9, 640, 480, np.pi / 2 - 1e-3]], columns=5)
    assert set(_strata(turned)) == {("brightness", 0), ("class", 0), ("size", 0), ("angle", 0), ("angle", 5)}


def test_images_without_annotations_are_spread_by_brightness() -> None:
    images = [np.clip(scene(seed).astype(int) // 4 + 190 * (seed % 2), 0, 255).astype(np.uint8) for seed in range(20)]
    views = [view(image, *NO_OBJECTS) for image in images]
    assert sorted(index % 2 for index in pick(views, 6)) == [0, 0, 0, 1, 1, 1]


CHILD = """
import json
from tests.quantization.test_pick import pick, views_of
print(json.dumps(pick(views_of(3, 70, oriented=True), 12)))
"""


def test_choice_is_the_same_in_every_process() -> None:
    root = str(Path(__file__).parents[2])
    found = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, env=environment, cwd=root
        )
        found.add(tuple(json.loads(done.stdout)))
    assert found == {tuple(pick(views_of(3, 70, oriented=True), 12))}


def test_pictures_of_the_conformance_suite_are_all_different() -> None:
    assert len(distinct([view(image, *NO_OBJECTS) for image in bundles.pictures(9)])) == 9
