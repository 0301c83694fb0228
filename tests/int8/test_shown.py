"""What people see of int8: the command's table, `inspect`, and the page; and that a hostile receipt shows as text."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd._int8 import search
from edgekd._int8.options import Calibration
from edgekd._int8.page import LAYERS_SHOWN, render, write_page
from edgekd._target import load_target
from edgekd.cli.main import main
from edgekd.errors import BundleError, UsageError

from ..conformance import bundles
from . import networks, sets

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Trained

QUICK = "openvino"
UNRUN = "tensorrt"
needs_quick = pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe()))

GATES = [
    {"name": "AP drop", "value": 0.12, "bound": 0.5, "unit": "points", "passed": True},
    {"name": "score shift", "value": None, "bound": 0.02, "unit": "", "passed": False},
    {"name": "decisions", "value": 99.7, "bound": 99.0, "unit": "% alike", "passed": True},
]
RECEIPT: dict[str, Any] = {
    "what": "int8 AP drop", "value": 0.12, "unit": "points", "split": "val", "target": "openvino", "precision": "int8",
    "compute": "int8", "runtime": "OpenVINO 2026.4", "machine": "x86_64 Linux", "date": "2026-11-30T01:00:00Z",
    "quantization": {
        "passed": True, "emulated": False,
        "ranges": {"estimator": "mse", "errors": {"mse": 0.01}},
        "calibration": {"name": "/data/train", "images": 128, "of": 900, "near_copies": 3, "origin": "train"},
        "validation": {"name": "/data/val", "images": 40, "objects": 99, "origin": "val"},
        "layers": [
            {"name": f"layer{i}.weight", "work": 9 + i, "weights": 9, "int8": i > 1, "error": 1 / (i + 1)}
            for i in range(50)
        ],
        "gates": GATES, "reported": GATES,
        "figures": {
            "float": {"AP": 0.5, "AP50": 0.7, "APs": None, "per_class": {"bolt": 0.4, "nut": 0.6}, "mode": "area"},
            "int8": {"AP": 0.49, "AP50": 0.7, "APs": None, "per_class": {"bolt": 0.38, "nut": 0.6}, "mode": "area"},
        },
        "decisions": {"reference": 5, "same": 97, "borderline": 2, "different": 1},
        "shifts": [-0.01, 0.0, 0.0, 0.02],
        "thresholds": {"shipped": 0.25, "refit": 0.2467},
        "steps": [
            {"floating": 0, "of": 50, "passed": False, "gates": GATES, "p50_ms": 2.5},
            {"floating": 2, "of": 50, "passed": True, "gates": GATES, "p50_ms": None},
        ],
        "race": {
            "times_ms": {"fp32": [5.0, 6.0], "fp16": [4.0], "int8": [2.0, 2.0]}, "threads": 1, "cores": 8,
            "processor": "Some CPU", "rival": "fp16", "speed_up": 2.0, "faster": True,
        },
        "golden": {"score": 0.01, "box_px": 0.4, "map": None},
    },
}  # fmt: skip
HOSTILE = "\x1b[2J\u202e<script>alert(1)</script>\"'&\n"


def receipt(**changes: Any) -> dict[str, Any]:
    """Return the receipt with other values in its quantization."""
    row = copy.deepcopy(RECEIPT)
    row["quantization"].update(copy.deepcopy(changes))
    return row


def emulated() -> dict[str, Any]:
    race = {**RECEIPT["quantization"]["race"], "times_ms": {}, "rival": None, "speed_up": None, "faster": False}
    return {**receipt(emulated=True, race=race), "target": "tensorrt"}


def hostile() -> dict[str, Any]:
    """Return a receipt with hostile text wherever a reader takes text."""
    row = receipt()
    said = row["quantization"]
    for place in (*said["layers"], *said["gates"], said["calibration"], said["validation"]):
        place["name"] = HOSTILE
    for gate in said["gates"]:
        gate["unit"] = HOSTILE
    for name in ("processor",):
        said["race"][name] = HOSTILE
    for run in said["figures"].values():
        run["per_class"] = {HOSTILE: 0.5}
        run[HOSTILE] = 0.5
    said["steps"] = [{**step, "gates": said["gates"]} for step in said["steps"]]
    return {**row, "date": HOSTILE, "machine": HOSTILE, "runtime": HOSTILE, "unit": HOSTILE}


class Reader(HTMLParser):
    """Counts tags that are open, and collects text."""

    VOID = frozenset({"meta", "br", "img", "link", "rect", "path", "circle", "line"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(rows: list[dict[str, Any]], manifest: Any = None) -> Reader:
    page = render(manifest or bundles.manifest(), rows)
    reader = Reader()
    reader.feed(page)
    assert [tag for tag in reader.open if tag not in ("html", "body", "p", "thead", "tr")] == []
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page), "self-contained"
    return reader


def test_page_of_a_searched_network_shows_all_of_it() -> None:
    found = read_page([receipt()])
    text = found.text
    for said in (
        "Calibrated on 128 of 900 images of /data/train (the training set)", "3 near copies were left out",
        "Judged on 40 images of /data/val", "Every gate holds; 2 of 50 layers stay in floating point",
        "0.12 points", "nothing to measure", "at least 99", "int8 decides as often as the float network at 0.2467",
        "Shift of scores", "AP of bolt", "-2.00", "AP50", "The search", "2.50 ms", "0 of 50", "2 of 50",
        f"The {50 - LAYERS_SHOWN} least sensitive layers are left out", "2.00 times as fast", "Some CPU",
    ):  # fmt: skip
        assert said in text, said
    assert found.seen.count("svg") == 1
    assert "area" not in text, "only numbers are figures"


def test_page_of_a_target_that_cannot_run_says_so() -> None:
    text = read_page([emulated()]).text
    assert "tensorrt cannot run on the machine that built this: ONNX Runtime's int8 kernels stood in for it" in text
    assert "Not measured: the target cannot run on the machine that built this." in text
    assert "times as fast" not in text


def test_page_of_a_network_that_passed_at_once() -> None:
    layers = [{**layer, "int8": True, "error": None} for layer in RECEIPT["quantization"]["layers"]]
    gates = [{**gate, "value": 0.0, "passed": True} for gate in GATES]
    row = receipt(layers=layers, gates=gates, steps=RECEIPT["quantization"]["steps"][:1], shifts=[])
    text = read_page([row]).text
    assert "every layer is int8" in text
    assert "none was measured alone" in text
    assert "The search" not in text


def test_page_of_a_layer_whose_error_has_no_bound() -> None:
    """An infinite error is null in JSON; what was measured is drawn."""
    layers = copy.deepcopy(RECEIPT["quantization"]["layers"])
    layers[7]["error"] = None
    assert "layer6.weight" in read_page([receipt(layers=layers)]).text


def test_page_of_several_targets_and_of_anomaly_networks() -> None:
    figures = {name: {"image_AUROC": 0.9, "pixel_AUROC": None, "undefined": {}} for name in ("float", "int8")}
    row = receipt(figures=figures)
    text = read_page([row, emulated()], bundles.anomaly_manifest()).text
    assert "openvino" in text
    assert "tensorrt" in text
    assert "Of the half of the test images that the search for layers has not seen." in text
    assert "90.00 %" in text


def test_page_escapes_whatever_a_receipt_holds() -> None:
    found = read_page([hostile()])
    assert "script" not in found.seen
    assert "<script>alert(1)</script>" in found.text


def test_page_is_the_same_for_the_same_receipts_and_replaced_whole(tmp_path: Path) -> None:
    assert render(bundles.manifest(), [receipt()]) == render(bundles.manifest(), [receipt()])
    write_page(tmp_path / "a.html", bundles.manifest(), [receipt()])
    write_page(tmp_path / "a.html", bundles.manifest(), [emulated()])
    assert "tensorrt" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert [item.name for item in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(BundleError):
        write_page(tmp_path / "no" / "a.html", bundles.manifest(), [receipt()])


def shown(row: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = tmp_path / "model.bin"
    bundle = bundles.portable()
    bundle.replace(dataclasses.replace(bundle.manifest, receipts=(row,))).write(path)
    assert main(["inspect", str(path)]) == 0
    return capsys.readouterr().out


def test_inspect_shows_the_receipt_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(receipt(), tmp_path, capsys)
    assert "openvino int8: all but 2 of 50 layers; in floating point: layer0.weight, layer1.weight" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "AP drop 0.12 points <= 0.5 holds" in lines
    assert "score shift - <= 0.02 FAILS" in lines
    assert "decisions 99.7 % alike >= 99 holds" in lines
    assert "fp32 latency 5.50 ms" in lines
    assert "int8 latency 2.00 ms" in lines
    assert "2.00 times as fast as fp16, the fastest other precision" in lines
    assert "judged on 40 images of /data/val, calibrated on 128 of /data/train, ranges mse" in lines


def test_inspect_says_what_was_not_measured_or_not_gained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(emulated(), tmp_path, capsys)
    assert "speed was not measured: the target cannot run here" in out
    race = {**RECEIPT["quantization"]["race"], "speed_up": 0.9, "faster": False}
    out = shown(receipt(race=race), tmp_path, capsys)
    assert "NOT faster (0.90 times as fast as fp16, the fastest other precision): load() takes the other" in out


def test_inspect_lists_few_layers_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [{**layer, "int8": False} for layer in RECEIPT["quantization"]["layers"][:10]]
    out = shown(receipt(layers=layers), tmp_path, capsys)
    assert "all but 10 of 10 layers" in out
    assert "layer5.weight and 4 more" in out
    assert "layer6.weight" not in out


def test_inspect_of_a_hostile_receipt_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(hostile(), tmp_path, capsys)
    assert [letter for letter in out if not letter.isprintable() and letter != "\n"] == []
    assert "\\u001b[2J\\u202e<script>" in out


def test_inspect_json_holds_the_receipt_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.bin"
    bundle = bundles.portable()
    bundle.replace(dataclasses.replace(bundle.manifest, receipts=(hostile(),))).write(path)
    assert main(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["receipts"] == [hostile()]


@needs_quick
def test_command_builds_int8_and_prints_what_it_lost(
    trained: Trained, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LONG", 3)
    page = tmp_path / "report.html"
    command = [
        "build", str(path), "--target", f"{QUICK},{UNRUN}", "--precision", "int8", "--calib", str(trained.folder),
        "--val", str(trained.folder), "--calib-images", "12", "--max-drop", "1.5", "--ranges", "mse",
        "--report", str(page),
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[1].startswith("openvino int8 ")
    assert lines[1].endswith(" passed")
    assert "openvino int8: all 9 layers" in lines
    assert any(line.startswith("AP drop 0 points <= 1.5 holds") for line in lines)
    assert any("calibrated on 12 of" in line and line.endswith("ranges mse") for line in lines)
    assert "tensorrt int8: all 9 layers" in lines
    assert out.splitlines()[-1].startswith(f"wrote {path}, ")
    html = page.read_text(encoding="utf-8")
    assert html.count("<h2>") == 2
    assert read_page(list(_receipts(path))).text


def _receipts(path: Path) -> Any:
    with edgekd.Bundle.read(path) as bundle:
        yield from bundle.manifest.receipts


@needs_quick
def test_command_of_a_searched_network_lists_its_layers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LONG", 3)
    bundle = sets.coloured(networks.colours(outlier=True))
    folder = sets.write_set(tmp_path / "set", bundle)
    path = tmp_path / "model.bin"
    bundle.write(path)
    assert main(["build", str(path), "--target", QUICK, "--precision", "int8", "--calib", str(folder), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["artifacts"]
    said = row["receipt"]["quantization"]
    assert [step["floating"] for step in said["steps"]] == [0, 1]
    assert [step["passed"] for step in said["steps"]] == [False, True]
    assert all(layer["error"] is not None for layer in said["layers"])
    assert [layer["name"] for layer in said["layers"] if not layer["int8"]] == [networks.weights_of(bundle.graph())[4]]
    read_page([row["receipt"]])


def test_options_of_int8_without_int8_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match=r"calibration is for int8, and .*: ask for one of them \(--precision int8\)"):
        edgekd.build(path, targets=[QUICK], calibration=Calibration())
    with pytest.raises(UsageError, match=r"report is for int8: ask for it \(--precision int8\)"):
        edgekd.build(path, targets=[QUICK], precisions=["fp16"], report="page.html")
    assert main(["build", str(path), "--target", QUICK, "--max-drop", "1"]) == 2
