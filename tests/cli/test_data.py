"""`edgekd data`: what it prints and what it returns."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edgekd.cli import data

if TYPE_CHECKING:
    from pathlib import Path


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    data.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", *words])
    return int(args.run(args))


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A set of one image and one box."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    return tmp_path


def test_lint_of_a_clean_set_prints_its_numbers_and_returns_0(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lint", str(yolo)) == 0
    out = capsys.readouterr().out
    assert "cat 1" in out
    assert "0 errors, 0 warnings" in out


def test_lint_with_a_warning_returns_0(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (yolo / "labels" / "a.txt").write_text("0 0.9 0.5 0.5 0.5\n")
    assert run("lint", str(yolo), "--format", "yolo") == 0
    assert "warning: clipped: 1 of 1 boxes" in capsys.readouterr().out


def test_lint_with_errors_prints_three_places_and_returns_3(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (yolo / "labels" / "a.txt").write_text("0 0.5 0.5 0 0.5\n" * 5 + "0 0.5 0.5 0.5 0.5\n")
    assert run("lint", str(yolo)) == 3
    out = capsys.readouterr().out
    assert "error: degenerate: boxes without area: 5" in out
    assert out.count("has no area") == 3
    assert "and 2 more" in out
    assert "1 errors, 0 warnings" in out


def test_lint_as_json_prints_every_place_and_nothing_else(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (yolo / "labels" / "a.txt").write_text("0 0.5 0.5 0 0.5\n" * 5)
    assert run("lint", str(yolo), "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert len(found["findings"][0]["places"]) == 5


def test_lint_of_splits_in_one_path_reads_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("train/good", "test/good")):
        (tmp_path / name).mkdir(parents=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    assert run("lint", str(tmp_path), "--split", "train", "--split", "test", "--json") == 0
    names = [item["name"] for item in json.loads(capsys.readouterr().out)["splits"]]
    assert names == [f"{tmp_path}:train", f"{tmp_path}:test"]


def test_synth_writes_a_set_that_lint_finds_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    words = ("--train", "3", "--val", "2", "--test", "0", "--seed", "5", "--size", "128")
    assert run("synth", "xray", str(folder), *words, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "kind": "xray",
        "seed": 5,
        "train": 3,
        "val": 2,
        "test": 0,
    }
    assert run("lint", str(folder / "train.json"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["splits"][0]["images"] == 3


def test_tile_writes_a_set_and_says_what_was_lost(
    yolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The box is 30 of 60 px wide and windows are 32: no tile shows it whole, until one at rate 0.5 does."""
    words = ("tile", str(yolo), str(tmp_path / "out"), "--format", "yolo", "--size", "32", "--overlap", "8")
    assert run(*words, "--keep", "0.5") == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'out' / 'tiles.json'}: 6 tiles of 1 images, 1 objects" in out
    assert "1 objects are whole on no tile" in out
    words = (*words[:2], str(tmp_path / "two"), *words[3:], "--rates", "1", "0.5", "--json")
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "annotations": str(tmp_path / "two" / "tiles.json"), "images": 1, "tiles": 7, "objects": 1, "cut": 0, "lost": 0,
    }  # fmt: skip


@pytest.mark.parametrize("words", [(), ("lint",), ("synth", "xray"), ("synth", "xray", "x", "--train", "many")])
def test_wrong_words_are_a_usage_error(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
