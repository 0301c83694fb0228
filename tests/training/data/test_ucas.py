"""UCAS-AOD as it was published: the class is the folder, the stems repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.training.data.dota import read_dota
from edgekd.training.data.read import detect_format, read
from edgekd.training.data.tile import tile
from edgekd.training.data.ucas import read_ucas

Write = Callable[[str, str], Path]
# A car of the set, as published: tabs, and one behind the last number. Its sides are 55.0 and 41.3 px.
CAR = (
    "2.763971e+02\t9.125021e+01\t2.911375e+02\t3.823406e+01\t3.308891e+02\t4.928647e+01\t3.161486e+02\t1.023026e+02\t"
    "1.055379e+02\t2.787673e+02\t3.876027e+01\t4.975157e+01\t6.301615e+01\t\n"
)
UPRIGHT = "10 10 30 10 30 20 10 20 0 10 10 20 10\n"


@pytest.fixture
def root(write: Write, picture: Callable[..., Path], tmp_path: Path) -> Path:
    """Return the folder of a set: P0001 is a picture of cars and another of planes."""
    write("CAR/P0001.txt", CAR)
    write("PLANE/P0001.txt", UPRIGHT + UPRIGHT)
    for name in ("CAR/P0001.png", "PLANE/P0001.png", "Neg/N0001.png"):
        picture(name, width=400, height=200)
    return tmp_path


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_class_is_the_folder_and_background_is_kept(root: Path) -> None:
    found = read(root)
    assert detect_format(root) == "ucas"
    assert (found.task, found.classes, found.problems) == ("obb", ("car", "plane"), ())
    assert [named(sample.path) for sample in found.samples] == ["CAR/P0001", "PLANE/P0001", "Neg/N0001"]
    assert [sample.labels.tolist() for sample in found.samples] == [[0], [1, 1], []]
    np.testing.assert_allclose(found.samples[1].boxes, [[20, 15, 20, 10, 0]] * 2, atol=1e-6)


def test_published_line_is_the_rectangle_of_its_corners_and_its_theta(root: Path) -> None:
    """theta is the direction of the first side, here the long one, in degrees, clockwise on the image."""
    box = read_ucas(root / "CAR").samples[0].boxes[0]
    np.testing.assert_allclose(box[:2], [(276.3971 + 330.8891) / 2, (91.25021 + 49.28647) / 2], atol=1e-3)
    np.testing.assert_allclose(box[2:4], [np.hypot(14.7404, 53.01615), np.hypot(39.7516, 11.05241)], atol=1e-2)
    assert np.degrees(box[4]) == pytest.approx(105.5379 - 180, abs=0.01)


@pytest.mark.parametrize("line", ["PLANE/P0001", "PLANE/P0001.png", "UCAS_AOD/PLANE/P0001.png", "PLANE\\P0001.png"])
@pytest.mark.parametrize("where", ["", "ImageSets/"])
def test_line_of_a_list_says_the_folder(line: str, where: str, root: Path, write: Write) -> None:
    path = write(f"{where}val.txt", f"{line}\n\nN0001\n")
    assert detect_format(path) == "ucas"
    for found in (read(path), read(root, split="val")):
        assert [named(sample.path) for sample in found.samples] == ["PLANE/P0001", "Neg/N0001"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("P0001", "P0001 is in CAR and in PLANE; expected a line as CAR/P0001"),
        ("CAR/P0002", "CAR/P0002 is in none of CAR; expected"),
        ("P0002", "P0002 is in none of CAR, PLANE, Neg"),
    ],
)
def test_line_that_is_no_image_or_two_raises_naming_it(line: str, says: str, root: Path, write: Write) -> None:
    with pytest.raises(DataError, match=f"list.txt:1: {says}"):
        read_ucas(write("list.txt", line))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2 3\n", r"P0001.txt:1: expected x1 y1 .* height, got 3 words"),
        (UPRIGHT + "\n" + CAR.replace("3.8", "x3.8"), r"P0001.txt:3: a corner should be a number, got 'x3"),
        (UPRIGHT.replace("30 20", "inf 20"), r"P0001.txt:1: a corner should be finite"),
    ],
)
def test_damaged_line_raises_naming_it(text: str, says: str, root: Path, write: Write) -> None:
    write("CAR/P0001.txt", text)
    with pytest.raises(DataError, match=says):
        read_ucas(root)


def test_image_without_labels_raises_unless_it_is_background(root: Path) -> None:
    (root / "PLANE/P0001.txt").unlink()
    with pytest.raises(DataError, match=r"cannot read .*PLANE/P0001.txt"):
        read_ucas(root)


def test_labels_without_an_image_are_told(root: Path, write: Write) -> None:
    write("CAR/P0009.txt", CAR)
    found = read_ucas(root)
    assert len(found) == 3
    assert "P0009.txt: no image of this stem" in found.problems[0]


def test_folder_of_other_things_raises_naming_the_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none of the folders CAR, PLANE, Neg"):
        read_ucas(tmp_path)


def test_tiles_of_one_stem_are_told_apart_by_their_folder(root: Path, tmp_path: Path) -> None:
    report = tile(root, tmp_path / "tiles", size=200, overlap=40)
    found = read(report.annotations)
    names = {sample.path.stem.split("__")[0] for sample in found.samples}
    assert names == {"CAR-P0001", "PLANE-P0001", "N0001"}
    planes = [sample for sample in found.samples if sample.path.stem.startswith("PLANE") and len(sample.labels)]
    assert [sample.labels.tolist() for sample in planes] == [[1, 1]]


def test_line_of_the_usual_split_is_read_as_dota_text(write: Write, picture: Callable[..., Path]) -> None:
    picture("AllImages/P0001.png", width=400, height=200)
    folder = write("labelTxt/P0001.txt", f"car  {CAR}airplane  {UPRIGHT}").parents[1]
    found = read_dota(folder)
    assert (found.classes, found.samples[0].labels.tolist()) == (("airplane", "car"), [1, 0])
    np.testing.assert_allclose(found.samples[0].boxes[1], [20, 15, 20, 10, 0], atol=1e-6)
    assert not found.samples[0].difficult.any()
