"""`verify`: right artifacts pass, wrong ones fail by number, what cannot run here is said and is no failure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import edgekd
from edgekd import _verify
from edgekd._manifest import Artifact
from edgekd._session import SessionInfo
from edgekd.cli.main import main
from edgekd.errors import (
    BundleError,
    CorruptBundleError,
    MissingPackageError,
    SessionError,
    SignatureError,
    UsageError,
)

from .conformance.bundles import HEIGHT, WIDTH, portable
from .conformance.detectors import detector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd._bundle import Bundle

Outputs = tuple["NDArray[np.float32]", ...]


class BentSession:
    """The reference outputs, bent by a function, as an engine that computes a little wrong would give them."""

    def __init__(self, bundle: Bundle, bend: Callable[..., Outputs]) -> None:
        self.reference = _verify.golden_samples(bundle)
        self.bend = bend
        self.closed = 0
        self.info = SessionInfo("bent", "fp32", "fp32", "cpu", "bent 1.0")

    def infer(self, pixels: NDArray[np.float32], _out: Outputs | None = None) -> Outputs:
        outputs = next(outputs for known, outputs in self.reference if np.array_equal(known, pixels))
        return self.bend(*(item.copy() for item in outputs))

    def close(self) -> None:
        self.closed += 1


def bundle_for(precision: str = "fp32", *, oriented: bool = False, anomaly: bool = False) -> Bundle:
    artifact = Artifact(target="openvino", precision=precision, files={})
    bundle = portable(oriented=oriented, anomaly=anomaly)
    return bundle.replace(dataclasses.replace(bundle.manifest, artifacts=(artifact,)))


@pytest.fixture
def bent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., _verify.ArtifactReport]:
    """Verify an artifact whose engine gives bent outputs."""

    def report(
        bend: Callable[..., Outputs],
        precision: str = "fp32",
        problem: Exception | None = None,
        *,
        oriented: bool = False,
        anomaly: bool = False,
        low: float | None = None,
    ) -> _verify.ArtifactReport:
        bundle = bundle_for(precision, oriented=oriented, anomaly=anomaly)
        if low is not None:
            limits = dataclasses.replace(bundle.manifest.thresholds, low=low)
            bundle = bundle.replace(dataclasses.replace(bundle.manifest, thresholds=limits))
        session = BentSession(bundle, bend)

        def load(*_: Any, **__: Any) -> BentSession:
            if problem is not None:
                raise problem
            return session

        monkeypatch.setattr("edgekd.targets.openvino.probe", lambda: None)
        monkeypatch.setattr("edgekd.targets.openvino.load", load)
        bundle.write(tmp_path / "model.bin")
        (found,) = edgekd.verify(tmp_path / "model.bin", ["openvino"]).artifacts
        assert session.closed == (problem is None)
        return found

    return report


def confident(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    return scores.max(axis=2) > portable().manifest.predict.conf


def test_portable_graph_agrees_with_its_own_golden_set(tmp_path: Path) -> None:
    portable().write(tmp_path / "model.bin")
    report = edgekd.verify(tmp_path / "model.bin")
    assert report.passed
    assert report.ran == 1
    (row,) = report.artifacts
    assert (row.target, row.precision, row.status, row.reason) == ("reference", "fp32", "passed", "")
    assert row.score_difference is not None
    assert row.score_difference < 1e-5
    assert row.decisions is not None
    assert row.decisions.same == row.decisions.reference > 10
    assert row.decisions.different == row.decisions.borderline == 0


def test_another_networks_weights_are_found(tmp_path: Path) -> None:
    portable().replace(add={"graph.onnx": detector(HEIGHT, WIDTH, 3, seed=7)}).write(tmp_path / "model.bin")
    report = edgekd.verify(tmp_path / "model.bin")
    assert not report.passed
    assert report.artifacts[0].status == "failed"
    assert "scores differ by" in report.artifacts[0].reason
    assert "boxes differ by" in report.artifacts[0].reason
    assert "decisions differ" in report.artifacts[0].reason


def test_another_normalisation_is_found(tmp_path: Path) -> None:
    spec = portable().manifest.input
    wrong = dataclasses.replace(portable().manifest, input=dataclasses.replace(spec, color="bgr"))
    portable().replace(wrong).write(tmp_path / "model.bin")
    assert not edgekd.verify(tmp_path / "model.bin").passed


@pytest.mark.parametrize(
    ("precision", "error", "status"),
    [("fp32", 9e-4, "passed"), ("fp32", 1.1e-3, "failed"), ("fp16", 9e-3, "passed"), ("fp16", 1.1e-2, "failed"),
     ("bf16", 9e-3, "passed"), ("bf16", 1.1e-2, "failed")],
)  # fmt: skip
def test_scores_have_a_bound_by_precision(bent: Any, precision: str, error: float, status: str) -> None:
    found = bent(lambda boxes, scores: (boxes, scores + np.float32(error)), precision)
    assert found.status == status, found
    assert found.score_difference == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    ("precision", "error", "status"),
    [("fp32", 0.49, "passed"), ("fp32", 0.51, "failed"), ("fp16", 0.99, "passed"), ("fp16", 1.01, "failed"),
     ("bf16", 0.99, "passed"), ("bf16", 1.01, "failed")],
)  # fmt: skip
def test_boxes_have_a_bound_by_precision(bent: Any, precision: str, error: float, status: str) -> None:
    found = bent(lambda boxes, scores: (boxes + np.float32(error), scores), precision)
    assert found.status == status, found
    assert found.box_difference_px == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(("precision", "status"), [("fp32", "failed"), ("fp16", "passed")])
def test_boxes_that_nobody_sees_count_for_fp32_only(bent: Any, precision: str, status: str) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        boxes[~confident(scores)] += 5
        return boxes, scores

    assert bent(bend, precision).status == status


def test_a_row_that_only_the_artifact_detects_counts(bent: Any) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        row = int(np.argmin(scores[0].max(axis=1)))
        boxes[0, row] += 5
        scores[0, row] = 0.99
        return boxes, scores

    found = bent(bend, "fp16")
    assert "boxes differ by 5 px" in found.reason
    assert "decisions differ" in found.reason


def test_failed_boxes_are_named_with_what_differs(bent: Any) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        boxes[0, 7, [0, 2]] += 2
        boxes[0, 7, 2] += 1
        return boxes, scores

    found = bent(bend)
    assert "boxes differ by 3 px, more than 0.5 (image 0, row 7: centre by 2.5 px, sides by 1 px)" in found.reason
    assert found.worst_box.angle_rad is None


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_rectangles_written_another_way_pass(bent: Any, turns: int) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        if turns % 2:
            boxes[..., [2, 3]] = boxes[..., [3, 2]]
        boxes[..., 4] += np.float32(turns * np.pi / 2)
        return boxes, scores

    found = bent(bend, oriented=True)
    assert found.status == "passed", found
    assert found.box_difference_px < 1e-3
    assert found.decisions.same == found.decisions.reference > 10


@pytest.mark.parametrize(
    ("precision", "error", "status"), [("fp32", 0.49, "passed"), ("fp32", 0.51, "failed"), ("fp16", 0.99, "passed"),
    ("fp16", 1.01, "failed")],
)  # fmt: skip
def test_oriented_boxes_that_move_have_the_bounds_of_upright_ones(
    bent: Any, precision: str, error: float, status: str
) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        boxes[..., 0] += np.float32(error)
        return boxes, scores

    found = bent(bend, precision, oriented=True)
    assert found.status == status, found
    assert found.box_difference_px == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(("corner_px", "status"), [(0.45, "passed"), (0.8, "failed")])
def test_oriented_boxes_that_turn_are_judged_by_their_corners(bent: Any, corner_px: float, status: str) -> None:
    """The arc of a corner is longer than its larger step in x or y, by at most the square root of two."""

    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        arm = np.hypot(boxes[0, 3, 2], boxes[0, 3, 3]) / 2
        boxes[0, 3, 4] += np.float32(corner_px / arm)
        return boxes, scores

    found = bent(bend, oriented=True)
    assert found.status == status, found
    assert found.worst_box.row == 3
    assert found.worst_box.centre_px == found.worst_box.sides_px == 0
    assert corner_px / 2**0.5 <= found.box_difference_px <= corner_px
    if status == "failed":
        assert re.search(r"row 3: centre by 0 px, sides by 0 px, angle by 0\.\d+ rad", found.reason)


def test_oriented_outputs_that_are_not_finite_fail_and_stay_json(bent: Any, tmp_path: Path) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        boxes[0, 5, 4] = np.nan
        boxes[0, 6, 2] = np.inf
        return boxes, scores

    assert bent(bend, oriented=True).status == "failed"
    row = edgekd.verify(tmp_path / "model.bin", ["openvino"]).to_dict()["artifacts"][0]
    assert row["box_difference_px"] is None
    assert row["worst_box"]["angle_rad"] is None
    json.dumps(row, allow_nan=False)


def test_outputs_that_are_not_finite_fail_and_stay_json(bent: Any, tmp_path: Path) -> None:
    def bend(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Outputs:
        scores[0, 0] = np.nan
        boxes[0, 1] = np.inf
        return boxes, scores

    assert bent(bend).status == "failed"
    row = edgekd.verify(tmp_path / "model.bin", ["openvino"]).to_dict()["artifacts"][0]
    assert row["score_difference"] is None
    json.dumps(row, allow_nan=False)


def test_outputs_of_another_shape_fail(bent: Any) -> None:
    found = bent(lambda boxes, scores: (boxes[:, :-1], scores))
    assert found.status == "failed"
    assert "another network" in found.reason


def test_precision_without_a_bound_is_measured_and_reported(bent: Any) -> None:
    found = bent(lambda boxes, scores: (boxes, scores + np.float32(0.05)), "int4")
    assert (found.status, found.reason) == ("reported", "no bound is set for int4")
    assert found.score_difference == pytest.approx(0.05, rel=1e-3)


def test_engine_that_fails_is_a_failure_and_a_missing_package_is_not(bent: Any) -> None:
    def broken(*_: Any) -> Outputs:
        raise SessionError("the vendor's runtime failed")

    assert bent(broken).reason == "the vendor's runtime failed"
    assert bent(broken).status == "failed"
    assert bent(broken, problem=SessionError("refused")).status == "failed"
    assert bent(broken, problem=CorruptBundleError("no file")).status == "failed"
    skipped = bent(broken, problem=MissingPackageError("pip install x"))
    assert (skipped.status, skipped.reason) == ("skipped", "pip install x")


def test_target_that_cannot_run_here_is_listed_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.targets.openvino.probe", lambda: "pip install 'edgekd[openvino]'")
    bundle_for().write(tmp_path / "model.bin")
    report = edgekd.verify(tmp_path / "model.bin")
    assert report.passed
    assert [(row.target, row.status) for row in report.artifacts] == [("openvino", "skipped"), ("reference", "passed")]
    assert report.artifacts[0].reason == "pip install 'edgekd[openvino]'"


def test_target_of_another_installation_is_listed(tmp_path: Path) -> None:
    artifact = Artifact(target="quantum", precision="fp32", files={})
    portable().replace(dataclasses.replace(portable().manifest, artifacts=(artifact,))).write(tmp_path / "model.bin")
    assert edgekd.verify(tmp_path / "model.bin").artifacts[0].reason == "this edgekd has no target 'quantum'"


def test_impossible_requests_say_what_is_possible(tmp_path: Path) -> None:
    portable().write(tmp_path / "model.bin")
    with pytest.raises(UsageError, match="no target 'coral'; possible: openvino, reference, tensorrt, tflite"):
        edgekd.verify(tmp_path / "model.bin", ["coral"])
    with pytest.raises(
        UsageError, match=r"nothing for the target tflite; it has: reference fp32\. To add it: edgekd build"
    ):
        edgekd.verify(tmp_path / "model.bin", ["tflite"])
    portable().replace(dataclasses.replace(portable().manifest, golden=())).write(tmp_path / "model.bin")
    with pytest.raises(BundleError, match="no golden set"):
        edgekd.verify(tmp_path / "model.bin")


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_key_is_required_only_where_given(tmp_path: Path) -> None:
    portable().write(tmp_path / "plain.bin")
    portable().sign(KEY.private_bytes_raw()).write(tmp_path / "signed.bin")
    assert edgekd.verify(tmp_path / "signed.bin").signed_by is None
    expected = hashlib.sha256(KEY.public_key().public_bytes_raw()).hexdigest()
    assert edgekd.verify(tmp_path / "signed.bin", public_keys=[PEM]).signed_by == expected
    with pytest.raises(SignatureError, match="not signed"):
        edgekd.verify(tmp_path / "plain.bin", public_keys=[PEM])


def test_command_prints_a_table_and_exits_by_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "model.bin")
    bundle_for().sign(KEY.private_bytes_raw()).write(path)
    (tmp_path / "key.pem").write_bytes(PEM)
    monkeypatch.setattr("edgekd.targets.openvino.probe", lambda: "pip install 'edgekd[openvino]'")
    assert main(["verify", path, "--key", str(tmp_path / "key.pem")]) == 0
    printed = capsys.readouterr().out
    assert "signed by trusted key" in printed
    assert "reference  fp32       fp32" in printed
    assert "openvino fp32 skipped: pip install 'edgekd[openvino]'" in printed
    assert "1 of 1 artifacts that ran here passed" in printed

    assert main(["verify", path, "--target", "openvino"]) == 4
    assert "0 of 0 artifacts that ran here passed" in capsys.readouterr().out

    portable().replace(add={"graph.onnx": detector(HEIGHT, WIDTH, 3, seed=7)}).write(path)
    assert main(["verify", path, "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert report["artifacts"][0]["decisions"]["different"] > 0

    assert main(["verify", path, "--key", str(tmp_path / "missing.pem")]) == 2
    assert "cannot read the key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "precision", "passes"),
    [(5e-4, "fp32", True), (2e-3, "fp32", False), (5e-3, "fp16", True), (2e-2, "fp16", False)],
)
def test_score_of_an_anomaly_network_is_bound_by_precision(
    bent: Callable[..., _verify.ArtifactReport], error: float, precision: str, passes: bool
) -> None:
    found = bent(lambda raw, score: (raw, score - np.float32(error)), precision, anomaly=True)
    assert found.score_difference == pytest.approx(error, rel=1e-3)
    assert found.status == ("passed" if passes else "failed")
    assert ("scores differ by" in found.reason) is not passes
    assert found.box_difference_px is None


@pytest.mark.parametrize(
    ("error", "precision", "passes"),
    [(5e-4, "fp32", True), (2e-3, "fp32", False), (1e-2, "fp16", True), (3e-2, "fp16", False)],
)
def test_one_place_of_the_map_is_bound_by_precision(
    bent: Callable[..., _verify.ArtifactReport], error: float, precision: str, passes: bool
) -> None:
    def bend(raw: NDArray[np.float32], score: NDArray[np.float32]) -> Outputs:
        raw[0, 0, 3, 5] += error
        return raw, score

    found = bent(bend, precision, anomaly=True)
    assert found.map_difference == pytest.approx(error, rel=1e-3)
    assert (found.status, "maps differ by" in found.reason) == (("passed", False) if passes else ("failed", True))


def test_engine_whose_verdicts_are_others_fails_by_decisions(bent: Callable[..., _verify.ArtifactReport]) -> None:
    found = bent(lambda raw, score: (raw, 2 * 2.53 - score), anomaly=True)
    assert found.decisions is not None
    assert (found.decisions.reference, found.decisions.different) == (3, 3)
    assert "3 decisions differ" in found.reason


@pytest.mark.parametrize("which", [0, 1])
def test_anomaly_network_that_gives_nan_fails(bent: Callable[..., _verify.ArtifactReport], which: int) -> None:
    def bend(*outputs: NDArray[np.float32]) -> Outputs:
        outputs[which].reshape(-1)[0] = np.nan
        return outputs

    assert bent(bend, anomaly=True).status == "failed"


@pytest.mark.parametrize(("low", "status"), [(2.43, "passed"), (2.4299, "passed"), (2.52, "failed"), (2.6, "passed")])
def test_small_scores_of_an_anomaly_network_have_small_bounds(
    bent: Callable[..., _verify.ArtifactReport], low: float, status: str
) -> None:
    """Up to the threshold, 2.53, normal scores span 0.1, as usual; 0.01; or nothing that could be a scale."""
    found = bent(lambda raw, score: (raw, score + np.float32(5e-4)), anomaly=True, low=low)
    assert found.status == status
    assert isinstance(found.tolerance, _verify.MapTolerance)
    assert found.tolerance.score == pytest.approx(1e-4 if status == "failed" else 1e-3, rel=1e-3)


def test_anomaly_network_of_a_precision_without_a_bound_is_reported(
    bent: Callable[..., _verify.ArtifactReport],
) -> None:
    found = bent(lambda raw, score: (raw + 1, score), "int4", anomaly=True)
    assert (found.status, found.reason) == ("reported", "no bound is set for int4")


def test_verify_of_an_anomaly_network_prints_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    portable(anomaly=True).write(tmp_path / "model.bin")
    assert main(["verify", str(tmp_path / "model.bin")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("0.0e+00 (0.001)") == 2
    assert "3 of 3 same" in shown
