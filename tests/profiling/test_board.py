"""A profile on a board: the fake one, this machine through a real process, and what goes wrong on the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd import Bundle
from edgekd._profile_board import MODULE, program, unpack
from edgekd._profile_on import profile_on
from edgekd.cli.main import main
from edgekd.device import FakeDevice, Fault, LocalDevice
from edgekd.errors import BundleError, DeviceError, ImageError, TargetUnavailableError, UsageError

from ..conformance import bundles

if TYPE_CHECKING:
    from collections.abc import Sequence

QUICK: dict[str, Any] = {"calls": 5, "warmup": 1, "layers": 2}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    bundles.portable().write(tmp_path / "model.bin")
    return tmp_path / "model.bin"


def board(folder: Path, **options: Any) -> FakeDevice:
    folder.mkdir()
    return FakeDevice(folder, {MODULE: program}, **options)


def test_the_samples_of_a_board_come_back_and_nothing_stays_there(model: Path, tmp_path: Path) -> None:
    device = board(tmp_path / "board")
    told: list[tuple[float, int]] = []
    found = edgekd.profile(model, on=device, **QUICK, progress=lambda *row: told.append(row))
    assert found.device == "fake"
    assert len(found.stages_ms["total"]) == 5
    assert found.digest == bundles.portable().digest
    assert found.layers
    assert found.images == "3 golden images"
    assert device.sent[0] > model.stat().st_size
    assert list((tmp_path / "board/tmp").iterdir()) == []


def test_images_go_along(model: Path, tmp_path: Path) -> None:
    (tmp_path / "shots").mkdir()
    for name in ("b.png", "a.jpg"):
        Image.fromarray(np.zeros((400, 600, 3), np.uint8)).save(tmp_path / "shots" / name)
    found = edgekd.profile(model, on=board(tmp_path / "board"), images=tmp_path / "shots", **QUICK)
    assert found.images == f"2 from {tmp_path / 'shots'}"
    assert min(found.stages_ms["decode"]) > 0.05


def test_a_long_profile_comes_in_pieces(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd._profile_board.PIECE_BYTES", 100)
    assert len(edgekd.profile(model, on=board(tmp_path / "board"), **QUICK).start_s) == 5
    with pytest.raises(DeviceError, match="arrived damaged"):
        unpack(["abcd"], "0" * 64)
    with pytest.raises(DeviceError, match="arrived damaged"):
        unpack(["?"], "0" * 64)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("drop", byte=30_000), "fake: the connection broke"),
        (Fault("drop", line=0), "fake: the connection broke"),
        (Fault("kill", byte=10_000), "fake: the connection broke"),
        (Fault("corrupt", byte=30_000), "fake: what arrived is not what was sent"),
        (Fault("full", byte=10_000), "fake: No space left on device, while receiving the bundle"),
    ],
)
def test_what_breaks_on_the_way_is_one_clear_error(model: Path, tmp_path: Path, fault: Fault, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        edgekd.profile(model, on=board(tmp_path / "board", fault=fault), **QUICK)


def test_the_boards_own_errors_are_raised_here(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = board(tmp_path / "board")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"fake: .*broken\.png"):
        edgekd.profile(model, on=device, images=tmp_path / "broken.png", **QUICK)
    reason = "the 'onnxruntime' package is missing: pip install 'edgekd[build]'"
    monkeypatch.setattr("edgekd.targets.reference.probe", lambda: reason)
    with pytest.raises(TargetUnavailableError, match=r"(?s)fake: nothing in model\.bin can run here.*onnxruntime"):
        edgekd.profile(model, on=device, **QUICK)
    with pytest.raises(UsageError, match="no device 'tpu'"):
        edgekd.profile(model, device="tpu", on=device, **QUICK)


def test_what_is_no_bundle_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"no bundle")
    device = board(tmp_path / "board")
    with pytest.raises(BundleError):
        edgekd.profile(tmp_path / "model.bin", on=device, **QUICK)
    assert device.sent[0] == 0


def test_one_board_at_a_time(model: Path) -> None:
    with pytest.raises(UsageError, match="both name a board"):
        edgekd.profile(model, device="user@board", on="other", **QUICK)


def test_a_board_without_edgekd_is_told_what_to_type(model: Path, tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\ncat >/dev/null\necho 'No module named edgekd' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(DeviceError, match=r"local: .*python there has no edgekd of this version .*--python"):
        edgekd.profile(model, on=LocalDevice(), python=str(tmp_path / "python"), **QUICK)


def test_a_board_that_answers_otherwise_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd._profile_on.unpack", lambda *_: {"format": 1, "colour": "red"})
    with pytest.raises(DeviceError, match="host and board need one edgekd"):
        profile_on(LocalDevice(), sys.executable, model, [], {"calls": 1, "layers": 0}, None)


def test_the_command_on_this_machine_as_a_board(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own, as over ssh; figures, layers and page come from the host."""
    monkeypatch.chdir(model.parent)
    words = ["profile", "model.bin", "--on", "local", "--python", sys.executable, "--calls", "5", "--layers", "3"]
    assert main([*words, "--out", "a.json", "--report", "a.html", "--receipt"]) == 0
    shown = capsys.readouterr().out
    assert "part of the network" in shown
    assert "figures into the receipts of model.bin" in shown
    profile = json.loads(Path("a.json").read_text())
    assert sum(item["ms"] for item in profile["layers"]) > 0
    assert profile["device"] == "local"
    assert "<h2>Time by layer</h2>" in Path("a.html").read_text()
    with Bundle.read("model.bin") as bundle:
        assert bundle.manifest.receipts[-1]["what"] == "peak_memory"


def test_an_address_given_as_device_is_a_board(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def opened(name: str) -> FakeDevice:
        asked.append(name)
        return board(tmp_path / "board")

    monkeypatch.setattr("edgekd.device.open_device", opened)
    assert edgekd.profile(model, device="user@board", **QUICK).session["target"] == "reference"
    assert asked == ["user@board"]


def fields(rows: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_figures_go_back_into_the_bundle_and_replace_earlier_ones(model: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    with Bundle.read(model) as bundle:
        bundle.sign(Ed25519PrivateKey.generate().private_bytes_raw()).write(model)
    found = edgekd.profile(model, **QUICK)
    report = edgekd.profile_receipt(model, found)
    assert fields(report.rows, "what") == ["latency_p50", "latency_p90", "latency_p99", "peak_memory"]
    assert report.rows[0]["value"] == found.summary["total"].p50
    assert report.rows[0]["valid"] is False
    assert report.rows[0]["problems"] == found.problems
    assert (report.replaced, report.signature_dropped) == (0, True)
    with pytest.raises(UsageError, match="is not what was measured"):
        edgekd.profile_receipt(model, found)  # the receipts are contents too
    found.write(tmp_path / "p.json")
    bundles.portable().write(tmp_path / "copy.bin")
    assert edgekd.profile_receipt(tmp_path / "copy.bin", tmp_path / "p.json", tmp_path / "out.bin").replaced == 0
    again = edgekd.profile_receipt(model, edgekd.profile(model, **QUICK))
    assert (again.replaced, again.signature_dropped) == (4, False)
    with Bundle.read(model) as bundle:
        assert fields(bundle.manifest.receipts, "what") == fields(report.rows, "what")
