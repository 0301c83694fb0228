"""`thresholds`: fitted to a folder, set by hand, only shown; and what of the bundle stays."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

import edgekd
from edgekd._manifest import Artifact
from edgekd._target import load_target
from edgekd.cli.main import main
from edgekd.errors import BundleError, GateError, ImageError, UsageError

from .conformance import bundles

if TYPE_CHECKING:
    from pathlib import Path

QUICK = "openvino"
RECEIPTS = tuple({"what": what, "value": 0.5} for what in ("image_AUROC", "found", "false_alarms"))

pytestmark = [pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe()))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle with an artifact, receipts and a signature."""
    bundle = bundles.built(QUICK, "fp32", anomaly=True).bundle
    manifest = dataclasses.replace(bundle.manifest, receipts=RECEIPTS)
    path = tmp_path / "model.bin"
    bundle.replace(manifest).sign(Ed25519PrivateKey.generate().private_bytes_raw()).write(path)
    return path


@pytest.fixture
def normal(tmp_path: Path) -> Path:
    folder = tmp_path / "normal"
    (folder / "deeper").mkdir(parents=True)
    for index, picture in enumerate(bundles.pictures(20)):
        Image.fromarray(picture).save(folder / f"{index:02d}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def chunks(path: Path) -> dict[str, bytes]:
    with edgekd.Bundle.read(path) as bundle:
        return {name: bytes(bundle.chunk(name)) for name in bundle.names() if name != "manifest.json"}


def test_without_a_change_the_thresholds_are_returned_and_nothing_is_written(path: Path) -> None:
    before = path.read_bytes()
    report = edgekd.thresholds(path)
    assert (report.written, report.after, report.after.image) == (False, report.before, bundles.IMAGE_THRESHOLD)
    assert path.read_bytes() == before


def test_by_hand_changes_the_verdict_and_keeps_all_but_what_rested_on_it(path: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "other.bin", bundles.pictures(1)[0]
    with edgekd.load(path, device=QUICK) as detector:
        assert detector.predict(picture).is_anomalous is False
    kept, original = chunks(path), path.read_bytes()
    report = edgekd.thresholds(path, image=2.3, pixel=1.9, out=out)
    assert (report.path, report.written, report.signature_dropped) == (str(out), True, True)
    assert report.receipts_dropped == ("found", "false_alarms")
    assert path.read_bytes() == original
    assert chunks(out) == kept
    with edgekd.Bundle.read(out) as bundle:
        found = bundle.manifest.thresholds
        assert found is not None
        assert (found.image, found.pixel, found.alpha, found.pixel_alpha) == (2.3, 1.9, None, None)
        assert [row["what"] for row in bundle.manifest.receipts] == ["image_AUROC"]
        assert bundle.manifest.provenance["thresholds"]["from"] == "set by hand"
        assert bundle.signature is None
    with edgekd.load(out, device=QUICK) as detector:
        result = detector.predict(picture)
    assert result.is_anomalous
    assert result.mask is not None
    assert result.mask.mean() > 0.9
    assert edgekd.verify(out, [QUICK]).passed


def test_artifacts_that_were_judged_at_the_old_threshold_are_judged_no_longer(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = [{"name": "decisions", "value": 100.0, "bound": 99.0, "unit": "% alike", "passed": True}]
    golden, sets = {"score": 0.01, "box_px": None, "map": 0.01}, {"name": "set", "images": 9}
    quantization = {
        "passed": True, "gates": gates, "golden": golden, "calibration": sets, "validation": sets,
        "layers": [{"name": "w", "int8": True}], "ranges": {"estimator": "mse"},
        "race": {"rival": "fp32", "speed_up": 2.0, "faster": True, "times_ms": {}},
    }  # fmt: skip
    int8 = {"what": "int8 image AUROC drop", "value": 0.0, "precision": "int8", "quantization": quantization}
    judgement = {"passed": True, "gates": gates, "golden": golden, "validation": sets}
    fp16 = {"what": "fp16 image AUROC drop", "value": 0.0, "precision": "fp16", "judgement": judgement}
    rows = [{**int8, "target": QUICK}, {**int8, "target": "tflite"}, {**fp16, "target": QUICK}]
    with edgekd.Bundle.read(path) as bundle:
        held = Artifact(target=QUICK, precision="int8", files=dict(bundle.manifest.artifacts[0].files))
        bundle.replace(dataclasses.replace(bundle.manifest, artifacts=(held,), receipts=(*RECEIPTS, *rows))).write(path)
    kept = edgekd.thresholds(path, pixel=2.0)
    assert (kept.receipts_dropped, kept.judge_again) == ((), ()), "no gate looks at pixels"
    assert edgekd.thresholds(path, image=kept.after.image).receipts_dropped == ()
    command = ["thresholds", str(path), "--image", "2.3"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert (
        f"int8 image AUROC drop of {QUICK}, int8 image AUROC drop of tflite, fp16 image AUROC drop of {QUICK}" in shown
    )
    assert f": edgekd build {path} --target {QUICK},tflite --precision int8 --calib DATA\n" in shown
    assert f": edgekd build {path} --target {QUICK} --precision fp16 --val DATA\n" in shown
    with pytest.raises(GateError, match="int8 without a receipt"):
        edgekd.load(path, device=QUICK, precision="int8")
    assert main(command) == 0
    assert "judge again" not in capsys.readouterr().out, "it is what it was"


def test_pixel_threshold_alone_leaves_verdicts_and_their_receipts(path: Path) -> None:
    report = edgekd.thresholds(path, pixel=2.0)
    assert report.receipts_dropped == ()
    assert (report.after.image, report.after.alpha, report.after.low) == (report.before.image, 0.05, report.before.low)
    assert (report.after.pixel, report.after.pixel_alpha) == (2.0, None)


def test_calibrated_scores_keep_their_scale_when_the_threshold_is_moved(path: Path) -> None:
    report = edgekd.thresholds(path, image=3.0)
    assert report.after.image - report.after.low == pytest.approx(report.before.image - report.before.low)


def test_fitted_to_a_folder_they_hold_on_that_folder(path: Path, normal: Path) -> None:
    with edgekd.Bundle.read(path) as bundle:  # files are RGB, so this network's input has to be turned round
        manifest = bundle.manifest
        bgr = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, color="bgr"))
        bundle.replace(bgr).write(path)
    report = edgekd.thresholds(path, data=normal, alpha=0.1, pixel_alpha=0.01, device=QUICK)
    found = report.after
    assert (found.alpha, found.pixel_alpha, found.images, found.sigma) == (0.1, 0.01, 20, report.before.sigma)
    assert report.session is not None
    assert report.session.target == QUICK
    with edgekd.load(path, device=QUICK) as detector:
        results = [detector.predict(item, ungated=True) for item in sorted(normal.glob("*.png"))]
    scores = sorted(item.score for item in results if item.score is not None)
    assert found.image == pytest.approx(scores[18], abs=1e-5)  # ceil(21 * 0.9) = 19th smallest
    assert sum(bool(item.is_anomalous) for item in results) <= 2
    above = float(np.mean([(item.anomaly_map > found.pixel).mean() for item in results]))  # type: ignore[operator]
    assert 0.008 < above < 0.012, "a share of 0.01, but for another size of the maps"
    with edgekd.Bundle.read(path) as bundle:
        origin = bundle.manifest.provenance["thresholds"]
    assert (origin["from"], origin["scored_by"]) == ("fitted to the folder normal", f"{QUICK} fp32, computing in fp32")


def test_alphas_that_are_not_given_stay_and_come_back_after_setting_by_hand(path: Path, normal: Path) -> None:
    edgekd.thresholds(path, image=9.0)
    report = edgekd.thresholds(path, data=normal, device=QUICK)
    assert (report.after.alpha, report.after.pixel_alpha) == (0.05, 1e-3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"alpha": 0.1}, "alpha: thresholds are fitted to normal images"),
        ({"data": "x", "image": 1.0}, "image: set by hand, or fitted to data"),
        ({"image": float("nan")}, "image should be a number"),
        ({"pixel": float("inf")}, "pixel should be a number"),
        ({"image": -2e9}, "image should be a number of at most 1e"),
        ({"out": "x.bin"}, "nothing to write"),
    ],
)
def test_impossible_requests_say_what_is_possible(path: Path, options: dict[str, Any], why: str) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError, match=why):
        edgekd.thresholds(path, **options)
    assert path.read_bytes() == before


def test_too_few_images_are_said_before_any_is_scored(
    path: Path, normal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"edgekd.targets.{QUICK}.load", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(UsageError, match=r"alpha = 0\.01 takes 99 normal images.*with 20"):
        edgekd.thresholds(path, data=normal, alpha=0.01)
    with pytest.raises(UsageError, match="pixel_alpha should be"):
        edgekd.thresholds(path, data=normal, alpha=0.1, pixel_alpha=1.0)


def test_where_the_bundle_cannot_be_written_no_image_is_scored(path: Path, normal: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        edgekd.thresholds(path, data=normal, out=tmp_path / "none" / "model.bin")


def test_folder_without_images_names_its_folders(path: Path, normal: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="it has the folders normal: name one of them"):
        edgekd.thresholds(path, data=tmp_path)
    with pytest.raises(ImageError, match="no folder"):
        edgekd.thresholds(path, data=tmp_path / "absent")
    (normal / "05.png").write_bytes(b"damaged")
    before = path.read_bytes()
    with pytest.raises(ImageError, match=r"05\.png"):
        edgekd.thresholds(path, data=normal)
    assert path.read_bytes() == before


def test_detectors_have_no_thresholds(tmp_path: Path) -> None:
    bundles.portable().write(tmp_path / "model.bin")
    with pytest.raises(UsageError, match="has no thresholds; `predict` takes conf"):
        edgekd.thresholds(tmp_path / "model.bin")
    with pytest.raises(BundleError):
        edgekd.thresholds(tmp_path / "absent.bin")


def test_command_line_shows_sets_and_fits(path: Path, normal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thresholds", str(path)]) == 0
    assert "image  above 2.53  (at most 5 % of normal images are above; from 20 images)" in capsys.readouterr().out
    assert main(["thresholds", str(path), "--image", "3"]) == 0
    shown = capsys.readouterr().out
    assert "image  above 3, was 2.53  (set by hand)" in shown
    assert "dropped: found, false_alarms" in shown
    assert "its signature was dropped" in shown
    assert main(["inspect", str(path)]) == 0
    assert "image 3 (by hand), pixel 2.4 (alpha 0.001), from 20 normal images" in capsys.readouterr().out
    assert main(["thresholds", str(path), "--data", str(normal), "--alpha", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["after"]["alpha"] == 0.1
    assert main(["thresholds", str(path), "--alpha", "0.1"]) == 2
