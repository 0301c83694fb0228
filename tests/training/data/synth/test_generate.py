"""Whole synthetic sets on the disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import DataError, UsageError
from edgekd.training.data.read import read
from edgekd.training.data.synth import KINDS, generate, scene, writing

if TYPE_CHECKING:
    from pathlib import Path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_generate_when_repeated_then_every_byte_is_the_same(kind: str, tmp_path: Path) -> None:
    first = generate(kind, tmp_path / "a", train=2, val=1, test=2, seed=5, size=96)
    again = generate(kind, tmp_path / "b", train=2, val=1, test=2, seed=5, size=96)
    assert contents(first) == contents(again)


@pytest.mark.parametrize("kind", KINDS)
def test_scene_when_others_are_drawn_before_then_pixels_are_the_same(kind: str) -> None:
    fresh, _ = scene(kind, 3, 4, size=96)
    for index in (0, 9):
        scene(kind, 3, index, size=96)
    again, _ = scene(kind, 3, 4, size=96)
    np.testing.assert_array_equal(fresh, again)


@pytest.mark.parametrize("kind", KINDS)
def test_scene_when_seed_split_or_index_differs_then_pixels_differ(kind: str) -> None:
    index = 7  # of the same surface category as 0
    first, _ = scene(kind, 0, 0, size=(96, 96))
    for seed, split, other in ((1, "train", 0), (0, "val", 0), (0, "train", index)):
        changed, _ = scene(kind, seed, other, split=split, size=(96, 96))
        assert (changed != first).mean() > 0.2


def test_generate_when_the_set_grows_then_old_images_stay(tmp_path: Path) -> None:
    small = generate("xray", tmp_path / "small", train=2, val=0, test=0, size=96)
    large = generate("xray", tmp_path / "large", train=4, val=3, test=0, size=96)
    for name in ("000000.jpg", "000001.jpg"):
        assert (small / "train" / name).read_bytes() == (large / "train" / name).read_bytes()
    assert not (small / "val.json").exists()


def test_generate_when_read_back_then_xray_boxes_and_sizes_are_those_drawn(tmp_path: Path) -> None:
    folder = generate("xray", tmp_path / "set", train=4, val=0, test=0, seed=2)
    dataset = read(folder / "train.json")
    assert dataset.task == "detect"
    assert dataset.classes == ("gun", "knife", "wrench", "pliers", "scissors")
    for index, sample in enumerate(dataset.samples):
        image, found = scene("xray", 2, index)
        np.testing.assert_array_equal(sample.boxes, found.boxes)
        np.testing.assert_array_equal(sample.labels, found.labels)
        assert sample.size == image.shape[1::-1]
        assert np.abs(sample.load().astype(int) - image).mean() < 6  # JPEG


def test_generate_when_read_back_then_aerial_coco_and_dota_agree_with_the_scene(tmp_path: Path) -> None:
    folder = generate("aerial", tmp_path / "set", train=2, val=0, test=0, size=256)
    coco = read(folder / "train.json", format="coco-obb")
    dota = read(folder / "train", classes=coco.classes)
    assert coco.task == dota.task == "obb"
    for index in range(2):
        _, found = scene("aerial", 0, index, size=256)
        np.testing.assert_allclose(coco.samples[index].boxes, found.boxes, atol=1e-3)
        np.testing.assert_allclose(dota.samples[index].boxes, found.boxes, atol=1e-2)
        np.testing.assert_array_equal(dota.samples[index].labels, found.labels)
    raw = json.loads((folder / "train.json").read_text())
    for box in (item["bbox"] for item in raw["annotations"]):
        assert min(box) >= 0
        assert box[0] + box[2] <= 256
        assert box[1] + box[3] <= 256


def test_generate_when_read_back_then_surface_masks_belong_to_their_images(tmp_path: Path) -> None:
    folder = generate("surface", tmp_path / "set", train=7, val=7, test=14, size=96)
    listed = json.loads((folder / "defects.json").read_text())["defects"]
    assert len(listed) == 7
    for place, category in enumerate(("plaster", "wood", "leather", "weave", "grid", "bricks", "part")):
        assert (folder / category / "validation" / "good" / "000.png").is_file()
        assert [sample.defect for sample in read(folder / category, split="train").samples] == ["good"]
        samples = {sample.path.stem: sample for sample in read(folder / category, split="test").samples}
        image, found = scene("surface", 0, place, split="test", size=96)
        np.testing.assert_array_equal(samples["000"].load(), image)
        mask = samples["000"].mask
        assert mask is not None
        np.testing.assert_array_equal(np.asarray(Image.open(mask)) == 255, found.mask)
        assert samples["001"].anomalous is False


@pytest.mark.parametrize("content", ["file", "folder"])
def test_generate_when_the_folder_holds_something_then_it_is_refused_and_kept(content: str, tmp_path: Path) -> None:
    target = tmp_path / "set"
    if content == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder; name a new folder"):
        generate("xray", target, train=1, val=0, test=0)
    assert len(list(tmp_path.rglob("*"))) == (1 if content == "file" else 2)


def test_generate_when_it_fails_midway_then_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full_disk(image: Image.Image, path: Path, **options: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"x")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DataError, match="cannot write the xray set"):
        generate("xray", tmp_path / "set", train=4, val=0, test=0, size=96)
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


def test_generate_when_the_folder_is_empty_then_it_is_used_and_readable_by_all(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    generate("xray", target, train=1, val=0, test=0, size=96)
    assert sorted(item.name for item in target.iterdir()) == ["train", "train.json"]
    assert target.stat().st_mode & 0o055 == 0o055


def test_generate_when_it_runs_then_progress_counts_to_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    generate(
        "xray",
        tmp_path / "set",
        train=2,
        val=1,
        test=1,
        size=96,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "sonar"}, "no generator 'sonar'; possible: xray, aerial, surface"),
        ({"seed": -1}, "a seed is 0 or more"),
        ({"size": 32}, "64 pixels or more"),
        ({"size": (256, 8)}, "64 pixels or more"),
        ({"train": -1}, "0 or more"),
        ({"train": 0}, "at least one above 0"),
        ({"shift": 0.5}, "the others take none"),
    ],
)
def test_generate_when_an_argument_is_impossible_then_it_says_so(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    chosen: dict[str, object] = {"kind": "xray", "folder": tmp_path / "s", "train": 1, "val": 0, "test": 0, **arguments}
    with pytest.raises(UsageError, match=message):
        generate(**chosen)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("split", "index"), [("dev", 0), ("train", -1)])
def test_scene_when_split_or_index_is_impossible_then_it_says_so(split: str, index: int) -> None:
    with pytest.raises(UsageError, match="splits are train, val, test, indices start at 0"):
        scene("xray", 0, index, split=split)


def test_whole_folder_when_the_parent_cannot_be_written_then_the_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to"), writing.whole_folder(tmp_path / "file" / "set"):
        pass


def _fill(folder: Path) -> None:
    folder.mkdir()
    (folder / "theirs").write_text("")


def test_whole_folder_when_another_process_filled_it_meanwhile_then_theirs_stays_and_one_error_says_so(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "set"
    with pytest.raises(DataError, match="somebody else meanwhile"), writing.whole_folder(folder):
        _fill(folder)
    assert [each.name for each in folder.iterdir()] == ["theirs"]
    assert [each.name for each in tmp_path.iterdir()] == ["set"]


def test_whole_folder_when_an_empty_folder_is_there_then_it_is_filled(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    with writing.whole_folder(folder) as temporary:
        (temporary / "ours").write_text("")
    assert [each.name for each in folder.iterdir()] == ["ours"]
