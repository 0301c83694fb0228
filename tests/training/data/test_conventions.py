"""One convention from every file to every view: radians, clockwise, y down, le90; checked on corners, not on angles."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import ops
from edgekd._recipe import AugmentConfig
from edgekd.geometry import xywhr_to_corners
from edgekd.training.data.augment import Augment
from edgekd.training.data.polygon import as_xywhr, quads_to_xywhr, regularise, stretch, xywhr_to_quads
from edgekd.training.data.read import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

OFF = AugmentConfig(flip=0, scale=(1, 1), translate=0, hsv=(0, 0, 0))
TAGS = [f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"]
boxes = st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(2, 80), st.floats(2, 80), st.floats(-4, 4))


def apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return how far the corners `(4, 2)` of one rectangle are from the nearest of another's, at most."""
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return float(max(distance.min(axis=0).max(), distance.min(axis=1).max()))


def is_le90(found: NDArray[Any]) -> bool:
    low, high = np.float32(-math.pi / 2), np.float32(math.pi / 2)
    return bool((found[:, 2] >= found[:, 3]).all() and ((found[:, 4] >= low) & (found[:, 4] < high)).all())


def element(**values: object) -> str:
    return "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items())


def written(form: str, found: NDArray[np.float64], folder: Path) -> None:
    """Write the objects of image a, 64x48 px, in one format; corners are numbered from another one for each object."""
    quads = [np.roll(quad, k, axis=0) for k, quad in enumerate(xywhr_to_quads(found))]
    if form == "dota":
        lines = [" ".join(map(repr, quad.reshape(-1).tolist())) + " a 0" for quad in quads]
        files = {"labelTxt/a.txt": "\n".join(lines)}
    elif form == "ucas":
        lines = [" ".join(map(repr, quad.reshape(-1).tolist())) + " 0 0 0 9 9" for quad in quads]
        files = {"CAR/a.txt": "\n".join(lines)}
    elif form == "yolo-obb":
        files = {"labels/a.txt": "\n".join("0 " + " ".join(map(repr, (q / (64, 48)).ravel().tolist())) for q in quads)}
    elif form == "coco-obb":
        rows = [
            {"id": k, "image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9], "segmentation": [quad.ravel().tolist()]}
            for k, quad in enumerate(quads)
        ]
        content = {"images": [{"id": 0, "file_name": "a.png"}], "annotations": rows}
        files = {"t.json": json.dumps({**content, "categories": [{"id": 0, "name": "a"}]})}
    elif form == "dior":
        inner = [element(**dict(zip(TAGS, quad.ravel().tolist(), strict=True))) for quad in quads]
        rows_xml = "".join(f"<object><name>a</name><robndbox>{text}</robndbox></object>" for text in inner)
        files = {"Annotations/a.xml": f"<annotation>{rows_xml}</annotation>"}
    else:
        names = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
        inner = [element(**dict(zip(names, box.tolist(), strict=True))) for box in found]
        rows_xml = "".join(f"<HRSC_Object>{text}</HRSC_Object>" for text in inner)
        files = {"Annotations/a.xml": f"<HRSC_Image><HRSC_Objects>{rows_xml}</HRSC_Objects></HRSC_Image>"}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("form", ["dota", "dior", "hrsc", "ucas", "yolo-obb", "coco-obb"])
def test_every_reader_gives_the_same_rectangles(form: str, tmp_path: Path, picture: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    given_ = np.stack([rng.uniform(20, 40, 40), rng.uniform(15, 30, 40), *rng.uniform(2, 20, (2, 40))], axis=1)
    given_ = np.concatenate([given_, rng.uniform(-math.pi, math.pi, (40, 1))], axis=1)  # sides in any order
    given_[0, 2:] = 9, 4, math.pi / 2  # the end of the range, which is its beginning
    picture("CAR/a.png" if form == "ucas" else "images/a.png")
    written(form, given_, tmp_path)
    found = read(tmp_path, form).samples[0].boxes
    assert found.dtype == np.float32
    assert is_le90(found)
    for mine, theirs in zip(xywhr_to_corners(found), xywhr_to_quads(given_), strict=True):
        assert apart(mine, theirs) < 1e-3


def test_positive_angle_turns_the_long_side_clockwise_on_the_image() -> None:
    """At 30 degrees the right end of a wide box is lower, so its y is larger."""
    right = xywhr_to_quads([[0, 0, 20, 2, math.radians(30)]])[0][1:3].mean(axis=0)
    np.testing.assert_allclose(right, [10 * math.cos(math.pi / 6), 5])


@settings(deadline=None)
@given(boxes)
def test_corners_and_back_are_the_same_rectangle_in_both_precisions(box: tuple[float, ...]) -> None:
    quads = xywhr_to_quads([box])
    assert apart(xywhr_to_corners(np.float32([box]))[0], quads[0]) < 1e-3
    back = quads_to_xywhr(quads)
    assert is_le90(back)
    assert apart(xywhr_to_quads(back)[0], quads[0]) < 1e-6


def test_upright_box_as_rotated_has_the_same_corners() -> None:
    found = as_xywhr(np.array([[1, 2, 5, 12]]))
    np.testing.assert_allclose(xywhr_to_quads(found)[0], [[1, 2], [5, 2], [5, 12], [1, 12]], atol=1e-9)
    assert as_xywhr(np.empty((0, 4))).shape == (0, 5)


@settings(deadline=None)
@given(boxes, st.floats(0.05, 1), st.floats(0.93, 1.07))
def test_uneven_scaling_of_the_loader_keeps_centre_and_long_side(
    box: tuple[float, ...], across: float, uneven: float
) -> None:
    """The long side is exact; the short one leaves the parallelogram by the shear of its own length alone."""
    ordered, down = regularise(box), across * uneven
    found = stretch(ordered, across, down)
    assert is_le90(found)
    true = xywhr_to_quads(ordered)[0] * (across, down)
    np.testing.assert_allclose(found[0, :2], true.mean(axis=0), atol=1e-9)
    assert apart(xywhr_to_quads(found)[0], true) <= ordered[0, 3] * abs(across - down) + 1e-9


def marked(box: NDArray[np.float64], first: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """A picture with one object and four small ones whose centres are its corners; labels from `first` on."""
    markers = [[x, y, 6, 4, 0] for x, y in xywhr_to_quads([box])[0]]
    rows = np.array([box, *markers], np.float32)
    return np.zeros((150, 210, 3), np.uint8), rows, np.arange(first, first + 5)


VIEWS: dict[str, dict[str, Any]] = {
    "flip": {"flip": 1.0},
    "flip_vertical": {"flip_vertical": 1.0},
    "diagonal": {"flip": 1.0, "flip_vertical": 1.0},
    "scale": {"scale": (0.5, 1.6)},
    "translate": {"translate": 0.3},
    "rotate": {"rotate_deg": 180.0},
    "mosaic": {"mosaic": 1.0},
    "all": {"mosaic": 0.5, "rotate_deg": 90.0, "flip": 0.5, "flip_vertical": 0.5, "scale": (0.7, 1.4)},
}


@pytest.mark.parametrize("name", VIEWS)
def test_corners_of_the_moved_box_are_the_moved_corners(name: str) -> None:
    """Nothing here knows the view's matrix: the points that were the corners say where they went."""
    augment, checked = Augment(dataclasses.replace(OFF, **VIEWS[name]), 192, 256, 114), 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        given_ = [
            (*rng.uniform(60, 100, 2), rng.uniform(20, 50), rng.uniform(8, 20), rng.uniform(-2, 2)) for _ in "1234"
        ]
        scenes = (marked(regularise(box)[0], 5 * k) for k, box in enumerate(given_))
        _, moved, labels = augment(rng, scenes.__next__)
        assert is_le90(moved)
        where = dict(zip(labels.tolist(), moved, strict=True))
        for k in range(4):
            if all(5 * k + i in where for i in range(5)):
                centres = np.array([where[5 * k + i][:2] for i in range(1, 5)])
                assert apart(xywhr_to_corners(where[5 * k][None])[0], centres) < 1e-2
                checked += 1
    assert checked >= 12


@pytest.mark.parametrize(("inside", "kept"), [(0.5, True), (-0.5, False)])
def test_cut_object_stays_while_its_centre_is_in_the_picture(inside: float, kept: bool) -> None:
    """However little or much of it is visible: 0.3 is for upright boxes, whose hull can be clipped."""
    picture = np.zeros((192, 256, 3), np.uint8)
    box = np.array([[inside, 96, 120, 10, 0.4]], np.float32)
    _, found, labels = Augment(OFF, 192, 256, 114)(np.random.default_rng(0), lambda: (picture, box, np.array([7])))
    assert labels.tolist() == [7] * kept
    if kept:
        np.testing.assert_allclose(found, box, rtol=1e-6)  # never clipped: a clipped rectangle is none


@pytest.mark.parametrize("size", [(192, 256), (150, 211), (333, 100)])
def test_letterbox_of_training_is_undone_by_that_of_the_runtime(size: tuple[int, int]) -> None:
    """The runtime's picture has whole sides, so the two may differ by its rounding: half a network pixel."""
    picture, rng = np.zeros((*size, 3), np.uint8), np.random.default_rng(1)
    given_ = np.stack([rng.uniform(20, 80, 30), rng.uniform(20, 80, 30), rng.uniform(20, 60, 30)], axis=1)
    given_ = regularise(np.concatenate([given_, rng.uniform(5, 20, (30, 1)), rng.uniform(-2, 2, (30, 1))], axis=1))
    scene = picture, given_.astype(np.float32), np.arange(30)
    _, moved, _ = Augment(OFF, 192, 256, 114)(rng, lambda: scene)
    _, placement = ops.letterbox(picture, 192, 256, swap=False, mean=(0,) * 3, std=(1,) * 3)
    back = placement.undo(moved)
    assert is_le90(back)
    for mine, theirs in zip(xywhr_to_corners(back), xywhr_to_quads(given_), strict=True):
        assert apart(mine, theirs) < 1.0 / placement.scale_x
