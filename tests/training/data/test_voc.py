"""Pascal VOC XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.training.data.voc import read_voc

Write = Callable[[str, str], Path]
OBJECT = (
    "<object><name>{0}</name>{5}<bndbox>"
    "<xmin>{1}</xmin><ymin>{2}</ymin><xmax>{3}</xmax><ymax>{4}</ymax></bndbox></object>"
)
SIZE = "<size><width>64</width><height>48</height></size>"


def xml(*objects: tuple, size: str = SIZE, root: str = "annotation") -> str:
    rows = "".join(OBJECT.format(*item, *([""] if len(item) == 5 else [])) for item in objects)
    return f"<{root}><filename>someone_elses_name.jpg</filename>{size}{rows}</{root}>"


@pytest.fixture
def two(write: Write, picture: Callable[..., Path], tmp_path: Path) -> Path:
    """A set of two images in the layout of the original."""
    for stem in ("a.1", "b"):
        picture(f"JPEGImages/{stem}.jpg")
    write("Annotations/a.1.xml", xml(("dog", 1, 2, 30.5, 40), ("cat", 5, 5, 9, 9, "<difficult>1</difficult>")))
    write("Annotations/b.xml", xml())
    return write("ImageSets/Main/train.txt", "b\na.1\n\n")


def test_list_file_gives_samples_in_its_order_with_names_sorted(two: Path) -> None:
    found = read_voc(two)
    assert [sample.path.name for sample in found.samples] == ["b.jpg", "a.1.jpg"]
    assert found.classes == ("cat", "dog")
    sample = found.samples[1]
    assert sample.size == (64, 48)
    assert sample.labels.tolist() == [1, 0]
    assert sample.boxes.tolist() == [[1, 2, 30.5, 40], [5, 5, 9, 9]]
    assert sample.difficult.tolist() == [False, True]
    assert sample.boxes.dtype == np.float32
    assert sample.labels.dtype == np.int64
    assert found.samples[0].boxes.shape == (0, 4)


def test_folder_and_folder_of_xml_read_the_same(two: Path) -> None:
    root = two.parents[2]
    for path in (root, root / "Annotations"):
        assert [len(sample.boxes) for sample in read_voc(path).samples] == [2, 0]


def test_class_list_with_flags_reads_the_stems(two: Path, write: Write) -> None:
    assert len(read_voc(write("ImageSets/Main/dog_train.txt", "a.1  1\nb -1\n"))) == 2


def test_list_file_beside_the_folders_reads(write: Write, picture: Callable[..., Path]) -> None:
    picture("images/0007.png")
    write("annotations/0007.xml", xml(("gun", 1, 2, 3, 4)))
    assert len(read_voc(write("train.txt", "0007"))) == 1


def test_box_without_area_is_dropped_and_listed(write: Write, picture: Callable[..., Path]) -> None:
    picture("images/a.png")
    write("annotations/a.xml", xml(("x", 1, 2, 3, 4), ("x", 7, 7, 7, 9), ("x", 9, 1, 3, 4)))
    found = read_voc(write("train.txt", "a"))
    assert len(found.samples[0].boxes) == 1
    assert len(found.problems) == 2
    assert "a.xml: object 2: x [7, 7, 7, 9] has no area; dropped" in found.problems[0]


def test_classes_asked_for_order_the_labels_and_list_the_rest(two: Path) -> None:
    found = read_voc(two, ["bird", "dog"])
    assert found.classes == ("bird", "dog")
    assert found.samples[1].labels.tolist() == [1]
    assert "1 objects of class 'cat' dropped: not asked for" in found.problems[-1]


def test_classes_of_which_none_occurs_raise(two: Path) -> None:
    with pytest.raises(DataError, match=r"no object of Dog; its classes are cat, dog"):
        read_voc(two, ["Dog"])


def test_class_named_twice_raises(two: Path) -> None:
    with pytest.raises(DataError, match="named twice"):
        read_voc(two, ["dog", "dog"])


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size/>"])
def test_missing_size_comes_from_the_image(size: str, write: Write, picture: Callable[..., Path]) -> None:
    picture("images/a.png", width=31, height=17)
    write("annotations/a.xml", xml(size=size))
    assert read_voc(write("train.txt", "a")).samples[0].size == (31, 17)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (xml(("x", 1, 2, "three", 4)), "object 1: <xmax> should be a number, got 'three'"),
        (xml(("x", 1, 2, 3, 4), ("x", "nan", 2, 3, 4)), "object 2: <xmin> should be finite"),
        (xml(("x", 1, 2, 3, 1e30)), "<ymax> should be finite and below"),
        (xml(("", 1, 2, 3, 4)), "object 1: <name> is missing or empty"),
        ("<annotation><object><name>x</name></object></annotation>", "<bndbox> is missing"),
        (xml(root="HRSC_Image"), 'format = "hrsc"'),
        ("<annotation>", "is not valid XML"),
        ("", "is not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "which no annotation needs"),
    ],
)
def test_damaged_xml_raises_naming_file_and_object(
    content: str, says: str, write: Write, picture: Callable[..., Path]
) -> None:
    picture("images/a.png")
    write("annotations/a.xml", content)
    with pytest.raises(DataError) as caught:
        read_voc(write("train.txt", "a"))
    assert "a.xml" in str(caught.value)
    assert says in str(caught.value)


def test_listed_stem_without_image_raises_naming_the_line(two: Path, write: Write) -> None:
    with pytest.raises(DataError, match=r"val.txt:2: no image c\.\* in"):
        read_voc(write("ImageSets/Main/val.txt", "b\nc\n"))


def test_listed_stem_without_xml_raises(two: Path, write: Write, picture: Callable[..., Path]) -> None:
    picture("JPEGImages/c.jpg")
    with pytest.raises(DataError, match=r"val.txt:1: no c.xml in"):
        read_voc(write("ImageSets/Main/val.txt", "c\n"))


def test_two_images_of_one_stem_raise(two: Path, picture: Callable[..., Path]) -> None:
    picture("JPEGImages/b.png")
    with pytest.raises(DataError, match=r"several images of one stem: b.jpg, b.png"):
        read_voc(two)


def test_xml_without_image_in_a_folder_is_dropped_and_listed(two: Path, write: Write) -> None:
    write("Annotations/z.xml", xml())
    found = read_voc(two.parents[2])
    assert len(found) == 2
    assert "z.xml: no image of this stem" in found.problems[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200) | st.text(alphabet="<>/&;objectnamebdx 01.", max_size=80).map(lambda t: t.encode())
)
def test_any_bytes_as_xml_raise_only_data_errors(content: bytes, picture: Callable[..., Path]) -> None:
    root = picture("images/a.png").parents[1]
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "a.xml").write_bytes(content)
    (root / "train.txt").write_text("a")
    with pytest.raises(DataError):
        read_voc(root / "train.txt")
