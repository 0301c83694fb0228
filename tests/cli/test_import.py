"""`edgekd import`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgekd._bundle import Bundle
from edgekd.cli.main import main


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a network of two outputs, names and a photo into the working folder."""
    monkeypatch.chdir(tmp_path)
    boxes, scores = (
        np.array([[[8, 8, 24, 24], [0, 0, 4, 4]]], np.float32),
        np.array([[[0.9, 0.1], [0.1, 0.2]]], np.float32),
    )
    nodes = [
        helper.make_node("ReduceMin", ["x", "all"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "none"], ["nothing"]),
        helper.make_node("Add", ["boxes_", "nothing"], ["b"]),
        helper.make_node("Add", ["scores_", "nothing"], ["s"]),
    ]
    constants = {"boxes_": boxes, "scores_": scores, "none": np.float32(0), "all": np.array([0, 1, 2, 3])}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, size]) for name, size in (("b", 4), ("s", 2))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    Path("net.onnx").write_bytes(model.SerializeToString())
    Path("names.txt").write_text("cat\n\ndog\n")
    Image.new("RGB", (64, 32)).save("photo.png")
    return tmp_path


COMMAND = ["import", "net.onnx", "--head", "generic", "--boxes", "b", "--scores", "s", "--classes", "names.txt"]
COMMAND += ["--images", "photo.png", "--out", "model.bin"]


def test_import_prints_what_the_bundle_sees(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--size", "32x64", "--layout", "xywh", "--color", "bgr", "--conf", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "head     generic, decoded from b (2, 4), s (2, 2)",
        "input    64x32 px, bgr, mean (0.0, 0.0, 0.0), std (255.0, 255.0, 255.0)",
    ]
    assert lines[3:5] == ["image      objects above 0.5  best score", "photo.png  1                  0.90"]
    manifest = Bundle.read("model.bin").manifest
    assert (manifest.name, manifest.classes, manifest.predict.conf) == ("net", ("cat", "dog"), 0.5)


def test_import_prints_json(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--size", "32", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["head"], report["outputs"], report["images"]["photo.png"][0]) == (
        "generic",
        {"b": [2, 4], "s": [2, 2]},
        1,
    )


def test_nothing_found_is_said(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--size", "32", "--conf", "0.95"]) == 0
    assert "Nothing was found." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--size 640 or 480x640"),
        (["--size", "32", "--classes", "none"], "names, one a line, from none: No such file or directory\n"),
        (["--size", "3x2x1"], "expected 640, or height and width as 480x640"),
        (["--size", "32", "--boxes", ""], "wants --boxes NAME and --scores NAME"),
        (["--size", "32", "--head", "yolov8"], "--boxes, --scores: only with --head generic"),
    ],
)
def test_what_cannot_be_imported_is_said(
    more: list[str], message: str, given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, *more]) == 2
    assert message in capsys.readouterr().err
    assert not Path("model.bin").exists()
