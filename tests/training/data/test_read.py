"""`read`: the format found out from the files, and the real data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.training.data.files import read_stems
from edgekd.training.data.read import READERS, detect_format, read

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.training.data.sample import Dataset

BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
VOC = f"<annotation><object><name>a</name>{BOX}</object></annotation>"
CORNERS = "".join(
    f"<{axis}_{corner}>{value}</{axis}_{corner}>"
    for corner, x, y in (("left_top", 1, 1), ("right_top", 9, 1), ("right_bottom", 9, 9), ("left_bottom", 1, 9))
    for axis, value in (("x", x), ("y", y))
)
UCAS = "1 1 9 1 9 9 1 9 0 1 1 8 8\n"
HRSC = "<HRSC_Image><HRSC_Objects/></HRSC_Image>"
DOTA = "1 1 9 1 9 9 1 9 a 0\n"
VISA = "object,split,label,image,mask\nc,train,normal,c/Data/Images/Normal/a.png,\n"
MAIN = "ImageSets/Main/t.txt"
HRSC_FILES = {"FullDataSet/Annotations/a.xml": HRSC, "FullDataSet/AllImages/a.png": "", MAIN: "a"}
YOLO = "0 0.5 0.5 0.1 0.1\n"
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 1, "name": "a"}],
    }
)


@pytest.mark.parametrize(
    ("expected", "files", "path", "split"),
    [
        ("voc", {"Annotations/a.xml": VOC, "JPEGImages/a.png": "", MAIN: "a"}, MAIN, None),
        ("voc", {"Annotations/a.xml": VOC, "JPEGImages/a.png": ""}, ".", None),
        ("voc", {"annotations/a.xml": VOC, "images/a.png": ""}, "annotations", None),
        ("hrsc", HRSC_FILES, MAIN, None),
        ("dota", {"labelTxt/a.txt": DOTA, "images/a.png": "", "t.txt": "a"}, "t.txt", None),
        ("dota", {"labelTxt/a.txt": DOTA, "images/a.png": ""}, "labelTxt", None),
        ("dota", {"labelTxt/a.txt": f"a {UCAS}", "AllImages/a.png": "", "CAR/a.txt": UCAS}, ".", None),
        ("ucas", {"PLANE/a.txt": UCAS, "PLANE/a.png": ""}, ".", None),
        ("ucas", {"PLANE/a.txt": UCAS, "PLANE/a.png": ""}, "PLANE", None),
        ("yolo", {"labels/a.txt": YOLO, "images/a.png": ""}, ".", None),
        ("yolo", {"labels/v/a.txt": YOLO, "images/v/a.png": ""}, "images/v", None),
        ("yolo", {"labels/v/a.txt": YOLO, "images/v/a.png": "", "data.yaml": "val: images/v\n"}, ".", "val"),
        ("yolo", {"labels/a.txt": YOLO, "images/a.png": "", "t.txt": "images/a.png"}, "t.txt", None),
        ("coco", {"train.json": COCO, "train/a.png": ""}, "train.json", None),
        ("coco", {"train.json": COCO, "val.json": COCO, "val/a.png": ""}, ".", "val"),
        ("mvtec", {"train/good/a.png": ""}, ".", None),
        ("mvtec", {"train/ok/a.png": "", "test/ko/b.png": ""}, "test", None),
        ("visa", {"c/Data/Images/Normal/a.png": "", "split_csv/1cls.csv": VISA}, "c", None),
    ],
)
def test_format_is_found_and_read(
    expected: str,
    files: dict[str, str],
    path: str,
    split: str | None,
    tmp_path: Path,
    picture: Callable[..., Path],
    write: Callable[[str, str], Path],
) -> None:
    for name, text in files.items():
        picture(name) if name.endswith(".png") else write(name, text)
    assert detect_format(tmp_path / path, split) == expected
    assert len(read(tmp_path / path, split=split)) == 1


LABELS = {  # of two images: format -> annotation folder, images, suffix, text
    "voc": ("Annotations", "JPEGImages", ".xml", VOC),
    "dota": ("labelTxt", "images", ".txt", DOTA),
    "dior": (
        "Annotations/Oriented Bounding Boxes",
        "JPEGImages",
        ".xml",
        VOC.replace(BOX, f"<robndbox>{CORNERS}</robndbox>"),
    ),
    "hrsc": ("Annotations", "AllImages", ".xml", HRSC),
}


@pytest.fixture(params=sorted(LABELS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Put = Callable[..., None]


@pytest.fixture
def put(picture: Callable[..., Path], write: Callable[[str, str], Path]) -> Put:
    """Return a function that writes images and annotations of a format below a folder."""

    def images(kind: str, under: str, *stems: str) -> None:
        folder, pictures, suffix, text = LABELS[kind]
        for stem in stems:
            write(f"{under}/{folder}/{stem}{suffix}", text)
            picture(f"{under}/{pictures}/{stem}.png")

    return images


def stems(dataset: Dataset) -> list[str]:
    return [sample.path.stem for sample in dataset.samples]


def test_folder_of_each_split_is_read_where_one_is_asked_for(kind: str, put: Put, tmp_path: Path) -> None:
    put(kind, "set/train", "a", "b")
    put(kind, "set/val", "c")
    assert detect_format(tmp_path / "set", "val") == kind
    assert stems(read(tmp_path / "set", split="train")) == ["a", "b"]
    assert stems(read(tmp_path / "set", split="val")) == ["c"]
    assert stems(read(tmp_path / "set/val", split="val")) == ["c"], "the folder of a split is the split"
    assert stems(read(tmp_path / "set/val" / LABELS[kind][0], split="val")) == ["c"]


@pytest.mark.parametrize("lists", ["", "ImageSets/", "ImageSets/Main/", "ImageSets/other/"])
def test_list_of_each_split_is_read_where_one_is_asked_for(
    lists: str, kind: str, put: Put, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    put(kind, "set", "a", "b", "c")
    write(f"set/{lists}train.txt", "a\nb\n")
    write(f"set/{lists}test.txt", "c\n")
    assert stems(read(tmp_path / "set", split="train")) == ["a", "b"]
    assert stems(read(tmp_path / "set", split="test")) == ["c"]
    assert len(read(tmp_path / "set")) == 3
    assert stems(read(tmp_path / f"set/{lists}test.txt", split="test")) == ["c"]


def test_list_of_main_comes_before_those_of_other_tasks(
    put: Put, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    put("voc", "set", "a", "b")
    for task, stem in (("Layout", "a"), ("Segmentation", "a")):
        write(f"set/ImageSets/{task}/train.txt", stem)
    with pytest.raises(DataError, match=r"several lists of split 'train' \(ImageSets/Layout/train.txt, .*name one"):
        read(tmp_path / "set", split="train")
    write("set/ImageSets/Main/train.txt", "b")
    assert stems(read(tmp_path / "set", split="train")) == ["b"]


def test_split_that_a_folder_lacks_is_refused_unless_it_is_one_split(kind: str, put: Put, tmp_path: Path) -> None:
    put(kind, "set", "a")
    with pytest.raises(DataError, match=r"no split 'val', neither val/ nor val\.txt nor Im.* name a list file or the"):
        read(tmp_path / "set", split="val")
    assert stems(read(tmp_path / "set", split="val", whole=True)) == ["a"]


def test_unknown_format_raises_naming_the_possible(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data format 'pascal'; possible: auto, coco, .*visa"):
        read(tmp_path, "pascal")


def test_folder_of_nothing_raises_naming_the_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot tell the format .* coco, coco-obb, voc"):
        read(tmp_path)


def test_missing_path_raises(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or folder at"):
        read(tmp_path / "none.txt")


@pytest.mark.parametrize("name", sorted(READERS))
def test_empty_folder_raises_in_every_format(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read(tmp_path, name)


@pytest.mark.parametrize("name", sorted(READERS))
def test_damaged_image_raises_in_every_format_that_needs_its_size(name: str, tmp_path: Path) -> None:
    """A set whose only image is text: refused by name where its header is needed, else at decoding."""
    files = {
        "labelTxt/a.txt": DOTA,
        "labels/a.txt": YOLO if name == "yolo" else "0 .1 .1 .2 .1 .2 .2 .1 .2",
        "annotations/a.xml": HRSC if name == "hrsc" else VOC,
        "train.json": COCO.replace('"bbox"', '"segmentation": [[1, 1, 2, 1, 2, 2, 1, 2]], "bbox"'),
        "images/a.png": "no image",
        "train/good/a.png": "no image",
        "CAR/a.png": "no image",
    }
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=r"cannot read the image .*a.png"):
        read(tmp_path, name)


def test_stems_of_a_list_are_cut_from_any_spelling(write: Callable[[str, str], Path]) -> None:
    path = write("list.txt", "\ufeffa\n\n b.jpg \n./x/c.1.PNG\nd.2\ne -1\nf  1\n")
    assert [stem for stem, _ in read_stems(path)] == ["a", "b", "c.1", "d.2", "e", "f"]
    assert read_stems(path)[1][1] == f"{path}:3"


def counts(dataset: Dataset) -> dict[str, int]:
    labels = np.concatenate([sample.labels for sample in dataset.samples])
    return dict(zip(dataset.classes, np.bincount(labels, minlength=len(dataset.classes)).tolist(), strict=True))


@pytest.mark.data
def test_blood_cells_read_with_their_two_boxes_without_area_listed(real: Callable[[str], Path]) -> None:
    lists = real("bccd") / "ImageSets" / "Main"
    train, val = read(lists / "train.txt"), read(lists / "val.txt")
    assert (len(train), counts(train)) == (205, {"Platelets": 209, "RBC": 2381, "WBC": 214})
    assert (len(val), counts(val)) == (87, {"Platelets": 83, "RBC": 967, "WBC": 87})
    assert len(read(lists / "trainval.txt").problems) == 2


@pytest.mark.data
def test_xray_bags_read_by_stem_though_their_xml_names_other_files(real: Callable[[str], Path]) -> None:
    train = read(real("sixray_mini") / "train.txt")
    assert (len(train), counts(train)) == (364, {"Gun": 126, "Knife": 119, "Wrench": 119})
    sample = next(sample for sample in train.samples if sample.path.stem == "0338")
    assert sample.size == (519, 583)
    np.testing.assert_allclose(sample.boxes, [[364.025, 131.732, 470.199, 294.54]])
    assert all(sample.load().shape[1::-1] == sample.size for sample in train.samples[:20])


@pytest.mark.data
def test_aerial_images_read_as_rectangles(real: Callable[[str], Path]) -> None:
    root = real("ucas_aod_mini")
    train, val = read(root / "train.txt"), read(root / "val.txt")
    assert train.task == "obb"
    assert (len(train), counts(train)) == (67, {"car": 232, "plane": 320})
    assert (len(val), counts(val)) == (12, {"car": 56, "plane": 66})
    boxes = np.concatenate([sample.boxes for sample in train.samples])
    labels = np.concatenate([sample.labels for sample in train.samples])
    np.testing.assert_allclose(np.median(boxes[labels == 0, 2:4], axis=0), [62, 30], atol=2)
    np.testing.assert_allclose(np.median(boxes[labels == 1, 2:4], axis=0), [79, 72], atol=5)


@pytest.mark.data
def test_aerial_labels_of_two_formats_agree(real: Callable[[str], Path], tmp_path: Path) -> None:
    """The untouched YOLO polygons of the same images are another transcription of the same boxes."""
    root = real("ucas_aod_mini")
    (tmp_path / "labels").symlink_to(root / "labels_orig" / "polygon_xyxyxyxyn")
    (tmp_path / "images").symlink_to(root / "images")
    stems = sorted(path.stem for path in (tmp_path / "labels").iterdir())
    lines = [f"images/{stem}.jpg" for stem in stems if (tmp_path / f"images/{stem}.jpg").exists()]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    (tmp_path / "classes.txt").write_text("plane\ncar")
    yolo = read(tmp_path / "list.txt", "yolo-obb")
    dota = {sample.path.stem: sample for sample in read(root, "dota", classes=yolo.classes).samples}
    assert len(yolo) == 40
    for sample in yolo.samples:
        other = dota[sample.path.stem]
        assert sample.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(sample.boxes[:, :4], other.boxes[:, :4], atol=0.02)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "test", "defects"),
    [("magnetic_tile_mini", 321, 281, 201), ("mvtec_transistor_512", 213, 100, 40)],
)
def test_anomaly_sets_read_with_a_mask_for_each_defect(
    name: str, train: int, test: int, defects: int, real: Callable[[str], Path]
) -> None:
    assert len(read(real(name))) == train
    found = read(real(name), split="test")
    assert len(found) == test
    assert sum(sample.mask is not None for sample in found.samples) == defects
    assert all(sample.anomalous == (sample.mask is not None) for sample in found.samples)
    assert found.problems == ()
