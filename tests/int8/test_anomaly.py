"""int8 of an anomaly network from end to end: searched on one half of the test images, reported on the other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd._int8 import search
from edgekd._int8.data import network_pixels
from edgekd._int8.options import Calibration
from edgekd._target import load_target
from edgekd.cli.main import main
from edgekd.errors import GateError

from ..conformance import bundles
from . import sets

if TYPE_CHECKING:
    from pathlib import Path

QUICK = "openvino"
TRAIN, TEST = 16, 24

pytestmark = pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe()))


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and a category whose defects are what its float network finds most anomalous."""
    folder = tmp_path_factory.mktemp("anomaly")
    bundle = bundles.portable(anomaly=True)
    pictures = bundles.pictures(TRAIN + TEST)
    with sets.start(bundle) as session:
        scores = [float(session.infer(network_pixels(bundle.manifest, item)[None])[1][0]) for item in pictures[TRAIN:]]
    order = np.argsort(scores)
    middle = (scores[order[TEST // 2 - 1]] + scores[order[TEST // 2]]) / 2
    for index, picture in enumerate(pictures):
        kind = "dent" if index >= TRAIN and scores[index - TRAIN] > middle else "good"
        part = f"{'train' if index < TRAIN else 'test'}/{kind}"
        path = folder / "category" / part / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    limits = dataclasses.replace(bundle.manifest.thresholds, image=middle, low=middle - 0.5)  # type: ignore[type-var]
    bundle.replace(dataclasses.replace(bundle.manifest, thresholds=limits)).write(folder / "model.bin")
    return folder / "model.bin", folder / "category"


@pytest.fixture
def path(inspected: tuple[Path, Path], tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(inspected[0].read_bytes())
    return path


@pytest.fixture(autouse=True)
def short_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "QUICK", 2)
    monkeypatch.setattr(search, "LONG", 3)


def built(path: Path, category: Path, page: Path | None = None, **options: Any) -> dict[str, Any]:
    calibration = Calibration(train=category, **options)
    report = edgekd.build(path, targets=[QUICK], precisions=["int8"], calibration=calibration, report=page)
    (row,) = report.artifacts
    assert row.receipt is not None
    return row.receipt


def test_anomaly_network_becomes_int8_with_a_receipt_of_both_halves(
    inspected: tuple[Path, Path], path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = built(path, inspected[1], tmp_path / "page.html", max_drop=5)
    said = row["quantization"]
    assert row["what"] == "int8 image AUROC drop"
    assert row["split"] == "test"
    assert [gate["name"] for gate in said["gates"]] == ["image AUROC drop", "score shift", "decisions"]
    assert [gate["name"] for gate in said["reported"]] == ["image AUROC drop", "score shift", "decisions"]
    assert row["value"] == said["reported"][0]["value"]
    validation = said["validation"]
    assert validation["images"] + validation["images_reported"] == TEST
    assert said["figures"]["float"]["image_AUROC"] == 1.0
    assert said["golden"]["map"] > 0
    assert said["golden"]["box_px"] is None
    assert said["thresholds"]["shipped"] == pytest.approx(said["thresholds"]["refit"], abs=0.1)
    assert "Of the half of the test images" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with edgekd.load(path, device=QUICK, precision="int8") as detector:
        assert detector.info.session.compute == "int8"
    assert main(["verify", str(path), "--target", QUICK]) == 0
    assert main(["inspect", str(path)]) == 0
    assert "image AUROC drop" in capsys.readouterr().out


def test_anomaly_network_that_loses_too_much_is_refused(
    inspected: tuple[Path, Path], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrated on nearly grey images, forced: nothing else fits into the ranges."""
    monkeypatch.setattr(search, "LEAST_WORK", 0.99)
    rng = np.random.default_rng(0)
    for index in range(10):
        Image.fromarray(rng.integers(110, 120, (64, 96, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    before = path.read_bytes()
    with pytest.raises(GateError, match=r"openvino int8: int8 loses more(.|\n)*FAILED(.|\n)*nothing was written"):
        edgekd.build(
            path, targets=[QUICK], precisions=["int8"],
            calibration=Calibration(train=tmp_path, val=inspected[1], force=True),
        )  # fmt: skip
    assert path.read_bytes() == before
