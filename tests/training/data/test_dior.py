"""DIOR-R XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.training.data.dior import CORNERS, read_dior
from edgekd.training.data.read import detect_format, read

Write = Callable[[str, str], Path]
FOLDER = "Annotations/Oriented Bounding Boxes"
BOX = (10, 10, 30, 10, 30, 20, 10, 20)


def xml(*objects: tuple[str, tuple[float, ...]], extra: str = "") -> str:
    rows = ""
    for name, corners in objects:
        tags = [f"{axis}_{corner}" for corner in CORNERS for axis in "xy"]
        inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
        rows += f"<object><type>robndbox</type><name>{name}</name><robndbox>{inner}</robndbox>{extra}</object>"
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    return f"<annotation><filename>1.jpg</filename>{size}{rows}</annotation>"


@pytest.fixture
def root(tmp_path: Path, write: Write, picture: Callable[..., Path]) -> Path:
    """The layout of the original: one training and one test image, in two folders."""
    picture("JPEGImages-trainval/00001.png")
    picture("JPEGImages-test/00002.png")
    write(f"{FOLDER}/00001.xml", xml(("Expressway-Service-area", BOX), ("ship", BOX)))
    write(f"{FOLDER}/00002.xml", xml(("Ship", BOX), extra="<difficult>1</difficult>"))
    write("Annotations/Horizontal Bounding Boxes/00001.xml", "<annotation/>")
    write("ImageSets/Main/train.txt", "00001\n")
    write("ImageSets/Main/test.txt", "00002\n")
    return tmp_path


@pytest.mark.parametrize("path", [".", "Annotations", FOLDER])
def test_folder_reads_both_parts_with_lower_case_names(path: str, root: Path) -> None:
    found = read_dior(root / path)
    assert (found.task, found.classes) == ("obb", ("expressway-service-area", "ship"))
    assert [sample.path.parent.name for sample in found.samples] == ["JPEGImages-trainval", "JPEGImages-test"]
    np.testing.assert_allclose(found.samples[0].boxes, [[20, 15, 20, 10, 0]] * 2, atol=1e-6)
    assert found.samples[1].difficult.tolist() == [True]


@pytest.mark.parametrize(("name", "stem"), [("train", "00001"), ("test", "00002")])
def test_list_finds_its_images_in_either_folder(name: str, stem: str, root: Path) -> None:
    found = read_dior(root / f"ImageSets/Main/{name}.txt")
    assert [sample.path.stem for sample in found.samples] == [stem]


@pytest.mark.parametrize("path", [".", FOLDER, "ImageSets/Main/test.txt"])
def test_format_is_found_out(path: str, root: Path) -> None:
    assert detect_format(root / path) == "dior"
    assert read(root / path).task == "obb"


def test_classes_asked_for_match_in_any_case_and_keep_their_spelling(root: Path) -> None:
    found = read_dior(root, ["SHIP", "Expressway-Service-Area"])
    assert found.classes == ("SHIP", "Expressway-Service-Area")
    assert [sample.labels.tolist() for sample in found.samples] == [[1, 0], [0]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (xml(("ship", BOX)).replace("<x_left_top>10</x_left_top>", ""), "object 1: <x_left_top> is missing"),
        (xml(("ship", BOX)).replace("robndbox>", "bndbox>"), 'object 1: <robndbox> is missing; .* format = "voc"'),
        ("<HRSC_Image/>", 'format = "hrsc"'),
    ],
)
def test_damaged_file_raises_naming_the_object(text: str, says: str, root: Path, write: Write) -> None:
    write(f"{FOLDER}/00001.xml", text)
    with pytest.raises(DataError, match=says):
        read_dior(root)


def test_one_stem_in_both_folders_raises(root: Path, picture: Callable[..., Path]) -> None:
    picture("JPEGImages-test/00001.png")
    with pytest.raises(DataError, match=r"several images of one stem: 00001\.png, 00001\.png"):
        read_dior(root)
