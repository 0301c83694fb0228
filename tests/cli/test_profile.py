"""`edgekd profile` on a small bundle and a real runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd import Profile
from edgekd.cli.main import main

from ..conformance import bundles


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundles.portable().write(tmp_path / "model.bin")


def run(*words: str) -> int:
    return main(["profile", *words])


def test_profile_prints_stages_and_writes_json_and_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model.bin", "--calls", "5", "--out", "a.json", "--report", "a.html") == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[3:10]] == [
        "stage", "decode", "letterbox", "infer", "suppress", "other", "total",
    ]  # fmt: skip
    assert "INVALID: 5 calls are too few for a p99" in out
    profile = Profile.read("a.json")
    assert len(profile.stages_ms["total"]) == 5
    assert profile.images.endswith("golden images")
    assert profile.session["target"] == "reference"
    assert Path("a.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_where_nothing_can_be_written_nothing_is_measured(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgekd.profile", lambda *_, **__: pytest.fail("measured"))
    assert run("model.bin", option, "none/a.json") == 2
    assert "there is no folder" in capsys.readouterr().err


def test_stages_add_up_to_the_whole_call() -> None:
    run("model.bin", "--calls", "300", "--out", "a.json")
    summary = Profile.read("a.json").summary
    assert 0 <= summary["other"].p50 < summary["infer"].p50


def test_files_are_decoded_in_every_call() -> None:
    Path("shots").mkdir()
    Image.fromarray(np.zeros((400, 600, 3), np.uint8)).save("shots/a.png")
    run("model.bin", "--calls", "3", "--images", "shots", "--fps", "200", "--out", "a.json")
    profile = Profile.read("a.json")
    assert profile.fps == 200
    assert profile.images == "1 from shots"
    assert min(profile.stages_ms["decode"]) > 0.1


def test_json_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model.bin", "--calls", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["summary"]["total"]["p50"] > 0


def test_compare_says_slower_by_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    run("model.bin", "--calls", "60", "--out", "a.json")
    raw = json.loads(Path("a.json").read_text())
    for name, total in (("steady", 60 * [100.0]), ("shaky", [*59 * [100.0], 120.0])):
        raw["stages_ms"]["total"] = total
        Path(f"{name}.json").write_text(json.dumps(raw))
    raw["stages_ms"]["total"] = 60 * [900.0]
    Path("b.json").write_text(json.dumps(raw))
    capsys.readouterr()
    assert run("compare", "steady.json", "steady.json", "--tolerance", "20") == 0
    assert capsys.readouterr().out.count("not slower by 20 %") == 3
    assert run("compare", "steady.json", "shaky.json") == 0, "what cannot be told is no failure"
    said = capsys.readouterr().out
    assert "unclear whether slower by more than 3 %: p99;" in said
    assert "more --calls" in said
    assert run("compare", "steady.json", "b.json", "--tolerance", "10") == 3
    assert "slower by more than 10 %: p50" in capsys.readouterr().out
    assert run("compare", "b.json", "steady.json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["faster"][0] == 50


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.bin", "b.bin"], "one bundle at a time, got 2"),
        (["compare", "a.json"], "compare wants two profiles, got 1"),
        (["compare", "a.json", "b.json"], "cannot read a.json"),
        (["model.bin", "--soak", "ten"], "expected a number and s, m or h"),
        (["model.bin", "--calls", "0"], "calls should be at least 1, got 0"),
        (["model.bin", "--fps", "0"], "fps should be above 0"),
        (["model.bin", "--images", "."], "no image in the folder ."),
        (["absent.bin"], "absent.bin"),
    ],
)
def test_what_cannot_be_measured_is_said(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err
