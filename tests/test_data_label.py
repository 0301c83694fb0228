"""`data_label`: what a bundle finds, written as a set that the readers read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd.cli.main import main
from edgekd.errors import UsageError
from edgekd.training.data.read import read

from .conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path

CONF = 0.02


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    folder = tmp_path / "shots"
    folder.mkdir()
    for index, picture in enumerate(bundles.pictures()):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("kind", ["upright", "oriented"])
def test_the_set_holds_what_predict_finds(kind: str, shots: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model.bin", shots / "labels.json"
    bundles.portable(oriented=kind == "oriented").write(model)
    report = edgekd.data_label(model, shots, out, conf=CONF)
    dataset = read(out)
    assert dataset.task == ("obb" if kind == "oriented" else "detect")
    with edgekd.load(model) as detector:
        assert dataset.classes == detector.names
        found = [detector.predict(path, conf=CONF) for path in sorted(shots.glob("*.png"))]
    sides = [item.boxes[:, 2:4] if item.oriented else item.boxes[:, 2:] - item.boxes[:, :2] for item in found]
    found = [item[side.min(axis=1) >= 1] for item, side in zip(found, sides, strict=True)]
    assert sum(map(len, found)) > 0
    for sample, expected in zip(dataset.samples, found, strict=True):
        assert sample.labels.tolist() == expected.labels.tolist()
        hulls = expected.boxes if not expected.oriented else None
        if hulls is not None:
            np.testing.assert_allclose(sample.boxes, hulls, atol=1e-3)
        else:
            assert edgekd.geometry.box_distances(sample.boxes, expected.boxes).max(initial=0) < 0.05
    assert (report.images, sum(report.objects.values())) == (len(found), sum(map(len, found)))
    assert report.empty == sum(not len(item) for item in found)


def test_chosen_classes_are_the_classes_of_the_set(shots: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model.bin", shots / "labels.json"
    bundles.portable().write(model)
    with edgekd.load(model) as detector:
        last = detector.names[-1]
    report = edgekd.data_label(model, [shots], out, conf=CONF, classes=[len(detector.names) - 1, last])
    assert list(report.objects) == [last]
    assert read(out).classes == (last,)
    with pytest.raises(UsageError, match="no class 'moon'"):
        edgekd.data_label(model, shots, out, classes=["moon"])
    with pytest.raises(UsageError, match="no class index 99"):
        edgekd.data_label(model, shots, out, classes=[99])


def test_what_is_no_image_is_left_out_and_said(shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles.portable().write(tmp_path / "model.bin")
    (shots / "a.jpg").write_bytes(b"no image")
    words = ["data", "label", str(tmp_path / "model.bin"), str(shots), "--out", str(shots / "l.json")]
    assert main([*words, "--conf", "1"]) == 0
    out = capsys.readouterr().out
    assert f"{len(bundles.pictures())} images, {len(bundles.pictures())} of them without objects; nothing" in out
    assert "left out: " in out
    assert "a.jpg" in out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == len(bundles.pictures())


def test_images_that_the_set_could_not_name_are_refused(shots: Path, tmp_path: Path) -> None:
    bundles.portable().write(tmp_path / "model.bin")
    (tmp_path / "else").mkdir()
    with pytest.raises(UsageError, match=r"0\.png does not lie below .*else, .* --out .*shots/labels\.json"):
        edgekd.data_label(tmp_path / "model.bin", shots, tmp_path / "else" / "labels.json")
    assert not list((tmp_path / "else").iterdir())


def test_where_labels_cannot_be_written_nothing_is_labelled(
    shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.json").mkdir()
    monkeypatch.setattr("edgekd._data.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UsageError, match=r"labels\.json is a folder; name a file in it"):
        edgekd.data_label(tmp_path / "model.bin", shots, tmp_path / "labels.json")


def test_without_any_image_nothing_is_written(shots: Path, tmp_path: Path) -> None:
    bundles.portable().write(tmp_path / "model.bin")
    for path in shots.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no image in"):
        edgekd.data_label(tmp_path / "model.bin", shots, shots / "l.json")
    (shots / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"none of 1 files is an image: .*empty"):
        edgekd.data_label(tmp_path / "model.bin", shots, shots / "l.json")
    assert not (shots / "l.json").exists()
