"""`build`: what is kept, what is refused, and that the file is replaced whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import edgekd
from edgekd._build import build
from edgekd._manifest import Artifact
from edgekd._target import load_target, target_names
from edgekd.cli.main import main
from edgekd.errors import BuildError, BundleError, GateError, TargetUnavailableError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path

QUICK = "openvino"  # builds in a fraction of a second and runs on any CPU
UNRUN = "tensorrt"  # builds anywhere, runs on no machine without a GPU

pytestmark = [pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe()))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    return path


@pytest.fixture
def only_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing else can build."""
    for name in target_names():
        if name != QUICK:
            reason = f"no {name} here: pip install {name}"
            monkeypatch.setattr(load_target(name), "probe_build", lambda reason=reason: reason)


def artifacts(path: Path) -> list[tuple[str, str]]:
    with edgekd.Bundle.read(path) as bundle:
        return [(item.target, item.precision) for item in bundle.manifest.artifacts]


def test_build_in_place_adds_an_artifact_that_predicts(path: Path) -> None:
    report = build(path, targets=[QUICK])
    assert artifacts(path) == [(QUICK, "fp32")]
    assert report.path == str(path)
    assert report.size_bytes == path.stat().st_size
    with edgekd.load(path, device=QUICK) as detector, edgekd.load(path, device="reference") as reference:
        picture = bundles.pictures(1)[0]
        assert len(detector.predict(picture)) == len(reference.predict(picture)) > 0


def test_build_reports_size_seconds_and_differences(path: Path) -> None:
    row = build(path, targets=QUICK).artifacts[0]
    with edgekd.Bundle.read(path) as bundle:
        held = bundle.manifest.artifacts[0]
        assert row.size_bytes == sum(len(bundle.file(held, name)) for name in held.files) > 10_000
    assert 0 < row.build_s < 60
    assert row.parity.status == "passed"
    assert 0 <= row.parity.score_difference < 1e-3  # type: ignore[operator]
    assert row.parity.session is not None
    assert row.parity.session.compute == "fp32"


def test_oriented_bundle_is_built_and_gated_by_its_rectangles(tmp_path: Path) -> None:
    path = tmp_path / "oriented.bin"
    bundle = bundles.portable(oriented=True)
    name = bundle.manifest.golden[0].outputs[0]
    boxes = np.frombuffer(bundle.chunk(name), "<f4").reshape(-1, 5).copy()
    boxes[:, [2, 3]], boxes[:, 4] = boxes[:, [3, 2]], boxes[:, 4] + np.float32(np.pi / 2)
    bundle.replace(add={name: boxes.tobytes()}).write(path)
    row = build(path, targets=[QUICK]).artifacts[0]
    assert row.parity.status == "passed"
    boxes[11, 4] += 0.2
    bundle.replace(add={name: boxes.tobytes()}).write(path)
    with pytest.raises(GateError, match=r"image 0, row 11: centre by \S+ px, sides by \S+ px, angle by 0\.2 rad"):
        build(path, targets=[QUICK])


def test_anomaly_bundle_is_built_and_gated_by_its_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "anomaly.bin"
    bundle = bundles.portable(anomaly=True)
    bundle.write(path)
    assert main(["build", str(path), "--target", QUICK, "--precision", "fp32,fp16"]) == 0
    assert "box or map diff" in capsys.readouterr().out
    with edgekd.Bundle.read(path) as built:
        assert built.manifest.thresholds == bundle.manifest.thresholds
        found = {row["what"]: row["unit"] for row in built.manifest.receipts}
    assert found == {"parity score difference": "score", "parity map difference": "1 - cosine"}
    name = bundle.manifest.golden[1].outputs[0]
    raw = np.frombuffer(bundle.chunk(name), "<f4").copy()
    raw[7] += 0.05
    bundle.replace(add={name: raw.tobytes()}).write(path)
    before = path.read_bytes()
    with pytest.raises(GateError, match=r"maps differ by 0\.05, more than 0\.001.*nothing was written"):
        build(path, targets=[QUICK])
    assert path.read_bytes() == before


def test_build_to_out_leaves_the_bundle_alone(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    out = tmp_path / "other.bin"
    build(path, targets=[QUICK], precisions=("fp32", "fp16"), out=out)
    assert path.read_bytes() == before
    assert artifacts(out) == [(QUICK, "fp32"), (QUICK, "fp16")]


def test_build_again_replaces_the_artifact_and_its_receipts(path: Path) -> None:
    def receipts() -> list[dict[str, Any]]:
        with edgekd.Bundle.read(path) as bundle:
            return [item for item in bundle.manifest.receipts if item["what"].startswith("parity ")]

    build(path, targets=[QUICK], precisions=("fp32", "fp16"))
    first = receipts()
    build(path, targets=[QUICK])
    assert sorted(artifacts(path)) == [(QUICK, "fp16"), (QUICK, "fp32")]
    assert len(receipts()) == len(first) == 4
    assert {(item["target"], item["precision"]) for item in first} == {(QUICK, "fp32"), (QUICK, "fp16")}
    assert all(item["runtime"] and item["date"] for item in first)


def test_build_drops_the_chunks_of_the_artifact_it_replaces(path: Path) -> None:
    bundle = bundles.portable()
    old = Artifact(target=QUICK, precision="fp32", files={"old": "stale/chunk"})
    bundle.replace(dataclasses.replace(bundle.manifest, artifacts=(old,)), {"stale/chunk": b"x"}).write(path)
    build(path, targets=[QUICK])
    with edgekd.Bundle.read(path) as built:
        assert "stale/chunk" not in built.names()


def test_artifact_that_cannot_run_here_is_kept_and_says_so(path: Path) -> None:
    target = load_target(UNRUN)
    reason = target.probe_build()
    if reason is not None or target.probe() is None:
        pytest.skip(reason or f"{UNRUN} runs here")
    row = build(path, targets=[UNRUN]).artifacts[0]
    assert artifacts(path) == [(UNRUN, "fp32")]
    assert row.parity.status == "skipped"
    assert row.parity.reason == target.probe()


def _with_other_scores(path: Path) -> bytes:
    """Write the bundle with a golden set of another network; return the file."""
    bundle = bundles.portable()
    name = bundle.manifest.golden[0].outputs[1]
    scores = np.frombuffer(bundle.chunk(name), "<f4") * np.float32(0.9)
    bundle.replace(add={name: scores.tobytes()}).write(path)
    return path.read_bytes()


def test_artifact_that_fails_the_golden_set_is_not_written(path: Path) -> None:
    before = _with_other_scores(path)
    with pytest.raises(GateError, match=r"openvino fp32 failed the golden set: scores differ.*nothing was written"):
        build(path, targets=[QUICK])
    assert path.read_bytes() == before


def test_what_passes_is_written_before_a_refusal_raises(path: Path) -> None:
    """A constant beyond float16 in the trunk: one target stores it as float32, the other refuses."""
    if load_target(UNRUN).probe_build() is not None:
        pytest.skip(str(load_target(UNRUN).probe_build()))
    bundle = bundles.portable()
    model = onnx.load_from_string(bundle.graph())
    body = list(model.graph.node)
    body[0].input[0] = "scaled"
    ends = [("images", "large", "huge"), ("huge", "small", "scaled")]
    nodes = [helper.make_node("Mul", [first, second], [result]) for first, second, result in ends]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *body])
    for name, value in (("large", 2.0**20), ("small", 2.0**-20)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    bundle.replace(add={"graph.onnx": model.SerializeToString()}).write(path)
    with pytest.raises(BuildError, match=r"tensorrt fp16: 'large' holds 1\.05e\+06(.|\n)*written with openvino fp16"):
        build(path, targets=[QUICK, UNRUN], precisions=["fp16"])
    assert artifacts(path) == [(QUICK, "fp16")]


@pytest.mark.parametrize("name", ["none/other.bin", "folder"])
def test_place_that_cannot_be_written_is_refused_before_anything_is_built(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(load_target(QUICK), "build", lambda *_: pytest.fail("built"))
    why = "there is no folder .*none; name another, or: mkdir -p" if "/" in name else "folder is a folder; name a file"
    with pytest.raises(UsageError, match=why):
        build(path, targets=[QUICK], out=tmp_path / name)


def test_unknown_target_lists_those_that_exist(path: Path) -> None:
    with pytest.raises(UsageError, match="no target 'coreml'; possible: openvino, reference, tensorrt, tflite"):
        build(path, targets=["coreml"])


def test_precision_a_target_lacks_lists_its_own(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError, match="reference has no precision 'fp16'; possible: fp32"):
        build(path, targets=[QUICK, "reference"], precisions=["fp16"])
    assert path.read_bytes() == before


@pytest.mark.parametrize(("targets", "precisions"), [([], ["fp32"]), ([QUICK], [])])
def test_nothing_to_build_is_refused(path: Path, targets: list[str], precisions: list[str]) -> None:
    with pytest.raises(UsageError, match="nothing to build"):
        build(path, targets=targets, precisions=precisions)


def test_target_that_cannot_build_here_says_what_to_type(path: Path, only_quick: None) -> None:
    before = path.read_bytes()
    with pytest.raises(TargetUnavailableError, match="cannot build for tflite here: no tflite here: pip"):
        build(path, targets=[QUICK, "tflite"])
    assert path.read_bytes() == before


def test_all_builds_what_it_can_and_lists_the_rest(path: Path, only_quick: None) -> None:
    report = build(path, targets="all", precisions=("fp32", "fp16"))
    assert artifacts(path) == [(QUICK, "fp32"), (QUICK, "fp16")]
    assert report.unavailable["tflite"] == "no tflite here: pip install tflite"
    assert "portable graph" in report.unavailable["reference"]


def test_all_with_nothing_that_can_build_says_why(
    path: Path, only_quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_target(QUICK), "probe_build", lambda: "gone")
    with pytest.raises(TargetUnavailableError, match=r"no target can build fp32 here:(.|\n)*openvino: gone"):
        build(path, targets="all")


def test_all_with_a_precision_nobody_has_names_what_they_have(path: Path) -> None:
    with pytest.raises(UsageError, match=r"no target has the precision int3(.|\n)*fp32, fp16"):
        build(path, targets="all", precisions=["int3"])


def test_bundle_without_a_golden_set_is_refused(tmp_path: Path) -> None:
    bundle = bundles.portable()
    golden = [name for row in bundle.manifest.golden for name in (row.image, *row.outputs)]
    bundle.replace(dataclasses.replace(bundle.manifest, golden=()), drop=golden).write(tmp_path / "bare.bin")
    with pytest.raises(BundleError, match="no golden set"):
        build(tmp_path / "bare.bin", targets=[QUICK])


def test_building_a_signed_bundle_says_that_the_signature_is_gone(path: Path) -> None:
    pytest.importorskip("cryptography")
    bundles.portable().sign(bytes(range(32))).write(path)
    assert build(path, targets=[QUICK]).signature_dropped
    assert not build(path, targets=[QUICK]).signature_dropped


def test_progress_names_every_stage_in_one_line_each(path: Path) -> None:
    lines: list[str] = []
    build(path, targets=[QUICK], progress=lines.append)
    assert lines[-1] == "openvino fp32: passed"
    assert len(lines) >= 2
    assert all("\n" not in line for line in lines)


def test_command_prints_a_table_with_units(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(path), "--target", QUICK, "--precision", "fp32,fp16"]) == 0
    out = capsys.readouterr().out
    head, first, second, *_ = out.splitlines()
    assert head.split()[:4] == ["target", "precision", "size", "build"]
    assert first.split()[:2] == [QUICK, "fp32"]
    assert second.split()[:2] == [QUICK, "fp16"]
    assert " KiB" in first
    assert " s " in first
    assert " px " in first
    assert f"wrote {path}, " in out


def test_command_prints_json(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.bin"
    assert main(["build", str(path), "--target", QUICK, "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["path"] == str(out)
    assert report["artifacts"][0]["parity"]["status"] == "passed"
    assert report["size_bytes"] == out.stat().st_size


def test_command_returns_3_when_the_golden_set_fails(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _with_other_scores(path)
    assert main(["build", str(path), "--target", QUICK]) == 3
    assert "failed the golden set" in capsys.readouterr().err


def test_command_returns_4_when_a_target_cannot_build(
    path: Path, only_quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(path), "--target", "tflite"]) == 4
    assert "pip install tflite" in capsys.readouterr().err
