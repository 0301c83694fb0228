"""What is no bundle at all: each kind of file gets an error that says what it looks like."""

from __future__ import annotations

import os
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from edgekd._bundle import Bundle
from edgekd._container import MAGIC
from edgekd.errors import BundleError, NotABundleError

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = {
    "is empty": b"",
    "a zip archive": b"PK\x03\x04" + bytes(300),
    "an ELF program": b"\x7fELF" + bytes(300),
    "a PNG image": b"\x89PNG\r\n\x1a\n" + bytes(300),
    "a JPEG image": b"\xff\xd8\xff\xe0" + bytes(300),
    "a gzip archive": b"\x1f\x8b\x08" + bytes(300),
    "a Python pickle": b"\x80\x04\x95" + bytes(300),
    "a TFLite model": b"\x1c\x00\x00\x00TFL3" + bytes(300),
    "a TensorRT engine with a metadata header": b"\x40\x01\x00\x00" + b'{"task": "detect"}' + bytes(300),
    "a TensorRT engine;": b"ptrt" + bytes(300),
    "a safetensors file": (300).to_bytes(8, "little") + b'{"w":{}}' + bytes(300),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(300),
    "an XML file": b'<?xml version="1.0"?><net/>' + bytes(300),
    "a JSON file": b'{"a": 1}',
    "a text file": b"hello world\n" * 40,
    "starts with the bytes de ad": b"\xde\xad\xbe\xef" + bytes(300),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_file_is_named(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(FOREIGN[kind])
    with pytest.raises(NotABundleError, match=f"{kind}.*`edgekd train`"):
        Bundle.read(tmp_path / "x")


def test_real_onnx_model_is_named(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    for version in (8, 10):
        onnx.save(onnx.helper.make_model(graph, ir_version=version, producer_name="x"), tmp_path / "m.onnx")
        with pytest.raises(NotABundleError, match="an ONNX model"):
            Bundle.read(tmp_path / "m.onnx")


def test_zip_bomb_is_named_and_not_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", bytes(10 << 20))
    with pytest.raises(NotABundleError, match="a zip archive"):
        Bundle.read(tmp_path / "x.zip")


def test_folder_pipe_device_and_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotABundleError, match="is a folder"):
        Bundle.read(tmp_path)
    with pytest.raises(BundleError, match="No such file"):
        Bundle.read(tmp_path / "missing")
    with pytest.raises(BundleError, match="null"):
        Bundle.read(str(tmp_path / "nul") + "\0")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(NotABundleError, match="a device or a pipe"):
            Bundle.read(tmp_path / "pipe")
        with pytest.raises(NotABundleError, match="a device or a pipe"):
            Bundle.read("/dev/zero")


def test_file_of_absurd_size_is_refused_at_once(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.write(MAGIC)
        file.truncate(1 << 40)
    start = time.process_time()
    with pytest.raises(NotABundleError, match="1099511627776 bytes"):
        Bundle.read(tmp_path / "sparse")
    assert time.process_time() - start < 5  # a terabyte would take minutes
