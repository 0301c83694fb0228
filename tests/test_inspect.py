"""`inspect`: everything a bundle says, readable, machine-readable, and harmless in a terminal."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import edgekd
from edgekd._bundle import Bundle
from edgekd._manifest import Artifact, GoldenImage, InputSpec, Manifest, OutputSpec
from edgekd.cli.main import main
from edgekd.errors import CorruptBundleError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = Manifest(
    name="bags",
    task="detect",
    classes=tuple(f"class{index}" for index in range(14)),
    input=InputSpec(height=320, width=416, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    outputs=(
        OutputSpec(name="boxes", kind="boxes", shape=(6, 4), layout="xyxy"),
        OutputSpec(name="scores", kind="scores", shape=(6, 14), activation="sigmoid"),
    ),
    created="2026-11-20T08:30:00Z",
    edgekd="0.1.0",
    artifacts=(
        Artifact(
            target="openvino",
            precision="fp32",
            files={"model.xml": "ov/x", "model.bin": "ov/b"},
            tools={"openvino": "2026.4"},
        ),
        Artifact(target="tflite", precision="fp16", files={"model.tflite": "tf", "twin.tflite": "tf2"}),
    ),
    golden=(GoldenImage(image="golden/0.png", outputs=("golden/0.boxes", "golden/0.scores")),),
    receipts=(
        {"what": "AP50", "value": 0.7741, "split": "val"},
        {"what": "latency", "value": 3.25, "unit": "ms", "machine": "evil\x1b[2J\u202eno"},
    ),
    recipe={"name": "bags", "train": {"steps": 500}, "distill": [{"method": "fad"}, {"method": "pkd"}], "mean": [1, 2]},
    provenance={"teacher": {"sha256": "abc", "note\x1b]0;": "line\nline"}},
)
CHUNKS = {
    "graph.onnx": bytes(3 << 20),
    "ov/x": b"x" * 1000,
    "ov/b": bytes(200_000),
    "tf": bytes(200_000),
    "tf2": bytes(200_000),
    "golden/0.png": b"p" * 500,
    "golden/0.boxes": bytes(96),
    "golden/0.scores": bytes(336),
    "spare": b"?",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Bundle.create(MANIFEST, CHUNKS).write(tmp_path / "model.bin")
    return tmp_path / "model.bin"


def test_inspection_holds_the_manifest_the_chunks_and_what_they_are_for(path: Path) -> None:
    found = edgekd.inspect(path)
    assert found.manifest == MANIFEST
    assert found.size_bytes == path.stat().st_size
    assert found.signed_by is None
    assert {chunk.name for chunk in found.chunks} == {*CHUNKS, "manifest.json"}
    assert found.uses["ov/b"] == ("openvino fp32",)
    assert found.uses["golden/0.scores"] == ("golden 0",)
    assert "spare" not in found.uses


def test_json_is_json_and_complete(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path), "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    report = json.loads(printed)
    assert report["manifest"]["input"]["width"] == 416
    assert report["manifest"]["provenance"]["teacher"]["note\x1b]0;"] == "line\nline"
    (row,) = [chunk for chunk in report["chunks"] if chunk["name"] == "tf"]
    assert row["uses"] == ["tflite fp16"]
    assert row["alignment"] == 65536
    assert report["digest"] == edgekd.inspect(path).digest


def test_table_says_what_a_person_asks(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert "task       detect, 14 classes: class0, class1" in text
    assert "class11, ..." in text
    assert "input      images 320x416 px (height x width) rgb NCHW float32" in text
    assert "mean 123.675 116.28 103.53, std 58.395 57.12 57.375, pad 114" in text
    assert "signature  none" in text
    assert any(line.split() == ["portable", "fp32", "3.00", "MiB", "ONNX"] for line in lines)
    assert any(line.split() == ["openvino", "fp32", "196.3", "KiB", "openvino", "2026.4"] for line in lines)
    assert any(line.split() == ["tflite", "fp16", "195.3", "KiB"] for line in lines), "equal files count once"
    assert any(line.split() == ["AP50", "0.7741", "split=val"] for line in lines)
    assert any(line.startswith("latency  3.25 ms") for line in lines)
    assert "golden set 1 images, 932 B" in text
    assert "    steps: 500" in text
    assert "  distill\n    1\n      method: fad\n    2\n      method: pkd" in text
    assert "  mean: [1, 2]" in text
    assert "spare" not in text


def test_chunks_lists_the_table_of_contents(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path), "--chunks"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    by_name = {row[0]: row for row in rows if row}
    assert by_name["spare"][-2:] == ["not", "used"]
    assert by_name["ov/b"][1] == by_name["tf"][1], "equal chunks share their bytes"


def test_what_the_author_wrote_cannot_move_the_cursor(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path), "--chunks"]) == 0
    printed = capsys.readouterr().out
    assert all(letter == "\n" or letter.isprintable() for letter in printed)
    assert "evil\\u001b[2J\\u202eno" in printed
    assert "line\\u000aline" in printed


def test_signature_is_named_as_not_checked(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = Bundle.create(MANIFEST, CHUNKS).sign(bytes(32))
    signed.write(path)
    assert main(["inspect", str(path)]) == 0
    assert signed.signature is not None
    assert f"signature  by key {signed.signature.key_id[:16]}, not checked" in capsys.readouterr().out


def test_empty_sections_are_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = dataclasses.replace(MANIFEST, artifacts=(), golden=(), receipts=(), recipe=None, provenance={})
    Bundle.create(bare, {"graph.onnx": b"g"}).write(tmp_path / "model.bin")
    assert main(["inspect", str(tmp_path / "model.bin")]) == 0
    printed = capsys.readouterr().out
    assert "golden set 0 images, 0 B" in printed
    assert "provenance: none" in printed
    assert "recipe" not in printed
    assert "receipt" not in printed


def test_damaged_bundle_exits_2_with_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptBundleError):
        edgekd.inspect(path)
    assert main(["inspect", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "truncated" in printed.err


def test_output_may_be_cut_short(path: Path) -> None:
    command = f"{sys.executable} -m edgekd.cli.main inspect {path} --json | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.stderr == ""
    assert done.stdout == "{\n"
