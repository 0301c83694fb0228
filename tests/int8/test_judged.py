"""fp16 and w8a32 that exceed the golden set's bound: judged on validation images, as int8 is, or refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

import edgekd
from edgekd import _manifest, _verify
from edgekd._int8 import judged, search
from edgekd._int8.options import Calibration
from edgekd._manifest_json import manifest_to_json
from edgekd._target import load_target
from edgekd.cli.main import main
from edgekd.errors import BundleError, DataError, GateError, SessionError, UsageError
from edgekd.quantization import FloatGraph, layers_of, weight_only_graph

if TYPE_CHECKING:
    from .conftest import Trained

QUICK, UNRUN = "openvino", "tensorrt"
SCHEMA = json.loads(Path(_manifest.__file__).with_name("bundle.schema.json").read_text(encoding="utf-8"))

pytestmark = [
    pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe())),
    pytest.mark.skipif(load_target(UNRUN).probe() is None, reason=f"{UNRUN} runs here"),
]


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of the golden set that rounding exceeds."""
    for precision in ("fp16", "w8a32"):
        monkeypatch.setitem(_verify.TOLERANCES, precision, _verify.Tolerance(1e-9, 1e-9, all_rows=False))


@pytest.fixture
def path(trained: Trained, tmp_path: Path) -> Path:
    trained.bundle.write(tmp_path / "model.bin")
    return tmp_path / "model.bin"


def rows(path: Path) -> dict[tuple[str, str], Any]:
    with edgekd.Bundle.read(path) as bundle:
        return {(r["target"], r["precision"]): r for r in bundle.manifest.receipts if "judgement" in r}


def test_w8a32_is_a_quarter_of_the_size_and_passes_the_golden_set(path: Path) -> None:
    report = edgekd.build(path, targets=[QUICK], precisions=["fp32", "fp16", "w8a32"])
    sizes = {item.precision: item for item in report.artifacts}
    assert [item.parity.status for item in report.artifacts] == ["passed"] * 3
    assert 0 < sizes["w8a32"].parity.score_difference < 0.02  # type: ignore[operator]
    assert sizes["w8a32"].parity.session.compute == "fp32"  # type: ignore[union-attr]
    assert not rows(path)
    with edgekd.load(path) as detector:
        assert detector.info.session.precision == "fp32", "by itself it is never taken"
    with edgekd.load(path, precision="w8a32") as detector:
        assert detector.info.session.precision == "w8a32"


def test_weight_only_graph_has_int8_weights_and_no_rounded_activations(trained: Trained) -> None:
    data = trained.bundle.graph()
    graph = FloatGraph(data)
    small = FloatGraph(weight_only_graph(graph))
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("DequantizeLinear") == len(layers_of(graph))
    assert "QuantizeLinear" not in kinds


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(("target", "precision"), [(QUICK, "fp16"), (QUICK, "w8a32"), (UNRUN, "fp16")])
def test_what_the_golden_set_refuses_is_judged_where_images_are_named(
    trained: Trained, path: Path, capsys: pytest.CaptureFixture[str], target: str, precision: str
) -> None:
    with pytest.raises(GateError, match=rf"{target} {precision} failed the golden set: .*to judge it .* --val DATA"):
        edgekd.build(path, targets=[target], precisions=[precision])
    command = ["build", str(path), "--target", target, "--precision", precision, "--val", str(trained.folder)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert f"{target} {precision}: exceeds the golden set's bound, and holds the gates on" in shown
    assert ("stood in for the target" in shown) == (target == UNRUN)
    row = rows(path)[target, precision]
    said = row["judgement"]
    assert row["what"] == f"{precision} AP drop"
    assert said["emulated"] == (target == UNRUN)
    assert [gate["name"] for gate in said["gates"]] == ["AP drop", "score shift", "decisions"]
    assert said["validation"]["origin"] == "val"
    assert said["golden"]["score"] > 0
    with edgekd.Bundle.read(path) as bundle:
        jsonschema.validate(json.loads(manifest_to_json(bundle.manifest)), SCHEMA)
    assert edgekd.verify(path).passed, "what was measured is the bound from now on"
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"{target} {precision}: exceeds the golden set's bound, and holds the gates on" in shown
    assert "judgement=" not in shown


@pytest.mark.usefixtures("strict")
def test_gates_that_do_not_hold_refuse_it_with_both_reasons(
    trained: Trained, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd._int8 import options

    monkeypatch.setattr(options.Bounds, "__init__", _bounds_of_nothing)
    before = path.read_bytes()
    with pytest.raises(GateError, match=r"scores differ by .*; on \d+ validation images score shift .* \(bound <= 0\)"):
        edgekd.build(path, targets=[QUICK], precisions=["w8a32"], calibration=Calibration(val=trained.folder))
    assert path.read_bytes() == before


def _bounds_of_nothing(self: Any, drop: float) -> None:
    for name, value in (("drop", drop), ("score_shift", 0.0), ("agreement", 0.99), ("angle_deg", 1.0)):
        object.__setattr__(self, name, value)


@pytest.mark.parametrize("target", [QUICK, UNRUN])
@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("broken", [math.nan, math.inf, SessionError("the engine ran out of memory")])
def test_what_breaks_on_the_golden_set_is_not_judged_on_other_images(
    trained: Trained, path: Path, monkeypatch: pytest.MonkeyPatch, target: str, images: bool, broken: Any
) -> None:
    """Its validation images are in order; a receipt of the golden set would have nothing to compare with."""
    before = path.read_bytes()
    real = _verify._measured

    def measured(*args: Any) -> Any:
        if isinstance(broken, Exception):
            raise broken
        return dataclasses.replace(real(*args), score_difference=broken)

    monkeypatch.setattr(_verify, "_measured", measured)
    calibration = Calibration(val=trained.folder) if images else None
    with pytest.raises(GateError, match=rf"{target} fp16 failed the golden set: .*; what does not run, or .*") as told:
        edgekd.build(path, targets=[target], precisions=["fp16"], calibration=calibration)
    assert "--val" not in str(told.value)
    assert path.read_bytes() == before


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("broken", [SessionError("the engine gave up"), DataError("011.png cannot be decoded")])
def test_what_cannot_be_judged_does_not_take_the_others_with_it(
    trained: Trained, path: Path, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise broken

    monkeypatch.setattr(judged, "run_set", refuse)
    why = rf"openvino fp16 failed the golden set: scores differ .*; {broken}; \S+ was written with openvino fp32"
    with pytest.raises(GateError, match=why):
        edgekd.build(path, targets=[QUICK], precisions=["fp32", "fp16"], calibration=Calibration(val=trained.folder))
    with edgekd.Bundle.read(path) as bundle:
        assert [item.precision for item in bundle.manifest.artifacts] == ["fp32"]


def test_validation_images_are_looked_for_though_nothing_has_to_be_judged(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_target(QUICK), "build", lambda *_: pytest.fail("built"))
    with pytest.raises(DataError, match="no file or folder"):
        edgekd.build(path, targets=[QUICK], precisions=["fp16"], calibration=Calibration(val=tmp_path / "none.json"))


@pytest.mark.usefixtures("strict")
def test_later_build_that_passes_needs_no_judgement_any_more(
    trained: Trained, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edgekd.build(path, targets=[QUICK], precisions=["w8a32"], calibration=Calibration(val=trained.folder))
    assert set(rows(path)) == {(QUICK, "w8a32")}
    monkeypatch.setitem(_verify.TOLERANCES, "w8a32", _verify.Tolerance(2e-2, 2.0, all_rows=False))
    edgekd.build(path, targets=[QUICK], precisions=["w8a32"])
    assert not rows(path)


@pytest.mark.usefixtures("strict")
def test_judged_artifact_that_does_something_else_fails_verify(trained: Trained, path: Path) -> None:
    edgekd.build(path, targets=[QUICK], precisions=["w8a32"], calibration=Calibration(val=trained.folder))
    with edgekd.Bundle.read(path) as bundle:
        scores = bundle.manifest.golden[0].outputs[1]
        bundle.replace(add={scores: bytes(len(bundle.chunk(scores)))}).write(path)
    report = edgekd.verify(path, [QUICK])
    assert not report.passed
    assert "from the float network" in report.artifacts[0].reason


@pytest.mark.parametrize("wrong", [{"passed": "yes"}, {"golden": {"score": -1}}, {"gates": []}, {"validation": 3}])
def test_damaged_judgement_is_refused(trained: Trained, wrong: dict[str, Any]) -> None:
    gate = {"name": "AP drop", "value": 0.1, "bound": 0.5, "unit": "points", "passed": True}
    row = {
        "what": "fp16 AP drop", "value": 0.1, "target": QUICK, "precision": "fp16",
        "judgement": {
            "passed": True, "gates": [gate], "golden": {"score": 0.1, "box_px": 1.0, "map": None},
            "validation": {"name": "set", "images": 3}, **wrong,
        },
    }  # fmt: skip
    manifest = dataclasses.replace(trained.bundle.manifest, receipts=(row,))
    with pytest.raises(BundleError, match=r"receipts\[0\]\.judgement"):
        manifest_to_json(manifest)


def test_images_for_fp32_alone_are_refused(path: Path, trained: Trained) -> None:
    with pytest.raises(UsageError, match="calibration is for int8, and to judge fp16 and w8a32"):
        edgekd.build(path, targets=[QUICK], precisions=["fp32"], calibration=Calibration(val=trained.folder))


def test_int8_receipt_measures_the_other_precisions_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LONG", 4)
    edgekd.build(path, targets=[QUICK], precisions=["int8"])
    with edgekd.Bundle.read(path) as bundle:
        (said,) = (row["quantization"] for row in bundle.manifest.receipts if "quantization" in row)
        jsonschema.validate(json.loads(manifest_to_json(bundle.manifest)), SCHEMA)
    assert set(said["alternatives"]) == {"fp16", "w8a32"}
    assert all(item["passed"] and item["size_bytes"] > 0 for item in said["alternatives"].values())
    assert set(said["race"]["times_ms"]) == {"fp32", "fp16", "w8a32", "int8"}
