"""`edgekd eval` of whole pictures and by tiles, on a small bundle that finds what it finds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

import edgekd
from edgekd._accuracy_receipt import write_accuracy
from edgekd._session import SessionInfo
from edgekd.cli.main import main
from edgekd.errors import UsageError

from ..conformance import bundles

pytest.importorskip("torch")
pytest.importorskip("pycocotools")
TILES = {"tile": 64, "overlap": 20}


@pytest.fixture
def scene(tmp_path: Path) -> tuple[str, str]:
    """Return a bundle and a set annotated with what the bundle itself finds by tiles."""
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    picture = bundles.pictures(1)[0]
    Image.fromarray(picture).save(tmp_path / "0.png")
    with edgekd.load(path) as detector:
        rows = detector.predict(picture, color="rgb", conf=0.5, iou=0.6, **TILES).to_coco(image_id=0)
    assert len(rows) > 3
    annotations = [
        {"id": index, "image_id": 0, "category_id": row["category_id"], "bbox": row["bbox"]}
        for index, row in enumerate(rows)
    ]
    images = [{"id": 0, "file_name": "0.png", "width": 120, "height": 90}]
    categories = [{"id": index, "name": name} for index, name in enumerate(bundles.CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return str(path), str(tmp_path / "truth.json")


def test_eval_by_tiles_scores_what_tiles_find(scene: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", *scene, "--json"]
    assert main([*words, "--tile", "64", "--overlap", "20"]) == 0
    by_tiles = json.loads(capsys.readouterr().out)
    assert main(words) == 0
    whole = json.loads(capsys.readouterr().out)
    assert (by_tiles["tile"], by_tiles["overlap"]) == (64, 20)
    assert (whole["tile"], whole["overlap"]) == (None, None)
    assert by_tiles["metrics"]["AP50"] > 0.95 > whole["metrics"]["AP50"]


def test_receipt_that_cannot_be_written_costs_no_evaluation(
    scene: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgekd.Detector, "predict", lambda *_, **__: pytest.fail("evaluated"))
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    with pytest.raises(UsageError, match="may not be written to"):
        edgekd.evaluate(*scene, receipt=True)
    with pytest.raises(UsageError, match="is a folder; name a file in it"):
        edgekd.evaluate(*scene, report=tmp_path)


def test_eval_tells_of_objects_whose_class_the_bundle_does_not_know(
    scene: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *scene, "--json"]) == 0
    assert "dropped" not in json.loads(capsys.readouterr().out)
    truth = Path(scene[1])
    content = json.loads(truth.read_text())
    content["categories"].append({"id": 99, "name": "boat"})
    content["annotations"].append({"id": 99, "image_id": 0, "category_id": 99, "bbox": [1, 1, 9, 9]})
    content["annotations"] += [
        {"id": 100 + row, "image_id": 0, "category_id": 0, "bbox": [row, 1, 0, 9]} for row in range(4)
    ]
    truth.write_text(json.dumps(content))
    assert main(["eval", *scene, "--json"]) == 0
    dropped = json.loads(capsys.readouterr().out)["dropped"]
    assert len(dropped) == 5
    assert dropped[-1].endswith("1 objects of class 'boat' dropped: not asked for")
    assert main(["eval", *scene]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 4
    assert lines[-1] == "left out: 2 more (--json lists all)"


def test_eval_with_tiles_that_make_no_sense_is_refused(
    scene: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *scene, "--tile", "64", "--overlap", "64"]) == 2
    assert "0 to tile - 1 = 63, got 64" in capsys.readouterr().err


def test_eval_of_a_detector_has_no_report(
    scene: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *scene, "--report", str(tmp_path / "out.html")]) == 2
    assert "report: for anomaly bundles only" in capsys.readouterr().err
    assert not (tmp_path / "out.html").exists()


def test_figures_go_into_the_bundle_with_the_fingerprint_of_their_data(
    scene: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekd import Bundle

    for _ in range(2):  # the second replaces the first
        assert main(["eval", *scene, "--receipt"]) == 0
    assert f"wrote the figures into the receipts of {scene[0]}" in capsys.readouterr().out
    report = edgekd.evaluate(*scene)
    with Bundle.read(scene[0]) as bundle:
        rows = {row["what"]: row for row in bundle.manifest.receipts}
        assert len(rows) == len(bundle.manifest.receipts)
    assert rows["AP50"]["value"] == report.metrics["AP50"]
    assert len(rows["AP"]["data_sha256"]) == 64
    assert (rows["AP"]["split"], rows["AP"]["images"], rows["AP"]["target"]) == ("test", 1, "reference")
    assert "per_class" not in rows
    found = edgekd.pick([scene[0]], "10 s max", calls=2)
    assert found.candidates[0].accuracy.value == report.metrics["AP"]
    assert found.data_sha256 == rows["AP"]["data_sha256"]


def test_receipts_of_another_mode_or_tile_stay_beside_and_old_ones_without_a_mode_go(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    bundle = bundles.portable(oriented=True)
    session = SessionInfo(target="reference", precision="fp32", compute="fp32", device="cpu", runtime="ORT")
    old = {"what": "AP", "value": 0.1, "split": "test", "data_sha256": "ab", "tile": None,
           "target": "reference", "precision": "fp32"}  # fmt: skip
    bundle.replace(dataclasses.replace(bundle.manifest, receipts=(old,))).write(path)
    for value, mode, tile in ((0.2, "voc07", None), (0.3, "area", None), (0.4, "area", 64), (0.5, "voc07", None)):
        report = edgekd.EvalReport(
            data="set", images=1, objects=1, session=session, tile=tile, seconds=1.0,
            metrics={"AP": value, "mode": mode},
        )  # fmt: skip
        write_accuracy(path, report, "test", "ab")
    with edgekd.Bundle.read(path) as written:
        found = [(row["value"], row["mode"], row["tile"]) for row in written.manifest.receipts]
    assert found == [(0.3, "area", None), (0.4, "area", 64), (0.5, "voc07", None)]
