"""Augmentation: boxes are checked against the pixels of drawn rectangles, not against the formulas."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd._recipe import AugmentConfig
from edgekd.errors import UsageError
from edgekd.geometry import xywhr_to_corners
from edgekd.training.data.augment import VISIBLE, Augment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

HEIGHT, WIDTH, PAD = 192, 256, 114
OFF = AugmentConfig(flip=0, scale=(1, 1), translate=0, hsv=(0, 0, 0))
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255))
Scene = tuple["NDArray[np.uint8]", "NDArray[np.float32]", "NDArray[np.int64]"]


def distances(shape: tuple[int, ...], box: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far pixel centres are outside a box's long and short sides; negative inside."""
    if len(box) == 4:
        box = np.array([*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2]), 0])
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    cos, sin = math.cos(box[4]), math.sin(box[4])
    along, across = (x - box[0]) * cos + (y - box[1]) * sin, (y - box[1]) * cos - (x - box[0]) * sin
    return np.abs(along) - box[2] / 2, np.abs(across) - box[3] / 2


def scene(rng: np.random.Generator, colour: tuple[int, ...], *, oriented: bool) -> Scene:
    """A black picture, 150 high and 210 wide, with one filled box at least 30 px from its border."""
    width, height = rng.integers(28, 60), rng.integers(12, 20)
    x, y = rng.integers(62, 148), rng.integers(62, 88)
    if oriented:
        box = np.array([x, y, width, height, rng.uniform(-1.57, 1.57)], np.float32)
    else:
        box = np.array([x - 20, y - 15, x - 20 + width, y - 15 + height], np.float32)
    along, across = distances((150, 210), box)
    cover = np.clip(0.5 - along, 0, 1) * np.clip(0.5 - across, 0, 1)
    image = np.round(cover[..., None] * colour).astype(np.uint8)
    return image, box[None], np.array([COLOURS.index(colour)])


def scenes(seed: int, *, oriented: bool) -> Callable[[], Scene]:
    """Return a `pick` that gives one scene of each colour."""
    rng = np.random.default_rng(seed)
    return (scene(rng, colour, oriented=oriented) for colour in COLOURS).__next__


def view(config: AugmentConfig, seed: int, pick: Callable[[], Scene]) -> Scene:
    return Augment(config, HEIGHT, WIDTH, PAD)(np.random.default_rng(seed), pick)


def measure(image: NDArray[np.uint8], box: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Return x, y, w, h, angle of the object's pixels around a box, from their moments (w² / 12 is a variance)."""
    along, across = distances(image.shape, box)
    near = (along < 6) & (across < 6)
    weight = near * image[..., np.array(COLOURS[label]) > 0].astype(float).mean(-1)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    total = weight.sum()
    cx, cy = (weight * x).sum() / total, (weight * y).sum() / total
    xx, yy = (weight * (x - cx) ** 2).sum() / total, (weight * (y - cy) ** 2).sum() / total
    xy = (weight * (x - cx) * (y - cy)).sum() / total
    if len(box) == 4:
        return np.array([cx, cy, math.sqrt(12 * xx), math.sqrt(12 * yy), 0])
    low, high = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return np.array([cx, cy, math.sqrt(12 * high), math.sqrt(12 * low), math.atan2(2 * xy, xx - yy) / 2])


def check(image: NDArray[np.uint8], box: NDArray[np.float32], label: int) -> None:
    found = measure(image, box, label)
    if len(box) == 4:
        box = np.array([*(box[:2] + box[2:]) / 2, *(box[2:] - box[:2]), 0])
    np.testing.assert_allclose(found[:2], box[:2], atol=0.2)
    np.testing.assert_allclose(found[2:4], box[2:4], atol=0.6)
    assert abs(math.sin(found[4] - box[4])) < 0.03


def inside(box: NDArray[np.float32]) -> bool:
    corners = xywhr_to_corners(box[None])[0]
    return bool((corners > 1).all() and (corners < (WIDTH - 1, HEIGHT - 1)).all())


GEOMETRY: list[dict[str, Any]] = [
    {},
    {"flip": 1.0},
    {"flip_vertical": 1.0},
    {"flip": 1.0, "flip_vertical": 1.0},
    {"scale": (0.6, 1.5)},
    {"translate": 0.3},
    {"flip": 0.5, "flip_vertical": 0.5, "scale": (0.7, 1.4), "translate": 0.2},
]
ROTATED: list[dict[str, Any]] = [
    {"rotate_deg": 180.0},
    {"rotate_deg": 30.0, "flip": 0.5, "flip_vertical": 0.5, "scale": (0.7, 1.4), "translate": 0.1},
]


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("changes", GEOMETRY)
def test_upright_box_of_any_view_is_where_the_object_is(changes: dict[str, Any], mosaic: float) -> None:
    config, checked = dataclasses.replace(OFF, mosaic=mosaic, **changes), 0
    for seed in range(15):
        image, boxes, labels = view(config, seed, scenes(seed, oriented=False))
        for box, label in zip(boxes, labels, strict=True):
            check(image, box, label)
            checked += 1
    assert checked >= 12


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("changes", GEOMETRY + ROTATED)
def test_oriented_box_of_any_view_is_where_the_object_is(changes: dict[str, Any], mosaic: float) -> None:
    config, checked = dataclasses.replace(OFF, mosaic=mosaic, **changes), 0
    for seed in range(15):
        image, boxes, labels = view(config, seed, scenes(seed, oriented=True))
        assert (boxes[:, 2] >= boxes[:, 3]).all()
        assert ((boxes[:, 4] >= np.float32(-math.pi / 2)) & (boxes[:, 4] < np.float32(math.pi / 2))).all()
        for box, label in zip(boxes, labels, strict=True):
            if inside(box):
                check(image, box, label)
                checked += 1
    assert checked >= 9


@pytest.mark.parametrize("changes", ROTATED)
def test_upright_box_of_a_rotated_view_is_the_hull_of_the_object(changes: dict[str, Any]) -> None:
    for seed in range(40):
        image, boxes, _ = view(dataclasses.replace(OFF, **changes), seed, scenes(seed, oriented=False))
        for box in boxes:
            rows, columns = np.nonzero((image[..., 0] > 40) & (image[..., 1] == 0))
            hull = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, hull, atol=1.6)


def test_nothing_configured_is_a_centred_letterbox() -> None:
    image = np.full((100, 200, 3), 7, np.uint8)
    found, boxes, _ = view(OFF, 0, lambda: (image, np.array([[0, 0, 200, 100]], np.float32), np.array([0])))
    assert found.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(boxes, [[0, 32, 256, 160]], atol=1e-4)
    assert (found[:31] == PAD).all()
    assert (found[161:] == PAD).all()
    assert (found[33:159, 1:-1] == 7).all()


def test_pixels_of_an_identity_view_are_those_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    found, _, _ = view(OFF, 0, lambda: (image, np.empty((0, 4), np.float32), np.empty(0, np.int64)))
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_image_without_objects_gives_no_boxes(columns: int, mosaic: float) -> None:
    nothing = np.zeros((50, 40, 3), np.uint8), np.empty((0, columns), np.float32), np.empty(0, np.int64)
    _, boxes, labels = view(dataclasses.replace(OFF, mosaic=mosaic, rotate_deg=90), 0, lambda: nothing)
    assert boxes.shape == (0, columns)
    assert (boxes.dtype, labels.dtype, labels.shape) == (np.float32, np.int64, (0,))


@given(seed=st.integers(0, 10_000))
@settings(deadline=None)
def test_cut_upright_box_stays_exactly_when_enough_of_it_is_visible(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(OFF, scale=(1.5, 1.5), translate=0.4)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    start = rng.uniform(0, [WIDTH - 30, HEIGHT - 30])
    box = np.concatenate([start, start + rng.uniform(4, 30, 2)]).astype(np.float32)
    middle = np.array([[WIDTH / 2, HEIGHT / 2, 2, 2, 0]], np.float32)
    _, found, _ = view(config, seed, lambda: (image, box[None], np.array([0])))
    _, centre, _ = view(config, seed, lambda: (image, middle, np.array([0])))  # tells the shift of this seed
    moved = (box.reshape(2, 2) - (WIDTH / 2, HEIGHT / 2)) * 1.5 + centre[0, :2]
    clipped = np.clip(moved, 0, (WIDTH, HEIGHT))
    share = np.prod(clipped[1] - clipped[0]) / np.prod(moved[1] - moved[0])
    if abs(share - VISIBLE) > 1e-3:
        assert len(found) == (share > VISIBLE)
    if len(found):
        np.testing.assert_allclose(found[0].reshape(2, 2), clipped, atol=1e-3)


def test_oriented_box_is_dropped_when_its_centre_leaves() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    boxes = np.array([[60, 96, 90, 6, 0.2], [128, 96, 30, 6, 0.2]], np.float32)
    _, found, labels = view(dataclasses.replace(OFF, scale=(2, 2)), 0, lambda: (image, boxes, np.array([0, 1])))
    assert labels.tolist() == [1]
    np.testing.assert_allclose(found, [[128, 96, 60, 12, 0.2]], rtol=1e-5)


def test_box_beyond_its_image_does_not_cover_the_padding() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    _, boxes, _ = view(OFF, 0, lambda: (image, np.array([[50, -80, 250, 60]], np.float32), np.array([0])))
    np.testing.assert_allclose(boxes, [[64, 32, 256, 32 + 60 * 1.28]], atol=1e-4)


def test_colour_changes_leave_boxes_and_grey_hue_alone() -> None:
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    boxes = np.array([[5, 6, 50, 60]], np.float32)
    config = dataclasses.replace(OFF, hsv=(0.5, 0.9, 0.5))
    found, moved, _ = view(config, 3, lambda: (image, boxes, np.array([0])))
    np.testing.assert_allclose(moved, boxes, atol=1e-4)
    assert np.abs(found.astype(int) - image).mean() > 5
    grey = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    found, _, _ = view(config, 3, lambda: (grey, boxes, np.array([0])))
    assert np.ptp(found, axis=-1).max() <= 1
    value_only = dataclasses.replace(OFF, hsv=(0, 0, 0.5))
    levels = {int(view(value_only, seed, lambda: (grey, boxes, np.array([0])))[0][0, 0, 0]) for seed in range(30)}
    assert 50 <= min(levels) < 80
    assert 120 < max(levels) <= 150


def test_hue_turns_by_the_configured_share() -> None:
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    nothing = np.empty((0, 4), np.float32), np.empty(0, np.int64)
    hues = []
    for seed in range(60):
        found, _, _ = view(dataclasses.replace(OFF, hsv=(0.1, 0, 0)), seed, lambda: (red, *nothing))
        hue = int(cv2.cvtColor(found[:1, :1], cv2.COLOR_RGB2HSV)[0, 0, 0])
        hues.append((hue + 90) % 180 - 90)
    assert -18 <= min(hues) < -10
    assert 10 < max(hues) <= 18


def test_mosaic_shows_four_pictures_once_each() -> None:
    calls = []

    def pick() -> Scene:
        colour = COLOURS[len(calls)]
        calls.append(colour)
        return np.full((100, 120, 3), colour, np.uint8), np.empty((0, 4), np.float32), np.empty(0, np.int64)

    image, _, _ = view(dataclasses.replace(OFF, mosaic=1.0), 0, pick)
    assert len(calls) == 4
    assert min((image == colour).all(-1).mean() for colour in COLOURS) > 0.02


def test_same_generator_gives_the_same_view_and_inputs_stay() -> None:
    config = AugmentConfig(mosaic=0.5, rotate_deg=20, flip_vertical=0.5)
    pick = scenes(0, oriented=True)
    given_ = [pick() for _ in range(4)]
    before = [tuple(column.copy() for column in item) for item in given_]
    for seed in range(6):
        a, b = (view(config, seed, iter(given_).__next__) for _ in range(2))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(np.array_equal(x, y) for a, b in zip(before, given_, strict=True) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("scale", [(0.0, 1.0), (1.2, 0.8), (-1.0, 1.0)])
def test_impossible_scale_raises(scale: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match=r"augment.scale should be two positive factors"):
        Augment(dataclasses.replace(OFF, scale=scale), 8, 8, PAD)
