"""YOLO text, boxes and oriented boxes, and the files that name its classes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.training.data.yolo import read_yolo
from edgekd.training.data.yolo_config import read_config

Write = Callable[[str, str], Path]
BOX = "1 0.5 0.5 0.25 0.5\n"
QUAD = "0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n"


@pytest.fixture
def root(tmp_path: Path, write: Write, picture: Callable[..., Path]) -> Path:
    """A set with a training image of one box and one without label file."""
    picture("images/train/a.jpg")
    picture("images/train/b.png")
    write("labels/train/a.txt", BOX)
    write("classes.txt", "cat\ndog\n")
    return tmp_path


def test_boxes_are_in_pixels_and_an_image_without_labels_is_empty(root: Path) -> None:
    found = read_yolo(root, "train")
    assert (found.task, found.classes) == ("detect", ("cat", "dog"))
    assert found.samples[0].boxes.tolist() == [[24, 12, 40, 36]]
    assert found.samples[0].labels.tolist() == [1]
    assert found.samples[1].boxes.shape == (0, 4)


def test_quads_are_oriented_boxes_in_pixels(root: Path, write: Write) -> None:
    write("labels/train/a.txt", QUAD)
    found = read_yolo(root, "train")
    assert found.task == "obb"
    np.testing.assert_allclose(found.samples[0].boxes, [[24, 18, 16, 12, 0]], atol=1e-5)


@pytest.mark.parametrize("path", ["images/train", "train.txt", "data.yaml"])
def test_folder_list_and_yaml_read_the_same(path: str, root: Path, write: Write) -> None:
    write("train.txt", f"./images/train/a.jpg\n\n{root}/images/train/b.png\n")
    write("data.yaml", "path: /home/somebody/else\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n")
    found = read_yolo(root / path)
    assert [sample.path.name for sample in found.samples] == ["a.jpg", "b.png"]
    assert [len(sample.boxes) for sample in found.samples] == [1, 0]
    assert found.classes == ("cat", "dog")


@pytest.mark.parametrize("path", ["images/train", "flat"])
def test_path_of_one_split_is_read_whatever_the_split_is_called(
    path: str, root: Path, write: Write, picture: Callable[..., Path]
) -> None:
    picture("flat/images/a.jpg")
    write("flat/labels/a.txt", BOX)
    assert len(read_yolo(root / path, "val").samples[0].boxes) == 1


def test_export_with_splits_outside_reads(write: Write, picture: Callable[..., Path], tmp_path: Path) -> None:
    picture("valid/images/a.jpg")
    write("valid/labels/a.txt", BOX)
    write("data.yaml", "val: ../valid/images\nnc: 2\nnames: ['cat', \"dog\"]\n")
    found = read_yolo(tmp_path, "val")
    assert found.classes == ("cat", "dog")
    assert len(found.samples[0].boxes) == 1


def test_yaml_that_names_its_own_folder_reads(write: Write, picture: Callable[..., Path], tmp_path: Path) -> None:
    picture("a.jpg")
    write("a.txt", BOX)
    write("data.yaml", "train: .\nnames: [cat, dog]\n")
    assert len(read_yolo(tmp_path)) == 1


def test_labels_beside_the_images_are_found(write: Write, picture: Callable[..., Path], tmp_path: Path) -> None:
    picture("obj_train_data/a.jpg")
    write("obj_train_data/a.txt", BOX)
    write("obj.names", "cat\ndog")
    assert read_yolo(tmp_path / "obj_train_data").classes == ("cat", "dog")


def test_set_below_another_folder_called_images_is_found(write: Write, picture: Callable[..., Path]) -> None:
    folder = picture("images/mine/a.jpg").parent
    write("images/mine/a.txt", BOX)
    assert len(read_yolo(folder).samples[0].boxes) == 1


def test_numbers_without_names_are_named_by_the_classes_asked_for(root: Path) -> None:
    (root / "classes.txt").unlink()
    assert read_yolo(root, "train").classes == ("0", "1")
    assert read_yolo(root, "train", ["x", "y"]).samples[0].labels.tolist() == [1]


def test_names_asked_for_in_another_order_move_the_labels(root: Path) -> None:
    assert read_yolo(root, "train", ["dog", "cat"]).samples[0].labels.tolist() == [0]


def test_box_without_area_is_dropped_and_listed(root: Path, write: Write) -> None:
    write("labels/train/a.txt", BOX + "0 0.5 0.5 0 0.1\n")
    found = read_yolo(root, "train")
    assert len(found.samples[0].boxes) == 1
    assert "a.txt:2: cat" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOX + "1 0.5 0.5 0.1\n", r"a.txt:2: expected class cx cy w h.*got 4 columns"),
        ("1.0 0.5 0.5 0.1 0.1\n", r"a.txt:1: the class should be a whole number, got '1.0'"),
        ("-1 0.5 0.5 0.1 0.1\n", r"a.txt:1: the class should be"),
        ("2 0.5 0.5 0.1 0.1\n", r"a.txt:1: class 2, but there are 2 names: cat, dog"),
        ("1 32 24 10 10\n", r"a.txt:1: coordinates should be divided by the image's size, got 32"),
        ("1 0.5 x 0.1 0.1\n", r"a.txt:1: a coordinate should be a number, got 'x'"),
        (BOX + QUAD, r"a.txt:2: 9 columns in a set of task detect"),
    ],
)
def test_damaged_line_raises_naming_it(text: str, says: str, root: Path, write: Write) -> None:
    write("labels/train/a.txt", text)
    with pytest.raises(DataError, match=says):
        read_yolo(root, "train")


def test_boxes_in_a_set_asked_for_as_oriented_raise(root: Path) -> None:
    with pytest.raises(DataError, match=r'5 columns in a set of task obb.* format = "yolo"'):
        read_yolo(root, "train", task="obb")


def test_no_label_file_at_all_raises_saying_where_they_belong(root: Path) -> None:
    (root / "labels/train/a.txt").unlink()
    with pytest.raises(DataError, match=r"no image has a label file; the first would be .*labels/train/a.txt"):
        read_yolo(root, "train")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing", "no images in"),
        ("list.txt", r"list.txt:2: no image at"),
        ("data.yaml", "names no file or folder for 'train'; it has val"),
    ],
)
def test_wrong_path_raises(path: str, says: str, root: Path, write: Write) -> None:
    write("list.txt", "images/train/a.jpg\nimages/train/zzz.jpg\n")
    write("data.yaml", "val: images/train\n")
    with pytest.raises(DataError, match=says):
        read_yolo(root / path)


@pytest.mark.parametrize(
    "text",
    [
        "names: [a, 'b c']",
        "nc: 2\nnames:\n  - a\n  - b c\ntrain: x",
        "names:\n- a\n- 'b c'",
        'names:  # two\n  0: a\n\n  1: "b c"  # the second\n',
        "names: {0: a, 1: 'b c'}",
        "names: [a,\n  'b c'\n]\nval: y",
    ],
)
def test_yaml_spellings_of_names_read_alike(text: str, write: Write) -> None:
    assert read_config(write("data.yaml", text))["names"] == ("a", "b c")


def test_yaml_scalars_and_nested_maps(write: Write) -> None:
    text = "# set\npath: ../data # here\ntrain: images/train\ndownload: |\n  import os\nroboflow:\n  license: MIT\n"
    assert read_config(write("data.yaml", text)) == {"path": "../data", "train": "images/train", "download": "|"}


@pytest.mark.parametrize(
    ("text", "says"),
    [("names:\n  0: a\n  2: b\n", r"data.yaml:1: expected '1: name', got '2: b'"), ("names: [a, b\n", "is not closed")],
)
def test_yaml_beyond_the_plain_raises(text: str, says: str, write: Write) -> None:
    with pytest.raises(DataError, match=says):
        read_config(write("data.yaml", text))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from(["names:", "- a", "0: b", "[", "]", "{", "}", "'", " ", "\n", "#", ","])).map("".join)
)
def test_any_yaml_reads_or_raises_data_error(text: str, write: Write) -> None:
    with contextlib.suppress(DataError):
        read_config(write("data.yaml", text))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(st.sampled_from(["0", "1", "0.5", "-0.1", "nan", "1e400", "x", "\n"]), max_size=20).map(" ".join))
def test_any_words_read_or_raise_data_error(text: str, root: Path, write: Write) -> None:
    write("labels/train/a.txt", text)
    with contextlib.suppress(DataError):
        read_yolo(root, "train")
