"""Aerial pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgekd.geometry import xywhr_to_corners
from edgekd.training.data.polygon import regularise
from edgekd.training.data.synth import Annotations, aerial
from edgekd.training.data.synth.aerial_canvas import SEEN, Canvas
from edgekd.training.data.synth.aerial_objects import building, ship, vehicle

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 16


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, Annotations]]:
    return [aerial.scene(4, index, size=320) for index in range(COUNT)]


def blank(water: bool = False) -> Canvas:
    canvas = Canvas(np.full((160, 200, 3), 0.5, np.float32), np.zeros((160, 200), np.float32), 5.0, (0.0, 0.0))
    canvas.water[:] = water
    return canvas


def test_scene_when_drawn_then_boxes_are_long_edge_and_angles_in_range(
    scenes: list[tuple[np.ndarray, Annotations]],
) -> None:
    boxes = np.concatenate([found.boxes for _, found in scenes])
    assert boxes.dtype == np.float32
    assert (boxes[:, 2] >= boxes[:, 3]).all()
    assert (boxes[:, 3] >= 3).all()
    assert (boxes[:, 4] >= np.float32(-np.pi / 2)).all()
    assert (boxes[:, 4] < np.float32(np.pi / 2)).all()
    assert np.histogram(boxes[:, 4], 6, (-np.pi / 2, np.pi / 2))[0].min() > 0


def test_scene_when_drawn_then_all_classes_and_cut_objects_occur(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    labels = np.concatenate([found.labels for _, found in scenes])
    assert (np.bincount(labels, minlength=3) > 10).all()
    visibility = np.concatenate([found.visibility for _, found in scenes])
    assert visibility.min() >= SEEN
    assert 0.005 < (visibility < 0.999).mean() < 0.3


def test_scene_when_drawn_then_objects_do_not_overlap(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    for _, found in scenes:
        corners = xywhr_to_corners(found.boxes)
        for i in range(len(corners)):
            for j in range(i):
                if np.linalg.norm(found.boxes[i, :2] - found.boxes[j, :2]) < found.boxes[[i, j], 2].max():
                    shared, _ = cv2.intersectConvexConvex(corners[i], corners[j])
                    assert shared < 0.1 * min(found.boxes[i, 2:4].prod(), found.boxes[j, 2:4].prod())


def test_scene_when_drawn_then_some_lots_are_dense(scenes: list[tuple[np.ndarray, Annotations]]) -> None:
    close = 0
    for _, found in scenes:
        cars = found.boxes[found.labels == 0]
        distance = np.linalg.norm(cars[:, None, :2] - cars[None, :, :2], axis=2) + 1e9 * np.eye(len(cars))
        close += int((distance.min(1, initial=1e9) < 1.8 * cars[:, 3]).sum())
    assert close > 30


def draw_vehicle(canvas: Canvas, rng: np.random.Generator, angle: float) -> bool:
    return vehicle(canvas, rng, 100, 80, angle, (12.0, 3.0))


def draw_ship(canvas: Canvas, rng: np.random.Generator, angle: float) -> bool:
    return ship(canvas, rng, 100, 80, angle, (20.0, 5.0), wake=False)


def draw_building(canvas: Canvas, rng: np.random.Generator, angle: float) -> bool:
    return building(canvas, rng, 100, 80, angle, (18.0, 9.0))


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, 2.6, -0.8])
@pytest.mark.parametrize(
    ("draw", "fill"),
    [(draw_vehicle, 0.93), (draw_ship, 0.6), (draw_building, 0.97)],
    ids=["vehicle", "ship", "building"],
)
def test_object_when_drawn_alone_then_its_box_is_the_rectangle_of_the_changed_pixels(
    draw: Callable[[Canvas, np.random.Generator, float], bool], fill: float, angle: float
) -> None:
    canvas = blank(water=draw is draw_ship)
    assert draw(canvas, np.random.default_rng(1), angle)
    x, y, w, h, r = regularise(canvas.boxes)[0]
    rows, columns = np.nonzero((np.abs(canvas.rgb - 0.5) > 1e-3).any(-1))
    away = np.stack([columns + 0.5 - x, rows + 0.5 - y], 1)
    along = away @ (np.cos(r), np.sin(r))
    across = away @ (-np.sin(r), np.cos(r))
    for distances, side in ((along, w), (across, h)):
        assert -distances.min() == pytest.approx(side / 2, abs=1.2)
        assert distances.max() == pytest.approx(side / 2, abs=1.2)
    assert len(rows) > fill * w * h


def test_canvas_when_ground_is_taken_then_a_second_object_finds_no_room() -> None:
    canvas = blank()
    rng = np.random.default_rng(0)
    assert vehicle(canvas, rng, 100, 80, 0.0, (4.5, 1.8))
    assert not vehicle(canvas, rng, 104, 80, 0.0, (4.5, 1.8))
    assert vehicle(canvas, rng, 100, 95, 0.0, (4.5, 1.8))
    assert len(canvas.boxes) == 2


def test_canvas_when_asked_for_the_wrong_ground_then_there_is_no_room() -> None:
    land, water = blank(), blank(water=True)
    assert land.room(100, 80, 4, 2, 0.0)
    assert not land.room(100, 80, 4, 2, 0.0, on_water=True)
    assert not land.room(100, 80, 4, 2, 0.0, on_road=True)
    assert not water.room(100, 80, 4, 2, 0.0)
    assert water.room(100, 80, 4, 2, 0.0, on_water=True)


def test_canvas_when_an_object_leaves_the_image_then_only_the_seen_share_counts() -> None:
    canvas = blank()
    assert canvas.inside((100.0, 0.0, 40.0, 20.0, 0.0)) == pytest.approx(0.5)
    assert canvas.room(100, 0, 8, 4, 0.0)
    assert not canvas.room(100, -6, 8, 4, 0.0)
