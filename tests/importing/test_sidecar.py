"""What a sidecar may say, and what is said of one that says something else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgekd
from edgekd import GenericHead
from edgekd._bundle import Bundle
from edgekd._sidecar import KEYS, read_sidecar
from edgekd.errors import UsageError

from .conftest import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Network

ROWS = np.random.default_rng(3).uniform(0.1, 0.4, (1, 84, 8)).astype(np.float32)
WHOLE = """
head = "generic"
classes = ["red", "green"]
images = ["photo.png", "more/"]
name = "robot"
size = [480, 640]
color = "bgr"
mean = [1, 2.5, 3]
std = [1, 1, 2]
conf = 0.4
iou = 0.6

[generic]
boxes = "b"
scores = "s"
layout = "xywh"
unit = "fraction"
activation = "sigmoid"
"""


def test_every_key_becomes_an_argument_with_paths_beside_the_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "robot.toml"
    path.write_text(WHOLE)
    expected = {
        "head": GenericHead(boxes="b", scores="s", layout="xywh", unit="fraction", activation="sigmoid"),
        "classes": ("red", "green"), "images": [tmp_path / "photo.png", tmp_path / "more"], "name": "robot",
        "size": (480, 640), "color": "bgr", "mean": (1.0, 2.5, 3.0), "std": (1.0, 1.0, 2.0), "conf": 0.4, "iou": 0.6,
    }  # fmt: skip
    assert read_sidecar(path) == expected
    assert set(expected) | {"generic"} == set(KEYS)


def test_json_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "robot.json"
    path.write_text(json.dumps({"head": "yolox", "classes": "names.txt", "images": "shots", "size": 416}))
    assert read_sidecar(path) == {
        "head": "yolox", "classes": tmp_path / "names.txt", "images": [tmp_path / "shots"], "size": (416, 416),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", 'colour = "bgr"', "unknown key 'colour'; possible: head, generic, classes"),
        ("a.toml", 'color = "gbr"', r"the sidecar\.color should be 'rgb' or 'bgr', got 'gbr'"),
        ("a.toml", "mean = [1, 2]", r"sidecar\.mean should be a list of 3 to 3 items"),
        ("a.toml", "std = [1, 1, 0]", r"sidecar\.std\[2\] should be a number from 1e-06"),
        ("a.toml", "size = 0", r"sidecar\.size\[0\] should be an integer from 1"),
        ("a.toml", "conf = 2", r"sidecar\.conf should be a number from 0 to 1"),
        ("a.toml", "classes = []", r"sidecar\.classes should be a list of 1 to"),
        ("a.toml", 'head = "generic"', r"and the table \[generic\] \(boxes, scores, ...\) belong together"),
        ("a.toml", 'head = "yolox"\n[generic]\nboxes = "b"\nscores = "s"', "belong together"),
        ("a.toml", 'head = "generic"\n[generic]\nboxes = "b"', r"sidecar\.generic lacks the key 'scores'"),
        ("a.toml", 'head = "generic"\n[generic]\nboxes = "b"\nscores = "s"\nx = "y"', "unknown key 'x'"),
        ("a.toml", "head = ", r"a\.toml is not valid TOML"),
        ("a.json", "{", "this is no strict JSON"),
        ("a.json", '{"head": "yolox", "head": "yolox"}', "a key twice"),
        ("a.json", "[]", "the sidecar should be an object, got"),
        ("a.yaml", "head: yolox", r"should be a \.toml or \.json file"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_sidecar(tmp_path / name)


def test_missing_sidecar_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the sidecar .*none\.toml: No such file"):
        read_sidecar(tmp_path / "none.toml")


def test_sidecar_serves_onnx_too_and_is_in_the_provenance(network: Network, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    sidecar = tmp_path / "net.toml"
    sidecar.write_text('head = "yolox"\nclasses = "names.txt"\nimages = "photo.png"\ncolor = "rgb"\nconf = 0.3\n')
    edgekd.import_model(network({"out": ROWS}), tmp_path / "model.bin", sidecar=sidecar, name="robot")
    with Bundle.read(tmp_path / "model.bin") as bundle:
        manifest = bundle.manifest
        assert (manifest.name, manifest.classes, manifest.input.color) == ("robot", NAMES, "rgb")
        assert manifest.predict.conf == 0.3
        assert set(manifest.provenance["imported"]["sidecar"]) == {"net.toml"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nobody says which classes, images .*: give --classes, --images, or a sidecar with them"),
        ({"classes": NAMES, "head": "yolox"}, r"head: said in .*net\.toml and in the call"),
        ({"classes": NAMES}, "nobody says which images .*: give --images, or a sidecar with it"),
    ],
)
def test_what_is_missing_or_said_twice_is_named(
    given: dict[str, Any], message: str, network: Network, tmp_path: Path
) -> None:
    sidecar = tmp_path / "net.toml"
    sidecar.write_text('head = "yolox"\n')
    with pytest.raises(UsageError, match=message):
        edgekd.import_model(network({"out": ROWS}), tmp_path / "model.bin", sidecar=sidecar, **given)
