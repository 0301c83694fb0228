"""`build --precision int8` from a bundle's own sets to what `load`, `verify` and `inspect` make of the receipt."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

import edgekd
from edgekd import _manifest
from edgekd._flash.check import check
from edgekd._int8 import builder, search
from edgekd._int8.options import Calibration
from edgekd._manifest_json import manifest_from_json, manifest_to_json
from edgekd._target import load_target
from edgekd.cli.main import main
from edgekd.errors import BuildError, DataError, GateError, SessionError, UsageError

from . import networks, sets

if TYPE_CHECKING:
    from edgekd._bundle import Bundle

    from .conftest import Trained

QUICK = "openvino"
UNRUN = "tensorrt"
SCHEMA = json.loads(Path(_manifest.__file__).with_name("bundle.schema.json").read_text(encoding="utf-8"))

pytestmark = [
    pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe())),
    pytest.mark.skipif(load_target(UNRUN).probe() is None, reason=f"{UNRUN} runs here"),
]


@pytest.fixture(autouse=True)
def short_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "QUICK", 2)
    monkeypatch.setattr(search, "LONG", 4)


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with int8 for a target that runs here and for one that does not, and a page beside it."""
    folder = tmp_path_factory.mktemp("built")
    trained.bundle.write(folder / "model.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LONG", 4)
        edgekd.build(folder / "model.bin", targets=[QUICK, UNRUN], precisions=["int8"], report=folder / "report.html")
    return folder / "model.bin"


def receipts(path: Path) -> dict[str, Any]:
    with edgekd.Bundle.read(path) as bundle:
        return {row["target"]: row for row in bundle.manifest.receipts if "quantization" in row}


def rewritten(path: Path, out: Path, change: Any) -> Path:
    """Write the bundle with its receipts as a function leaves them."""
    with edgekd.Bundle.read(path) as bundle:
        rows = change([copy.deepcopy(row) for row in bundle.manifest.receipts])
        bundle.replace(dataclasses.replace(bundle.manifest, receipts=tuple(rows))).write(out)
    return out


def changed(target: str, change: Any) -> Any:
    """Return a change of one target's int8 receipt."""

    def apply(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            if "quantization" in row and row["target"] == target:
                change(row["quantization"])
        return rows

    return apply


def test_receipt_says_everything_that_was_measured(whole: Path, trained: Trained) -> None:
    found = receipts(whole)
    assert set(found) == {QUICK, UNRUN}
    row = found[QUICK]
    said = row["quantization"]
    assert row["what"] == "int8 AP drop"
    assert (row["unit"], row["split"], row["precision"], row["compute"]) == ("points", "val", "int8", "int8")
    assert row["value"] == pytest.approx(0, abs=0.5)
    assert row["runtime"].startswith("OpenVINO")
    assert row["machine"]
    assert row["date"].endswith("Z")
    assert said["passed"]
    assert not said["emulated"]
    assert [gate["name"] for gate in said["gates"]] == ["AP drop", "score shift", "decisions"]
    assert said["reported"] == said["gates"]
    assert [layer["name"] for layer in said["layers"]] == networks.weights_of(trained.bundle.graph())
    assert all(layer["int8"] and layer["work"] > 0 and layer["error"] is None for layer in said["layers"])
    assert said["calibration"]["origin"] == "train"
    assert said["calibration"]["sha256"]
    assert said["validation"]["origin"] == "val"
    assert said["figures"]["float"]["AP"] == pytest.approx(1.0)
    assert set(said["figures"]["int8"]["per_class"]) == set(networks.CLASSES)
    assert said["ranges"]["estimator"] in said["ranges"]["errors"]
    assert said["thresholds"]["shipped"] == trained.bundle.manifest.predict.conf
    assert 0 < said["thresholds"]["refit"] < 1
    assert sum(said["decisions"][name] for name in ("same", "borderline", "different")) == len(said["shifts"])
    race = said["race"]
    assert set(race["times_ms"]) == {"fp32", "fp16", "w8a32", "int8"}
    assert race["rival"] in ("fp32", "fp16")
    assert race["faster"] is (race["speed_up"] > 1.03)
    assert race["threads"] == 1
    assert race["cores"] > 0
    assert 0 < said["golden"]["score"] < 0.05
    assert said["golden"]["map"] is None


def test_receipt_of_a_target_that_cannot_run_says_so(whole: Path) -> None:
    row = receipts(whole)[UNRUN]
    said = row["quantization"]
    assert said["emulated"]
    assert said["passed"]
    assert row["runtime"].startswith("ONNX Runtime")
    assert said["race"]["times_ms"] == {}
    assert (said["race"]["rival"], said["race"]["speed_up"], said["race"]["faster"]) == (None, None, False)
    assert 0 < said["golden"]["score"] < 0.05, "what verify on the device compares with"
    assert said["golden"]["box_px"] > 0


def test_receipt_survives_the_manifest_and_fits_the_schema(whole: Path) -> None:
    with edgekd.Bundle.read(whole) as bundle:
        manifest = bundle.manifest
    data = manifest_to_json(manifest)
    assert manifest_from_json(data) == manifest
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(data))


def test_artifact_is_int8_and_small(whole: Path, trained: Trained) -> None:
    with edgekd.Bundle.read(whole) as bundle:
        held = {(item.target, item.precision): item for item in bundle.manifest.artifacts}
        assert set(held) == {(QUICK, "int8"), (UNRUN, "int8")}
        assert set(held[QUICK, "int8"].files) == {"model.xml.z", "model.bin"}
        assert b"QuantizeLinear" in zlib.decompress(bundle.file(held[UNRUN, "int8"], "model.onnx.packed"))
    assert trained.bundle.manifest.artifacts == ()


def test_int8_predicts_what_the_float_network_does(whole: Path) -> None:
    with (
        edgekd.load(whole, device=QUICK, precision="int8") as detector,
        edgekd.load(whole, device="reference") as reference,
    ):
        assert detector.info.session.compute == "int8"
        assert re.search(r"when measured it (lost|gained) \d", detector.info.reason)
        for seed in range(200, 206):
            picture = networks.scene(seed)
            found, expected = detector.predict(picture, color="rgb"), reference.predict(picture, color="rgb")
            assert sorted(found.names) == sorted(expected.names)
            np.testing.assert_allclose(np.sort(found.scores), np.sort(expected.scores), atol=0.03)


def fast(said: dict[str, Any]) -> None:
    said["race"].update(faster=True, speed_up=2.5, rival="fp16")


def slow(said: dict[str, Any]) -> None:
    said["race"].update(faster=False, speed_up=0.8, rival="fp16")


def failed(said: dict[str, Any]) -> None:
    said["passed"] = False


@pytest.fixture(scope="module")
def three(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With fp32 beside int8."""
    out = tmp_path_factory.mktemp("three") / "model.bin"
    before = receipts(whole)
    edgekd.build(whole, targets=[QUICK], precisions=["fp32"], out=out)
    assert receipts(out) == before, "a build of fp32 leaves the receipts of int8 alone"
    return out


def test_load_takes_int8_only_where_it_was_faster(three: Path, tmp_path: Path) -> None:
    with edgekd.load(rewritten(three, tmp_path / "fast.bin", changed(QUICK, fast)), device=QUICK) as detector:
        assert detector.info.session.precision == "int8"
        assert "2.5 times as fast as fp16" in detector.info.reason
    with edgekd.load(rewritten(three, tmp_path / "slow.bin", changed(QUICK, slow)), device=QUICK) as detector:
        assert detector.info.session.precision == "fp32"
        said = "openvino int8: not faster than fp16 when measured (0.80 times its speed)"
        assert said in detector.info.discarded


@pytest.mark.parametrize("what", ["missing", "failed"])
def test_load_refuses_int8_without_a_passing_receipt(three: Path, tmp_path: Path, what: str) -> None:
    change = (lambda _: []) if what == "missing" else changed(QUICK, failed)
    path = rewritten(three, tmp_path / "model.bin", change)
    why = "int8 without a receipt" if what == "missing" else "int8 failed its gates"
    with pytest.raises(GateError, match=why) as caught:
        edgekd.load(path, device=QUICK, precision="int8")
    assert f"edgekd build {path} --target {QUICK} --precision int8 --calib DIR" in str(caught.value)
    assert "unsafe=True" in str(caught.value)
    with edgekd.load(path, device=QUICK) as detector:
        assert detector.info.session.precision == "fp32", "the others are taken without a word"
        assert any(why in line for line in detector.info.discarded)
    with edgekd.load(path, device=QUICK, precision="int8", unsafe=True) as detector:
        assert detector.info.session.precision == "int8"
    with edgekd.load(path, device=QUICK, unsafe=True) as detector:
        assert detector.info.session.precision == "fp32", "unsafe allows, it does not prefer"


def test_verify_passes_where_it_was_built(whole: Path) -> None:
    report = edgekd.verify(whole)
    found = {(row.target, row.precision): row for row in report.artifacts}
    assert found[QUICK, "int8"].status == "passed", found
    assert found[QUICK, "int8"].decisions is not None
    assert found[QUICK, "int8"].decisions.different == 0
    assert found[UNRUN, "int8"].status == "skipped"
    assert report.passed


@pytest.mark.parametrize("figure", ["score", "box_px"])
def test_verify_fails_where_int8_differs_more_than_when_it_was_built(whole: Path, tmp_path: Path, figure: str) -> None:
    """The artifact of another network under the receipt of this one."""
    path = tmp_path / "model.bin"
    with edgekd.Bundle.read(whole) as bundle:
        golden = bundle.manifest.golden[0].outputs[("box_px", "score").index(figure)]
        values = np.frombuffer(bundle.chunk(golden), "<f4").copy()
        values += np.float32(40 if figure == "box_px" else -0.3)
        bundle.replace(add={golden: values.tobytes()}).write(path)
    (row,) = (item for item in edgekd.verify(path, [QUICK]).artifacts if item.precision == "int8")
    assert row.status == "failed"
    assert f"{figure} differs by" in row.reason
    assert "when built" in row.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: [], "int8 has no receipt to compare with"),
        (changed(QUICK, failed), "int8 failed its gates when built"),
        (changed(QUICK, lambda said: said["golden"].update(score=None, box_px=None)), "says nothing of the golden set"),
    ],
    ids=["missing", "failed", "empty"],
)
def test_verify_fails_without_a_receipt_that_passes(whole: Path, tmp_path: Path, change: Any, reason: str) -> None:
    path = rewritten(whole, tmp_path / "model.bin", change)
    (row,) = (item for item in edgekd.verify(path, [QUICK]).artifacts if item.precision == "int8")
    assert row.status == "failed"
    assert reason in row.reason
    assert main(["verify", str(path), "--target", QUICK]) == 3


def test_board_serves_int8_that_does_what_it_did(three: Path, tmp_path: Path) -> None:
    path = rewritten(three, tmp_path / "model.bin", changed(QUICK, fast))
    checked = check(path, 2)
    assert (checked.target, checked.precision, checked.images) == (QUICK, "int8", 4)
    assert checked.same > 10
    assert len(checked.samples_ms) == 2


def test_board_takes_int8_that_decides_otherwise_now_and_then(three: Path, tmp_path: Path) -> None:
    """One golden object less, as the receipt says it was when it was built: the gates have judged that."""

    def lenient(said: dict[str, Any]) -> None:
        fast(said)
        said["golden"].update(score=1.0, box_px=100.0)

    path = rewritten(three, tmp_path / "before.bin", changed(QUICK, lenient))
    out = tmp_path / "model.bin"
    with edgekd.Bundle.read(path) as bundle:
        name = bundle.manifest.golden[0].outputs[1]
        scores = np.frombuffer(bundle.chunk(name), "<f4").reshape(-1, 3).copy()
        scores[scores.max(axis=1).argmax()] = 0
        bundle.replace(add={name: scores.tobytes()}).write(out)
    assert check(out, 1).precision == "int8"
    strict = rewritten(out, tmp_path / "strict.bin", changed(QUICK, lambda said: said["golden"].update(score=0.02)))
    with pytest.raises(GateError, match=r"golden test, openvino int8: score differs by"):
        check(strict, 1)


def test_board_never_serves_int8_without_a_receipt(three: Path, tmp_path: Path) -> None:
    assert check(rewritten(three, tmp_path / "model.bin", lambda _: []), 1).precision == "fp32"


def test_building_again_replaces_the_receipt_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(whole.read_bytes())
    before = receipts(path)
    edgekd.build(path, targets=[QUICK], precisions=["int8"], calibration=Calibration(images=10, ranges="minmax"))
    after = receipts(path)
    assert set(after) == set(before)
    assert after[UNRUN] == before[UNRUN]
    assert after[QUICK]["quantization"]["calibration"]["images"] == 10
    assert after[QUICK]["quantization"]["ranges"] == {"estimator": "minmax", "errors": {}}
    with edgekd.Bundle.read(path) as bundle:
        assert sum("quantization" in row for row in bundle.manifest.receipts) == 2
        assert edgekd.verify(path).passed


def test_refusal_exits_3_names_gates_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "LEAST_WORK", 0.99)  # nothing may go back
    bundle = sets.coloured(networks.colours(outlier=True))
    folder = sets.write_set(tmp_path / "set", bundle)
    path = tmp_path / "model.bin"
    bundle.write(path)
    before = path.read_bytes()
    page = tmp_path / "page.html"
    command = ["build", str(path), "--target", QUICK, "--precision", "int8", "--calib", str(folder)]
    assert main([*command, "--report", str(page)]) == 3
    said = capsys.readouterr().err
    assert "openvino int8: int8 loses more than the gates allow on 12 validation images" in said
    assert "FAILED" in said
    assert "score shift" in said
    assert "--precision fp16" in said
    assert re.search(r"  fp16 \(\S+ MiB\) holds every gate: AP drop ", said), "measured, as what would do instead"
    assert "nothing was written" in said
    assert path.read_bytes() == before
    assert not page.exists()


def test_engine_that_gives_no_numbers_on_the_golden_set_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.bin"
    trained.bundle.write(path)
    before = path.read_bytes()
    measure = builder.measure_artifact

    def nan(*arguments: Any) -> Any:
        return dataclasses.replace(measure(*arguments), score_difference=float("nan"))

    monkeypatch.setattr(builder, "measure_artifact", nan)
    with pytest.raises(GateError, match="failed the golden set: it gave what is not finite"):
        edgekd.build(path, targets=[QUICK], precisions=["int8"])
    assert path.read_bytes() == before


def test_what_the_compiler_refuses_is_said_and_the_rest_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.bin"
    trained.bundle.write(path)

    def refuse(*_: Any) -> Any:
        raise BuildError("no int8 today")

    monkeypatch.setattr(load_target(UNRUN), "build", refuse)
    with pytest.raises(BuildError, match=r"tensorrt int8: no int8 today; \S+ was written with openvino int8"):
        edgekd.build(path, targets=[QUICK, UNRUN], precisions=["int8"])
    assert set(receipts(path)) == {QUICK}


def test_engine_that_does_not_start_is_said_and_the_rest_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.bin"
    trained.bundle.write(path)
    module = load_target(QUICK)
    load = module.load

    def refuse(bundle: Bundle, artifact: Any, **options: Any) -> Any:
        if artifact.precision == "int8":
            raise SessionError("no int8 on this chip")
        return load(bundle, artifact, **options)

    monkeypatch.setattr(module, "load", refuse)
    with pytest.raises(BuildError, match=r"openvino int8: .*no int8 on this chip; \S+ was written with openvino fp32"):
        edgekd.build(path, targets=[QUICK], precisions=["fp32", "int8"])
    assert receipts(path) == {}


def test_image_that_cannot_be_read_is_said_and_the_rest_written(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.bin"
    trained.bundle.write(path)

    def unread(*_: Any, **__: Any) -> Any:
        raise DataError("011.png cannot be decoded")

    monkeypatch.setattr(search, "run_set", unread)
    why = r"openvino int8 could not be judged: 011\.png cannot be decoded; \S+ was written with openvino fp32"
    with pytest.raises(GateError, match=why):
        edgekd.build(path, targets=[QUICK], precisions=["fp32", "int8"])
    assert receipts(path) == {}


def test_page_without_a_folder_is_said_before_anything_is_built(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.bin"
    trained.bundle.write(path)
    monkeypatch.setattr(builder, "search", lambda *_: pytest.fail("searched"))
    monkeypatch.setattr(load_target(QUICK), "build", lambda *_: pytest.fail("built"))
    with pytest.raises(
        UsageError, match=r"cannot write .*page\.html: there is no folder .*none; name another, or: mkdir"
    ):
        edgekd.build(path, targets=[QUICK], precisions=["fp32", "int8"], report=tmp_path / "none" / "page.html")


def test_sets_that_cannot_be_used_end_before_anything_is_built(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    trained.bundle.write(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the network's validation set"):
        edgekd.build(
            path, targets=[QUICK], precisions=["int8"],
            calibration=Calibration(train=trained.folder / "images" / "val", val=trained.folder),
        )  # fmt: skip
    with pytest.raises(DataError, match="no file or folder"):
        edgekd.build(path, targets=[QUICK], precisions=["int8"], calibration=Calibration(train=tmp_path / "none"))
    assert path.read_bytes() == before


def test_signed_bundle_says_that_its_signature_is_gone(trained: Trained, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    signed: Bundle = trained.bundle.sign(bytes(range(32)))
    signed.write(tmp_path / "model.bin")
    report = edgekd.build(tmp_path / "model.bin", targets=[UNRUN], precisions=["int8"])
    assert report.signature_dropped
    (row,) = report.artifacts
    assert row.receipt is not None
    assert row.parity.status == "skipped"
    json.dumps(report.to_dict(), allow_nan=False)
