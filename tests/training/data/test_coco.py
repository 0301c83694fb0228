"""COCO JSON."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.training.data.coco import read_coco

Write = Callable[[str, str], Path]


def content(**changes: Any) -> dict[str, Any]:
    """A valid file: two images, ids and category ids with gaps, in no order."""
    return {
        "images": [
            {"id": 40, "file_name": "b.png", "width": 64, "height": 48},
            {"id": 7, "file_name": "a.png", "width": 64, "height": 48},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 40, "category_id": 3, "bbox": [0.5, 0, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [4, 4, 0, 5]},
        ],
        "categories": [{"id": 9, "name": "zebra"}, {"id": 3, "name": "yak"}],
        **changes,
    }


@pytest.fixture
def store(write: Write, picture: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a file with its images in `train/`."""
    picture("train/a.png")
    picture("train/b.png")
    return lambda name="train.json", **changes: write(name, json.dumps(content(**changes)))


def test_file_gives_samples_with_labels_by_category_id(store: Callable[..., Path]) -> None:
    found = read_coco(store())
    assert found.task == "detect"
    assert found.classes == ("yak", "zebra")
    assert [sample.path.name for sample in found.samples] == ["b.png", "a.png"]
    assert found.samples[1].boxes.tolist() == [[1, 2, 11, 22]]
    assert found.samples[1].labels.tolist() == [1]
    assert found.samples[0].difficult.tolist() == [True]
    assert [line.split(": ", 1)[1] for line in found.problems] == [
        "annotation 3: yak [4, 4, 4, 9] has no area; dropped"
    ]


def test_crowd_is_told_from_what_is_only_difficult(store: Callable[..., Path]) -> None:
    box = {"image_id": 7, "category_id": 9, "bbox": [1, 2, 10, 20]}
    marks: list[dict[str, int]] = [{}, {"iscrowd": 1}, {"iscrowd": 1, "difficult": 1}, {"difficult": 1}]
    rows = [{"id": number, **box, **each} for number, each in enumerate(marks, start=1)]
    other, found = read_coco(store(annotations=rows)).samples
    assert found.difficult.tolist() == [False, True, True, True]
    assert found.crowd is not None
    assert found.crowd.tolist() == [False, True, False, False]
    assert other.crowd is None


def test_category_without_object_keeps_its_label(store: Callable[..., Path]) -> None:
    path = store(categories=[*content()["categories"], {"id": 1, "name": "ant"}])
    assert read_coco(path).classes == ("ant", "yak", "zebra")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/train.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("set.json", "images"),
    ],
)
def test_images_are_found_in_the_usual_places(
    name: str, folder: str, write: Write, picture: Callable[..., Path]
) -> None:
    for stem in "ab":
        picture(f"{folder}/{stem}.png")
    assert len(read_coco(write(name, json.dumps(content())))) == 2


@pytest.mark.parametrize("name", ["val.json", "annotations/val.json", "annotations/instances_val2017.json"])
def test_folder_with_split_gives_its_file(name: str, store: Callable[..., Path], picture: Callable[..., Path]) -> None:
    root = store().parent
    store(name)
    for folder in ("val", "val2017"):
        picture(f"{folder}/a.png")
        picture(f"{folder}/b.png")
    assert Path(read_coco(root, "val").name) == root / name


def test_folder_with_several_files_and_no_split_raises(store: Callable[..., Path]) -> None:
    root = store().parent
    store("val.json")
    with pytest.raises(DataError, match=r"several JSON files \(train.json, val.json\)"):
        read_coco(root)


def test_oriented_takes_the_corners(store: Callable[..., Path]) -> None:
    corners = [10, 10, 30, 20, 25, 30, 5, 20]
    row = {"id": 1, "image_id": 7, "category_id": 9, "bbox": [5, 10, 25, 20], "segmentation": [corners]}
    path = store(annotations=[row])
    found = read_coco(path, oriented=True)
    assert found.task == "obb"
    width, height = math.hypot(20, 10), math.hypot(5, 10)
    np.testing.assert_allclose(found.samples[1].boxes, [[17.5, 20, width, height, math.atan2(1, 2)]], rtol=1e-6)
    assert read_coco(path).samples[1].boxes.tolist() == [[5, 10, 30, 30]]
    np.testing.assert_array_equal(
        read_coco(store(annotations=[row], info={"layout": "xywhr"})).samples[1].boxes, found.samples[1].boxes
    )


ROW = {"id": 5, "image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4]}
IMAGE = {"id": 7, "file_name": "a.png"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"annotations": [{**ROW, "image_id": 8}]}, "annotation 5: image_id 8 is not in images"),
        ({"annotations": [{**ROW, "category_id": 8}]}, "annotation 5: category_id 8 is not in categories [3, 9]"),
        ({"annotations": [{**ROW, "bbox": [1, 2, 3]}]}, "annotation 5: bbox should be a list of 4 numbers"),
        ({"annotations": [{**ROW, "bbox": [1, 2, 3, None]}]}, "bbox should be a number, got None"),
        ({"annotations": [{**ROW, "bbox": [1, 2, 3, math.inf]}]}, "bbox should be finite"),
        ({"annotations": [{**ROW, "bbox": [1, 2, 3, 10**400]}]}, "bbox should be a number"),
        ({"annotations": {}}, "'annotations' should be a list of objects"),
        ({"categories": [{"id": 1}]}, "category 1 has no name"),
        ({"images": [{**IMAGE, "id": "7"}], "annotations": []}, "'id' should be a whole number, got '7'"),
        ({"images": [], "annotations": []}, "holds no image"),
        ({"images": [{**IMAGE, "file_name": "../a.png"}], "annotations": []}, "leaves the data set"),
        ({"images": [{**IMAGE, "file_name": "/etc/passwd"}], "annotations": []}, "leaves the data set"),
        ({"images": [{**IMAGE, "file_name": "c.png"}], "annotations": []}, "no file 'c.png' in any of"),
        ({"images": [{**IMAGE, "file_name": 3}], "annotations": []}, "file_name should be a file name, got 3"),
    ],
)
def test_wrong_entry_raises_naming_it(changes: dict[str, Any], says: str, store: Callable[..., Path]) -> None:
    with pytest.raises(DataError) as caught:
        read_coco(store(**changes))
    assert "train.json" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(("text", "says"), [('{"images":\n[,]}', "train.json:2: not valid JSON"), ("[]", "an object")])
def test_other_json_raises(text: str, says: str, write: Write) -> None:
    with pytest.raises(DataError, match=says):
        read_coco(write("train.json", text))


def test_deep_json_raises(write: Write) -> None:
    with pytest.raises(DataError, match="not valid JSON"):
        read_coco(write("train.json", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"))


def test_size_not_said_comes_from_the_image(store: Callable[..., Path]) -> None:
    assert read_coco(store(images=[IMAGE], annotations=[])).samples[0].size == (64, 48)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["images", "annotations", "categories"]), data=st.data())
def test_any_value_in_place_of_any_other_reads_or_raises_data_error(
    key: str, data: st.DataObject, store: Callable[..., Path]
) -> None:
    raw = content()
    row = data.draw(st.sampled_from(raw[key]))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(anything)
    with contextlib.suppress(DataError):
        read_coco(store(**raw), oriented=data.draw(st.booleans()))
