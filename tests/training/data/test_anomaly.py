"""MVTec AD, BTAD and VisA folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.errors import DataError
from edgekd.training.data.anomaly import read_folders, read_visa

Picture = Callable[..., Path]


@pytest.fixture
def mvtec(tmp_path: Path, picture: Picture) -> Path:
    """One category; a file without counterpart shifts the sorting orders of images and masks against each other."""
    for name in (
        "train/good/000",
        "train/good/001",
        "test/good/000",
        "test/hole/000",
        "test/hole/002",
        "test/hole/010",
    ):
        picture(f"cap/{name}.png")
    for name in ("000_mask", "001_mask", "010_mask"):
        picture(f"cap/ground_truth/hole/{name}.png")
    return tmp_path / "cap"


def test_training_images_are_normal(mvtec: Path) -> None:
    found = read_folders(mvtec)
    assert found.task == "anomaly"
    assert [sample.anomalous for sample in found.samples] == [False, False]
    assert [sample.defect for sample in found.samples] == ["good", "good"]
    assert found.samples[0].size == (64, 48)
    assert found.samples[0].boxes.shape == (0, 4)


def test_masks_belong_to_images_by_stem_not_by_order(mvtec: Path) -> None:
    found = read_folders(mvtec, "test")
    masks = {
        sample.path.stem: sample.mask.name if sample.mask else None for sample in found.samples if sample.anomalous
    }
    assert masks == {"000": "000_mask.png", "002": None, "010": "010_mask.png"}
    assert "no mask 002_mask.*" in found.problems[0]
    assert sum(bool(sample.anomalous) for sample in found.samples) == 3


def test_path_of_a_split_reads_it(mvtec: Path) -> None:
    assert len(read_folders(mvtec / "test")) == 4
    assert len(read_folders(mvtec / "test", "val")) == 4, "the path says which split it is"


@pytest.mark.parametrize(("path", "split"), [("cap", "val"), ("cap", "validation"), ("cap/validation", None)])
def test_validation_images_are_read_where_there_are_some(
    path: str, split: str | None, mvtec: Path, picture: Picture
) -> None:
    picture("cap/validation/good/000.png")
    assert len(read_folders(mvtec.parent / path, split)) == 1


def test_btad_with_mixed_suffixes_reads(tmp_path: Path, picture: Picture) -> None:
    picture("01/train/ok/0000.bmp")
    picture("01/test/ok/0000.png")
    for stem, image, mask in (("0000", "bmp", "png"), ("0001", "png", "bmp")):
        picture(f"01/test/ko/{stem}.{image}")
        picture(f"01/ground_truth/ko/{stem}.{mask}")
    found = read_folders(tmp_path / "01", "test")
    assert [(s.defect, s.anomalous, s.mask and s.mask.name) for s in found.samples] == [
        ("ko", True, "0000.png"),
        ("ko", True, "0001.bmp"),
        ("good", False, None),
    ]


def test_defect_among_the_training_images_raises(mvtec: Path, picture: Picture) -> None:
    picture("cap/train/hole/000.png")
    with pytest.raises(DataError, match=r"train holds hole: train images should be normal"):
        read_folders(mvtec)


@pytest.mark.parametrize(
    ("split", "says"),
    [("dev", "splits train, validation, test, not 'dev'"), ("val", "no folder .*validation"), ("test", "no folder")],
)
def test_missing_split_raises(split: str, says: str, tmp_path: Path, picture: Picture) -> None:
    picture("cap/train/good/000.png")
    with pytest.raises(DataError, match=says):
        read_folders(tmp_path / "cap", split)


ROWS = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0.JPG,
candle,test,normal,candle/Data/Images/Normal/1.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png
fryum,test,normal,fryum/Data/Images/Normal/0.JPG,
"""


@pytest.fixture
def visa(tmp_path: Path, picture: Picture, write: Callable[[str, str], Path]) -> Path:
    """VisA as downloaded."""
    for name in ("Images/Normal/0.JPG", "Images/Normal/1.JPG", "Images/Anomaly/0.JPG", "Masks/Anomaly/0.png"):
        picture(f"candle/Data/{name}")
    write("split_csv/1cls.csv", ROWS)
    return tmp_path / "candle"


def test_visa_as_downloaded_reads_its_category_by_the_csv(visa: Path) -> None:
    assert [sample.path.name for sample in read_visa(visa).samples] == ["0.JPG"]
    found = read_visa(visa, "test").samples
    assert [(sample.anomalous, sample.defect) for sample in found] == [(False, "good"), (True, "bad")]
    assert found[1].mask == visa.resolve() / "Data/Masks/Anomaly/0.png"


def test_visa_converted_reads(tmp_path: Path, picture: Picture) -> None:
    for name in ("train/good/0.JPG", "test/bad/0.JPG", "ground_truth/bad/0.png"):
        picture(f"candle/{name}")
    assert read_visa(tmp_path / "candle", "test").samples[0].mask is not None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("label", "kind", r"1cls.csv:1: no column label"),
        ("test,anomaly", "test,odd", r"1cls.csv:4: label should be normal or anomaly, got 'odd'"),
        ("candle/Data/Images/Anomaly/0.JPG", "../x.JPG", r"1cls.csv:4: no file '../x.JPG'"),
        ("candle/Data/Images/Anomaly/0.JPG", "/etc/passwd", r"1cls.csv:4: no file '/etc/passwd'"),
        ("candle/Data/Masks/Anomaly/0.png", "candle/none.png", r"1cls.csv:4: no file 'candle/none.png'"),
    ],
)
def test_damaged_csv_raises_naming_the_line(
    old: str, new: str, says: str, visa: Path, write: Callable[[str, str], Path]
) -> None:
    write("split_csv/1cls.csv", ROWS.replace(old, new))
    with pytest.raises(DataError, match=says):
        read_visa(visa, "test")


def test_mask_is_stretched_without_blending_and_any_value_is_a_defect(tmp_path: Path) -> None:
    import dataclasses

    import numpy as np
    from PIL import Image

    from edgekd.training.data.anomaly import load_mask
    from edgekd.training.data.sample import Sample

    mask = np.zeros((4, 6), np.uint8)
    mask[1, 3] = 3  # a class id, as VisA has them
    Image.fromarray(mask).save(tmp_path / "mask.png")
    nothing = (np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_))
    sample = Sample(tmp_path / "x.png", (6, 4), *nothing, tmp_path / "mask.png", anomalous=True, defect="hole")
    larger = np.zeros((8, 12), bool)
    larger[2:4, 6:8] = True
    np.testing.assert_array_equal(load_mask(sample, 8, 12), larger)
    smaller = load_mask(sample, 2, 3)
    np.testing.assert_array_equal(smaller, mask[1::2, 1::2] != 0)
    normal = load_mask(dataclasses.replace(sample, anomalous=False), 2, 3)
    assert normal is not None
    assert not normal.any()
    assert load_mask(dataclasses.replace(sample, mask=None), 2, 3) is None
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read the mask .*mask\.png"):
        load_mask(sample, 2, 3)
