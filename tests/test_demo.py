"""The demo on a tiny teacher and three steps: every stage runs, every file is there, nothing else is removed."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import edgekd
from edgekd import _demo
from edgekd.cli.main import main
from edgekd.errors import GateError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

DATA = '[data]\ntrain = "train.json"\nval = "val.json"\n'
INPUT = "[input]\nheight = 64\nwidth = 64\n"
NETWORK = 'backbone = "csp-tiny"\nwidth = 0.25\nchannels = 16\nhead_depth = 1\n'
TRAIN = "[train]\nsteps = 2\nbatch = 2\n"


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    for name, value in (("TRAIN", 4), ("VAL", 2), ("TEST", 2), ("TIMED", 4), ("PRECISIONS", ("fp32",))):
        monkeypatch.setattr(_demo, name, value)
    scenes = edgekd.data_synth("xray", tmp_path / "scenes", train=4, val=2, test=2)
    student = f'name = "tiny"\n{DATA}{INPUT}[student]\n{NETWORK}{TRAIN}'
    taught = f'{student}[teacher]\n{NETWORK}weights = "teacher.safetensors"\n[[distill]]\nmethod = "pkd"\n'
    (folder / "student.toml").write_text(student)
    (folder / "distill.toml").write_text(taught)
    (scenes / "student.toml").write_text(student)
    report = edgekd.train(scenes / "student.toml", tmp_path / "teacher")
    shutil.copy(report.weights, folder / "teacher.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_goes_the_whole_way_and_leaves_its_files(
    assets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--assets", str(assets)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in report["networks"]] == ["teacher (shipped)", "student alone", "student distilled"]
    assert {row["target"] for row in report["targets"]} == {"openvino", "reference", "tensorrt", "tflite"}
    ran = [row for row in report["targets"] if row["p50_ms"] is not None]
    assert {"openvino", "reference", "tflite"} <= {row["target"] for row in ran}
    assert len(list(out.glob("*.png"))) == len(ran)
    assert edgekd.verify(out / "model.bin").passed
    shown = capsys.readouterr().out
    assert "student distilled" in shown
    assert "built, not run: no NVIDIA driver" in shown or " ms " in shown


def test_int8_that_is_refused_is_told_and_the_others_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(_bundle: Path, *, targets: list[str], precisions: list[str], progress: object) -> SimpleNamespace:
        assert precisions == ["int8"]
        if targets == ["tensorrt"]:
            raise GateError("tensorrt int8: AP drop 2 points")
        return SimpleNamespace(artifacts=(targets[0],))

    monkeypatch.setattr(_demo, "build", build)
    lines: list[str] = []
    names = ["openvino", "reference", "tensorrt", "tflite"]
    assert _demo._int8_artifacts(tmp_path / "model.bin", names, lines.append) == ("openvino", "tflite")
    assert lines == ["tensorrt int8: AP drop 2 points"]


def test_demo_replaces_what_an_earlier_demo_wrote(tmp_path: Path) -> None:
    _demo._prepare(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.png").write_bytes(b"old")
    (tmp_path / "model.bin").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    assert _demo._prepare(tmp_path) == tmp_path
    assert {item.name for item in tmp_path.iterdir()} == {_demo.MARK, "notes.txt"}


@pytest.mark.parametrize("file", ["thesis.tex", "data/thesis.tex", "report.json"])
def test_demo_takes_nothing_out_of_a_folder_that_is_not_a_demo(assets: Path, tmp_path: Path, file: str) -> None:
    precious = tmp_path / "precious" / file
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(UsageError, match="no earlier demo made it"):
        edgekd.demo(tmp_path / "precious", assets=assets)
    assert precious.read_text() == "years of work"


def test_demo_says_that_its_folder_is_a_file(assets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file is a file; choose another --out"):
        edgekd.demo(tmp_path / "file", assets=assets)


def test_demo_without_its_teacher_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not in the wheel"):
        edgekd.demo(tmp_path / "out", assets=tmp_path)
