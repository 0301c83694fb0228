"""Tiles written as a set, read back, and merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd import geometry, ops
from edgekd._detections import Detections
from edgekd.errors import DataError, UsageError
from edgekd.geometry import xywhr_to_corners
from edgekd.training.data.files import header_size
from edgekd.training.data.polygon import xywhr_to_quads
from edgekd.training.data.read import read
from edgekd.training.data.tiles import TileName
from edgekd.training.metrics.oriented import average_precision

if TYPE_CHECKING:
    from edgekd.training.data.sample import Dataset

Write = Callable[[str, str], Path]
SIZE = {"size": 128, "overlap": 48}


def line(box: tuple[float, ...], name: str, difficult: int = 0) -> str:
    return " ".join(f"{value:.4f}" for value in xywhr_to_quads([box]).ravel()) + f" {name} {difficult}\n"


CARS = [(20.5, 30.25, 30, 12, 0.3), (88, 40, 40, 10, -0.7), (128, 100, 36, 14, 1.2), (250, 170, 24, 24, 0.1)]


@pytest.fixture
def large(tmp_path: Path, write: Write, picture: Callable[..., Path]) -> Path:
    """Two pictures of 300x200 px: one with four cars and a difficult plane, one with nothing."""
    picture("set/images/a.png", 300, 200)
    picture("set/images/b.png", 300, 200, seed=1)
    write("set/labelTxt/a.txt", "".join(line(box, "car") for box in CARS) + line((180, 60, 30, 20, 0.9), "plane", 1))
    write("set/labelTxt/b.txt", "")
    return tmp_path / "set"


def as_found(dataset: Dataset) -> list[Detections]:
    """The annotations as detections."""
    return [
        Detections(
            s.boxes.copy(), np.full(len(s.boxes), 0.9, np.float32), s.labels.copy(), dataset.classes, s.size[::-1]
        )
        for s in dataset.samples
    ]


def merged(tiles: Dataset, found: list[Detections], whole: Dataset) -> list[Detections]:
    """Move what was found on the tiles back to the images, and merge it as the runtime does."""
    results = []
    for sample in whole.samples:
        rows = [k for k, tile in enumerate(tiles.samples) if TileName.parse(tile.path.stem).stem == sample.path.stem]
        names = [TileName.parse(tiles.samples[k].path.stem) for k in rows]
        windows = np.array([[n.left, n.top, n.left + s[0], n.top + s[1]] for n, s in zip(
            names, (tiles.samples[k].size for k in rows), strict=True)])  # fmt: skip
        moved = [
            found[k].boxes + np.array([n.left, n.top, 0, 0, 0], np.float32) for k, n in zip(rows, names, strict=True)
        ]
        boxes = np.concatenate(moved).astype(np.float32)
        scores, labels = (np.concatenate([getattr(found[k], key) for k in rows]) for key in ("scores", "labels"))
        tile = np.repeat(np.arange(len(rows)), [len(found[k]) for k in rows])
        keep = ops.merge_tiles(boxes, scores, labels, tile, windows)
        results.append(Detections(boxes[keep], scores[keep], labels[keep], whole.classes, sample.size[::-1]))
    return results


def test_tiles_read_back_with_the_grid_the_pixels_and_the_rectangles(large: Path, tmp_path: Path) -> None:
    report = edgekd.data_tile(large, tmp_path / "out", **SIZE)
    whole, tiles = read(large), read(report.annotations)
    assert (report.images, report.tiles, report.objects, report.cut, report.lost) == (2, 2 * 4 * 2, 5, 0, 0)
    assert (tiles.task, tiles.classes, len(tiles)) == ("obb", ("car", "plane"), 16)
    assert tiles.problems == ()
    pixels, corners = whole.samples[0].load(), xywhr_to_corners(whole.samples[0].boxes)
    seen = set()
    for sample in tiles.samples[:8]:
        name = TileName.parse(sample.path.stem)
        left, top = name.left, name.top
        np.testing.assert_array_equal(sample.load(), pixels[top : top + 128, left : left + 128])
        for quad, hard in zip(xywhr_to_corners(sample.boxes) + np.float32([left, top]), sample.difficult, strict=True):
            distance = np.abs(corners - quad).max(axis=(1, 2))
            row = int(distance.argmin())
            assert distance[row] < 1e-4, "the corners came back in another place or order"
            reaches = (quad < (left - 0.02, top - 0.02)).any() or (quad > (left + 128.02, top + 128.02)).any()
            assert hard == (reaches or row == 4)  # cut here, or difficult before
            seen.add((row, bool(reaches)))
    assert {row for row, _ in seen} == {0, 1, 2, 3, 4}
    assert (1, True) in seen, "no object is cut: the flag was not tested"


def test_truth_tiled_and_merged_back_is_the_truth(large: Path, tmp_path: Path) -> None:
    whole = read(large)
    tiles = read(edgekd.data_tile(large, tmp_path / "out", **SIZE).annotations)
    back = merged(tiles, as_found(tiles), whole)
    assert [len(found) for found in back] == [5, 0]
    assert average_precision(back, whole)["AP"] == 1


def test_names_and_windows_stand_in_the_file(large: Path, tmp_path: Path) -> None:
    content = json.loads(edgekd.data_tile(large, tmp_path / "out", **SIZE).annotations.read_text())
    last = content["images"][7]
    assert last["file_name"] == "a__128__172___72.png"
    assert (last["source"], last["window"]) == ("a.png", [172, 72, 300, 200])
    assert {key: content["info"][key] for key in ("layout", "size", "overlap", "rates", "keep")} == {
        "layout": "xywhr", "size": 128, "overlap": 48, "rates": [1.0], "keep": 0.7,
    }  # fmt: skip


def test_upright_set_is_tiled_too(tmp_path: Path, picture: Callable[..., Path], write: Write) -> None:
    picture("images/a.png", 300, 200)
    write("labels/a.txt", "1 0.1 0.5 0.1 0.1\n0 0.42 0.4 0.05 0.2\n")
    write("classes.txt", "dog\ncat\n")
    tiles = read(edgekd.data_tile(tmp_path / "images", tmp_path / "out", format="yolo", **SIZE).annotations)
    assert (tiles.task, tiles.classes) == ("detect", ("dog", "cat"))
    whole = read(tmp_path / "images", "yolo").samples[0]
    for sample in tiles.samples:
        name = TileName.parse(sample.path.stem)
        back = sample.boxes + np.array([name.left, name.top] * 2)
        for box, label in zip(back, sample.labels, strict=True):
            assert np.abs(whole.boxes[whole.labels == label] - box).max() < 1e-4


def test_pad_fills_the_window_of_a_small_image(large: Path, tmp_path: Path) -> None:
    small, filled = (
        read(edgekd.data_tile(large, tmp_path / name, size=400, overlap=0, pad=pad).annotations).samples[0]
        for name, pad in (("small", None), ("filled", 104))
    )
    assert (small.size, filled.size) == ((300, 200), (400, 400))
    pixels = filled.load()
    np.testing.assert_array_equal(pixels[:200, :300], small.load())
    assert (pixels[200:] == 104).all()
    assert (pixels[:, 300:] == 104).all()
    np.testing.assert_array_equal(small.boxes, filled.boxes)


def test_object_longer_than_the_overlap_is_reported(tmp_path: Path, picture: Callable[..., Path], write: Write) -> None:
    picture("images/a.png", 300, 200)
    write("labelTxt/a.txt", line((125, 100, 100, 10, 0), "cut") + line((150, 100, 290, 10, 0), "lost"))
    report = edgekd.data_tile(tmp_path, tmp_path / "out", size=128, overlap=20, keep=0.6)
    assert (report.cut, report.lost) == (1, 1)
    tiles = read(report.annotations)
    held = [sample.difficult.tolist() for sample in tiles.samples if len(sample.boxes)]
    assert held
    assert all(all(flags) for flags in held)


def test_crowds_stay_crowds_on_tiles_and_what_is_cut_becomes_none(
    tmp_path: Path, picture: Callable[..., Path], write: Write
) -> None:
    picture("train/a.png", 300, 200)
    boxes = [([20, 20, 30, 30], 1), ([60, 20, 120, 30], 0)]  # the second reaches over the first tile's right side
    rows = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": crowd}
        for number, (box, crowd) in enumerate(boxes, start=1)
    ]
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "x"}]
    write("train.json", json.dumps({"images": images, "annotations": rows, "categories": categories}))
    report = edgekd.data_tile(tmp_path / "train.json", tmp_path / "out", size=128, overlap=20, keep=0.5)
    first = read(report.annotations).samples[0]
    assert first.difficult.tolist() == [True, True]
    assert first.crowd is not None
    assert first.crowd.tolist() == [True, False]


def test_same_arguments_write_the_same_bytes(large: Path, tmp_path: Path) -> None:
    def digest(folder: Path) -> list[tuple[str, str]]:
        edgekd.data_tile(large, folder, **SIZE)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]

    first = digest(tmp_path / "one")
    assert len(first) == 17
    assert first == digest(tmp_path / "two")


def test_failure_leaves_nothing_and_a_full_folder_is_refused(large: Path, tmp_path: Path) -> None:
    (large / "images" / "b.png").write_bytes((large / "images" / "b.png").read_bytes()[:300])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"cannot read the image .*b.png"):
        edgekd.data_tile(large, tmp_path / "out", **SIZE)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(DataError, match="is not an empty folder; name a new folder"):
        edgekd.data_tile(large, large, **SIZE)


def test_scene_that_pillow_takes_for_a_bomb_is_cut(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200 * 128)  # of a picture 300 * 200, over twice as many
    with pytest.raises(DataError, match="exceeds limit"):
        read(large)
    assert edgekd.data_tile(large, tmp_path / "out", **SIZE).images == 2
    assert Image.MAX_IMAGE_PIXELS == 200 * 128
    with pytest.raises(DataError, match="is not an empty folder"):
        edgekd.data_tile(large, large, **SIZE)
    assert Image.MAX_IMAGE_PIXELS == 200 * 128


def test_two_images_of_one_stem_name_tiles_after_their_folder_too_or_are_refused(
    tmp_path: Path, picture: Callable[..., Path], write: Write
) -> None:
    for folder in ("x/day", "x/night", "y/day"):
        picture(f"images/{folder}/a.png")
        write(f"labels/{folder}/a.txt", "0 0.5 0.5 0.1 0.1\n")
    edgekd.data_tile(write("two.txt", "images/x/day/a.png\nimages/x/night/a.png\n"), tmp_path / "out", format="yolo")
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == [
        "day-a__1024__0___0.png",
        "night-a__1024__0___0.png",
    ]
    path = write("list.txt", "images/x/day/a.png\nimages/y/day/a.png\n")
    with pytest.raises(DataError, match="several images would name their tiles 'day-a'; rename one"):
        edgekd.data_tile(path, tmp_path / "again", format="yolo")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"pad": 256}, "pad should be a grey level"), ({"overlap": 1024}, "overlap < size"), ({"keep": 0}, "keep should")],
)
def test_impossible_option_raises_before_anything_is_read(options: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        edgekd.data_tile(tmp_path / "none", tmp_path / "out", **options)


def test_anomaly_set_is_refused(tmp_path: Path, picture: Callable[..., Path]) -> None:
    picture("c/train/good/0.png")
    with pytest.raises(DataError, match="task anomaly has no boxes"):
        edgekd.data_tile(tmp_path / "c", tmp_path / "out")


@pytest.mark.data
def test_aerial_images_lint_tile_and_measure_against_themselves(real: Callable[[str], Path], tmp_path: Path) -> None:
    """Folder and list file as they are; the truth on the tiles, and merged back, is worth 1 without suppression."""
    root = real("ucas_aod_mini")
    assert len(read(root)) == 79
    for name in ("images", "labelTxt"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "two.txt").write_text("p_102\nr_1364\n")
    lint = edgekd.data_lint(tmp_path / "two.txt")
    assert lint.ok, lint.findings
    report = edgekd.data_tile(tmp_path / "two.txt", tmp_path / "out", size=640, overlap=160)
    assert (report.images, report.cut, report.lost) == (2, 0, 0)
    whole, tiles = read(tmp_path / "two.txt"), read(tmp_path / "out")
    assert [header_size(s.path) for s in tiles.samples] == [s.size for s in tiles.samples]
    expected = sum(len(geometry.windows(s.size[1], s.size[0], 640, 160)) for s in whole.samples)
    assert len(tiles) == report.tiles == expected
    for mode in ("voc07", "area"):
        assert average_precision(as_found(whole), whole, mode=mode)["AP"] == 1
        assert average_precision(as_found(tiles), tiles, mode=mode)["AP"] == 1
    assert average_precision(merged(tiles, as_found(tiles), whole), whole)["AP"] == 1
