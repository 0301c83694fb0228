"""HRSC2016 XML."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.training.data.hrsc import read_hrsc

Write = Callable[[str, str], Path]
FIELDS = ("Class_ID", "mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang", "difficult")


def xml(*ships: tuple, size: tuple[int, int] = (64, 48), root: str = "HRSC_Image") -> str:
    rows = ""
    for ship in ships:
        inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(FIELDS, ship, strict=False))
        rows += f"<HRSC_Object>{inner}<header_x>3</header_x></HRSC_Object>"
    head = f"<Img_SizeWidth>{size[0]}</Img_SizeWidth><Img_SizeHeight>{size[1]}</Img_SizeHeight>"
    return f"<{root}>{head}<HRSC_Objects>{rows}</HRSC_Objects></{root}>"


SHIPS = (("100000005", 30, 20, 40, 8, 0.5, 0), ("100000001", 10, 12.5, 6, 16, -0.25, 1))


@pytest.fixture
def store(write: Write, picture: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes ships and gives the list file, in the layout of the original."""
    picture("FullDataSet/AllImages/100.bmp")

    def put(*ships: tuple, **options: object) -> Path:
        write("FullDataSet/Annotations/100.xml", xml(*ships, **options))  # type: ignore[arg-type]
        return write("ImageSets/train.txt", "100\n")

    return put


def test_ships_are_read_clockwise_in_le90(store: Callable[..., Path]) -> None:
    found = read_hrsc(store(*SHIPS))
    assert (found.task, found.classes) == ("obb", ("ship",))
    sample = found.samples[0]
    np.testing.assert_allclose(sample.boxes[0], [30, 20, 40, 8, 0.5], rtol=1e-6)
    np.testing.assert_allclose(sample.boxes[1], [10, 12.5, 16, 6, math.pi / 2 - 0.25], rtol=1e-6)
    assert sample.difficult.tolist() == [False, True]


def test_size_has_its_height_from_the_height(store: Callable[..., Path]) -> None:
    assert read_hrsc(store(*SHIPS, size=(100, 70))).samples[0].size == (100, 70)


def test_box_off_the_long_edge_rule_is_listed(store: Callable[..., Path]) -> None:
    found = read_hrsc(store(*SHIPS, ("1", 30, 20, 40, 8, 1.8)))
    assert len(found.problems) == 2
    assert "100.xml: object 2: w 6, h 16, angle -0.25 breaks the long-edge rule" in found.problems[0]
    assert "object 3: w 40, h 8, angle 1.8" in found.problems[1]


def test_class_ids_asked_for_become_labels_and_the_rest_is_dropped(store: Callable[..., Path]) -> None:
    path = store(*SHIPS)
    assert read_hrsc(path, ["100000001", "ship"]).samples[0].labels.tolist() == [1, 0]
    only = read_hrsc(path, ["100000005"])
    assert only.samples[0].labels.tolist() == [0]
    assert any("'ship' dropped" in line for line in only.problems)


def test_ship_without_area_is_dropped(store: Callable[..., Path]) -> None:
    found = read_hrsc(store(("1", 30, 20, 40, 0, 0)))
    assert len(found.samples[0].boxes) == 0
    assert "has no area" in found.problems[0]


def test_missing_angle_raises_naming_the_object(store: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"100.xml: object 1: <mbox_ang> is missing or empty"):
        read_hrsc(store(("1", 30, 20, 40, 8)))


@pytest.mark.parametrize("degrees", [45, -90, 6.5])
def test_angle_in_degrees_raises_saying_how_to_convert(degrees: float, store: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=rf"object 1: <mbox_ang> should be in radians.*got {degrees}; .*pi / 180"):
        read_hrsc(store(("1", 30, 20, 40, 8, degrees)))


def test_voc_file_raises_naming_the_other_format(store: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match='format = "voc"'):
        read_hrsc(store(root="annotation"))
