"""Lint of data sets: each kind of trouble is made once, and a clean set has none."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from edgekd._data import data_lint
from edgekd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgekd.training.data.lint_report import Finding, LintReport

LINES = ["0 0.3 0.4 0.2 0.3", "1 0.6 0.6 0.3 0.3"]


@pytest.fixture
def clean(tmp_path: Path, picture: Callable[..., Path], write: Callable[[str, str], Path]) -> Path:
    """A YOLO set of two splits without trouble, images of 100 x 80."""
    write("data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for seed, name in enumerate(("train/a", "train/b", "train/c", "val/d", "val/e")):
        picture(f"images/{name}.png", width=100, height=80, seed=seed)
        write(f"labels/{name}.txt", "\n".join(LINES))
    return tmp_path


def check(root: Path) -> LintReport:
    return data_lint(root / "data.yaml", splits=("train", "val"))


def one(report: LintReport, kind: str) -> Finding:
    found = [item for item in report.findings if item.kind == kind]
    assert len(found) == 1, report.findings
    return found[0]


def test_clean_set_has_no_finding_and_is_counted(clean: Path) -> None:
    report = check(clean)
    assert report.findings == ()
    assert report.ok
    train, val = report.splits
    assert (train.images, train.objects, train.empty, train.classes) == (3, 6, 0, {"cat": 3, "dog": 3})
    assert val.name.endswith("val")


@pytest.mark.parametrize(
    ("line", "kind", "severity"),
    [
        ("0 0.5 0.5 0 0.2", "degenerate", "error"),
        ("0 1.3 0.5 0.2 0.2", "outside", "error"),
        ("0 0.5 -0.2 0.2 0.2", "outside", "error"),
        ("0 0.95 0.5 0.2 0.2", "clipped", "warning"),
        ("0 0.5 0.5 0.2 0.015", "thin", "warning"),
        (LINES[0], "repeated", "warning"),
    ],
)
def test_bad_box_is_found_with_its_place(line: str, kind: str, severity: str, clean: Path) -> None:
    (clean / "labels/train/b.txt").write_text("\n".join([*LINES, line]))
    report = check(clean)
    found = one(report, kind)
    assert found.severity == severity
    assert report.ok == (severity == "warning")
    assert len(found.places) == 1
    assert "train/b" in found.places[0]
    assert [item.kind for item in report.findings] == [kind]


def test_box_one_pixel_over_the_border_is_no_finding(clean: Path) -> None:
    (clean / "labels/train/b.txt").write_text("\n".join([*LINES, "0 0.91 0.5 0.2 0.2"]))
    assert check(clean).findings == ()


def test_same_file_in_two_splits_is_a_leak(clean: Path) -> None:
    shutil.copy(clean / "images/train/b.png", clean / "images/val/e.png")
    report = check(clean)
    found = one(report, "leak")
    assert found.severity == "error"
    assert "train" in found.split
    assert "val" in found.split
    assert "b.png" in found.places[0]
    assert "e.png" in found.places[0]
    assert [item.kind for item in report.findings] == ["leak"]


def test_picture_compressed_again_in_another_split_is_a_near_leak(clean: Path) -> None:
    smooth = np.kron(np.random.default_rng(9).integers(0, 256, (8, 10)), np.ones((10, 10))).astype(np.uint8)
    for name, quality in (("train/b", 95), ("val/e", 85)):
        (clean / f"images/{name}.png").unlink()
        Image.fromarray(smooth).convert("RGB").save(clean / f"images/{name}.jpg", quality=quality)
    found = one(check(clean), "near-leak")
    assert found.severity == "warning"
    assert "b.jpg" in found.places[0]
    assert "e.jpg" in found.places[0]


def test_flat_pictures_are_not_alike(clean: Path) -> None:
    for name, grey in (("train/b", 10), ("val/e", 200)):
        Image.new("RGB", (100, 80), (grey, grey, grey)).save(clean / f"images/{name}.png")
    assert check(clean).findings == ()


def test_same_file_twice_in_a_split_is_a_warning(clean: Path) -> None:
    shutil.copy(clean / "images/train/b.png", clean / "images/train/c.png")
    report = check(clean)
    assert one(report, "duplicate").severity == "warning"
    assert report.ok


def test_unreadable_picture_is_an_error_and_the_rest_is_checked(clean: Path) -> None:
    path = clean / "images/train/b.png"
    path.write_bytes(path.read_bytes()[:-3000])
    (clean / "labels/train/c.txt").write_text("\n".join([*LINES, LINES[0]]))
    report = check(clean)
    assert "b.png" in one(report, "unreadable").places[0]
    assert one(report, "repeated")
    assert not report.ok


def test_unreadable_annotation_is_an_error_and_the_other_split_is_checked(clean: Path) -> None:
    (clean / "labels/train/b.txt").write_text("0 0.5\n")
    report = check(clean)
    found = one(report, "annotation")
    assert "b.txt:1: expected class cx cy w h" in found.places[0]
    assert [item.images for item in report.splits] == [2]


def test_imbalance_above_ten_is_a_warning(clean: Path) -> None:
    for name in "abc":
        boxes = [f"1 0.5 0.5 {0.2 + i / 100} 0.3" for i in range(11)]
        (clean / f"labels/train/{name}.txt").write_text("\n".join([LINES[0], *boxes]))
    found = one(check(clean), "imbalance")
    assert "11 times as many dog (33) as cat (3)" in found.message


def test_class_missing_from_training_is_an_error(clean: Path) -> None:
    for name in "abc":
        (clean / f"labels/train/{name}.txt").write_text(LINES[0])
    found = one(check(clean), "unlearnable")
    assert found.severity == "error"
    assert found.places == ("dog",)


def test_mostly_empty_split_is_a_warning(clean: Path) -> None:
    for name in "ab":
        (clean / f"labels/train/{name}.txt").write_text("")
    report = check(clean)
    assert report.splits[0].empty == 2
    assert "2 of 3 images hold no object" in one(report, "empty").message


def test_picture_of_another_size_than_annotated_is_an_error(
    picture: Callable[..., Path], write: Callable[[str, str], Path]
) -> None:
    picture("images/a.png", width=100, height=80)
    size = "<size><width>80</width><height>100</height></size>"
    write("annotations/a.xml", f"<annotation>{size}</annotation>")
    report = data_lint(write("train.txt", "a"))
    assert "a.png: 100x80, annotated as 80x100" in one(report, "size").places[0]


def test_oriented_boxes_are_checked_for_squares_wrap_and_border(
    picture: Callable[..., Path], write: Callable[[str, str], Path]
) -> None:
    picture("AllImages/a.png", width=100, height=80)
    rows = [
        (50, 40, 30, 10, 0.3),
        (50, 40, 10, 30, 0.3),
        (50, 40, 20, 19.5, 0.3),
        (95, 40, 30, 10, 0.3),
        (150, 40, 9, 5, 0),
    ]
    tags = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
    text = ""
    for row in rows:
        inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, row, strict=True))
        text += f"<HRSC_Object>{inner}</HRSC_Object>"
    write("Annotations/a.xml", f"<HRSC_Image><HRSC_Objects>{text}</HRSC_Objects></HRSC_Image>")
    report = data_lint(write("train.txt", "a"), format="hrsc")
    assert {item.kind: len(item.places) for item in report.findings} == {
        "outside": 1,
        "angle": 1,
        "clipped": 1,
        "square": 1,
    }
    assert "object 2: w 10, h 30" in one(report, "angle").places[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("empty", "the mask of a defect is empty"),
        ("size", "the mask is 10x8, its image 64x48"),
        ("text", "cannot read the mask"),
    ],
)
def test_bad_mask_is_an_error(change: str, says: str, tmp_path: Path, picture: Callable[..., Path]) -> None:
    for seed, name in enumerate(("train/good/0", "test/good/0", "test/hole/0")):
        picture(f"{name}.png", seed=seed)
    mask = picture("ground_truth/hole/0.png", seed=3)
    assert data_lint(tmp_path, splits=("train", "test")).ok
    if change == "text":
        mask.write_text("no picture")
    else:
        Image.new("L", (64, 48) if change == "empty" else (10, 8), int(change != "empty")).save(mask)
    report = data_lint(tmp_path, splits=("train", "test"))
    assert says in one(report, "mask").places[0]
    assert report.splits[1].classes == {"good": 1, "hole": 1}


def test_defect_without_mask_is_a_note(tmp_path: Path, picture: Callable[..., Path]) -> None:
    for seed, name in enumerate(("train/good/0", "test/hole/0")):
        picture(f"{name}.png", seed=seed)
    assert "no mask 0_mask.*" in one(data_lint(tmp_path, splits=("test",)), "dropped").places[0]


def test_progress_counts_every_picture(clean: Path) -> None:
    seen: list[tuple[int, int]] = []
    data_lint(clean / "data.yaml", splits=("train", "val"), progress=lambda *count: seen.append(count))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_report_as_dict_holds_everything(clean: Path) -> None:
    (clean / "labels/train/b.txt").write_text("0 0.5 0.5 0 0.2\n1 0.5 0.5 .1 .1")
    found: dict[str, Any] = check(clean).to_dict()
    assert found["ok"] is False
    assert [item["kind"] for item in found["findings"]] == ["degenerate"]
    assert found["splits"][0]["classes"] == {"cat": 2, "dog": 3}


@pytest.mark.parametrize(
    ("paths", "options", "says"),
    [
        ([], {}, "needs a path"),
        (["/nowhere/train.txt"], {}, "no file or folder at /nowhere/train.txt"),
        (["/"], {"format": "pascal"}, "one of the formats auto, coco"),
    ],
)
def test_impossible_request_raises(paths: list[str], options: dict[str, str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        data_lint(paths, **options)  # type: ignore[arg-type]


@pytest.mark.data
def test_real_sets_have_the_known_troubles(real: Callable[[str], Path]) -> None:
    lists = real("bccd") / "ImageSets" / "Main"
    cells = data_lint([lists / "val.txt", lists / "test.txt"])
    assert [(item.kind, len(item.places)) for item in cells.errors] == [("degenerate", 1)]
    aerial = data_lint([real("ucas_aod_mini") / "train.txt", real("ucas_aod_mini") / "val.txt"])
    assert aerial.ok
    assert {item.kind for item in aerial.findings} == {"clipped", "square"}
