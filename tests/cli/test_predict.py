"""`edgekd predict` on a small bundle and real runtimes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd.cli.main import main

from ..conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    return str(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(bundles.pictures()):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


def test_predict_prints_each_image_with_units(model: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", model, str(pictures), "--conf", "0.01"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("120x90 px") == 3
    assert " ms" in shown.out
    assert "runs here" in shown.err  # why this artifact


def test_predict_json_is_one_object_a_line(model: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", model, str(pictures / "0.png"), str(pictures / "1.png"), "--json", "--conf", "0.01"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == [str(pictures / "0.png"), str(pictures / "1.png")]
    assert all(row["layout"] == "xyxy" for row in rows)


def test_predict_save_writes_annotated_copies(model: str, pictures: Path, tmp_path: Path) -> None:
    assert main(["predict", model, str(pictures / "0.png"), "--save", str(tmp_path / "out"), "--conf", "0.01"]) == 0
    drawn = np.asarray(Image.open(tmp_path / "out" / "0.png"))
    assert drawn.shape == (90, 120, 3)
    assert not np.array_equal(drawn, np.asarray(Image.open(pictures / "0.png")))


@pytest.mark.parametrize("sources", [["{}"], ["{}/0.png", "{}/1.png"], ["{}/*.png"]])
def test_predict_save_never_writes_over_what_it_reads(
    model: str, pictures: Path, sources: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    words = [item.format(pictures) for item in sources]
    assert main(["predict", model, *words, "--save", f"{pictures}/../{pictures.name}", "--conf", "0.01"]) == 2
    assert "is read from there; name another place" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before


def test_predict_save_says_that_a_file_is_in_the_way(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert main(["predict", model, str(pictures / "0.png"), "--save", str(tmp_path / "taken"), "--conf", "0.01"]) == 2
    assert "taken is a file; name a folder, or a video: FILE.mp4" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_predict_save_says_why_it_cannot_write(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "0.png").mkdir(parents=True)
    assert main(["predict", model, str(pictures / "0.png"), "--save", str(tmp_path / "out"), "--conf", "0.01"]) == 4
    assert f"cannot write {tmp_path / 'out' / '0.png'}: Is a directory" in capsys.readouterr().err
    assert [item.name for item in (tmp_path / "out").iterdir()] == ["0.png"]


def test_predict_by_tiles_says_where_the_time_went(
    model: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", model, str(pictures / "0.png"), "--json", "--conf", "0.01"]
    assert main([*words, "--tile", "64", "--overlap", "20"]) == 0
    by_tiles = json.loads(capsys.readouterr().out)
    assert main(words) == 0
    whole = json.loads(capsys.readouterr().out)
    assert set(by_tiles["timings_ms"]) - set(whole["timings_ms"]) == {"merge"}
    assert by_tiles["image_size"] == whole["image_size"] == [90, 120]
    assert by_tiles["boxes"] != whole["boxes"]


def test_predict_of_oriented_boxes_prints_the_angle(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "oriented.bin"
    bundles.portable(oriented=True).write(path)
    assert main(["predict", str(path), str(pictures / "0.png"), "--conf", "0.01", "--save", str(tmp_path / "out")]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert rows
    assert all(row.endswith(" rad") for row in rows)
    assert (tmp_path / "out" / "0.png").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tile", "0"], "tile should be a whole number of pixels, at least 1, got 0"),
        (["--tile", "64", "--overlap", "64"], "overlap should be a whole number of pixels, 0 to tile - 1 = 63"),
        (["--overlap", "64"], "overlap=64 is between tiles"),
        (["--classes", "spanner"], "no class 'spanner'; possible: bolt, nut, washer"),
        (["--device", "toaster"], "no device 'toaster'; possible: auto"),
        (["--precision", "int4"], "has no int4 artifact"),
    ],
)
def test_predict_with_an_impossible_request_says_what_is_possible(
    model: str, pictures: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", model, str(pictures), *words]) == 2
    assert expected in capsys.readouterr().err


def test_predict_on_an_empty_folder_says_so(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["predict", model, str(tmp_path / "empty")]) == 2
    assert "no image in the folder" in capsys.readouterr().err


@pytest.fixture
def inspector(tmp_path: Path) -> str:
    path = tmp_path / "anomaly.bin"
    bundles.portable(anomaly=True).write(path)
    return str(path)


def test_predict_of_an_anomaly_network_prints_the_verdict(
    inspector: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", inspector, str(pictures)]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = r"  120x90 px  (\w+)  score ([\d.]+) \(threshold 2\.53; calibrated [\d.]+\)  (\d+) regions  [\d.]+ ms"
    found = [match.groups() for line in lines if (match := re.search(said, line))]
    assert len(found) == 3
    assert {verdict for verdict, _, _ in found} == {"normal", "ANOMALOUS"}
    for verdict, score, regions in found:
        assert (verdict == "ANOMALOUS") == (float(score) > 2.53) == (int(regions) > 0)
    assert any(line.startswith("  defect  ") and line.endswith(" px") for line in lines)


def test_predict_ungated_shows_regions_of_normal_images(
    inspector: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", inspector, str(pictures / "0.png"), "--json"]
    assert main(words) == 0
    gated = json.loads(capsys.readouterr().out)
    assert main([*words, "--ungated"]) == 0
    ungated = json.loads(capsys.readouterr().out)
    assert gated["is_anomalous"] is ungated["is_anomalous"] is False
    assert gated["boxes"] == []
    assert ungated["boxes"]
    assert main([*words, "--conf", "0.3"]) == 2


def test_predict_save_keeps_images_of_one_name_in_two_folders_apart(
    inspector: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "more"
    other.mkdir()
    for name in ("0.png", "0.bmp"):
        Image.fromarray(bundles.pictures()[1]).save(other / name)
    words = ["predict", inspector, str(pictures), str(other / "0.png"), "--save", str(tmp_path / "out")]
    assert main(words) == 0
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == [
        "1.png", "2.png", "more-0.png", "pictures-0.png",
    ]  # fmt: skip
    assert main(["predict", inspector, str(other), "--save", str(tmp_path / "none")]) == 2
    assert "saved under one name" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
