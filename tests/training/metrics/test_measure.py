"""The metric that fits the boxes, and what `edgekd eval` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd import _detector
from edgekd._bundle import Bundle
from edgekd._detections import Detections
from edgekd._session import SessionInfo
from edgekd.cli.main import main
from edgekd.errors import UsageError
from edgekd.training.data.sample import Dataset, Sample
from edgekd.training.metrics.measure import measure

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

CLASSES = ("car", "plane")
BOX = [30.0, 24.0, 30.0, 10.0, 0.5]
TEXT = "imagesource:x\n15.0 5.0 45.0 5.0 45.0 15.0 15.0 15.0 car 0\n"


def dataset(*boxes: list[list[float]], task: str = "obb") -> Dataset:
    columns = 5 if task == "obb" else 4
    rows = [np.array(found, np.float32).reshape(-1, columns) for found in boxes]
    samples = [Sample(Path("x"), (64, 48), r, np.zeros(len(r), np.int64), np.zeros(len(r), bool)) for r in rows]
    return Dataset("set", task, CLASSES, tuple(samples))


def found(boxes: list[list[float]], columns: int = 5, score: float = 0.9) -> Detections:
    rows = np.array(boxes, np.float32).reshape(-1, columns)
    return Detections(rows, np.full(len(rows), score, np.float32), np.zeros(len(rows), np.int64), CLASSES, (48, 64))


def test_oriented_boxes_on_an_oriented_set_have_dotas_figures_with_their_mode() -> None:
    truth = dataset([BOX], [])
    figures = measure([found([BOX]), found([BOX, BOX], score=0.25)], truth)
    assert (figures["mode"], figures["AP"]) == ("area", 1)
    assert figures["background"] == {"images": 1, "confidence": 0.25, "false_positives": 2.0}
    assert measure([found([BOX]), found([])], truth, mode="voc07")["mode"] == "voc07"
    assert "background" not in measure([found([BOX])], dataset([BOX]))


@pytest.mark.parametrize(
    ("detections", "truth"),
    [
        (found([[1, 2, 21, 12]], 4), dataset([[1, 2, 21, 12]], task="detect")),
        (found([[15, 19, 45, 29]], 4), dataset([[30, 24, 30, 10, 0]])),  # upright boxes on an oriented set
        (found([[30, 24, 30, 10, 0]]), dataset([[15, 19, 45, 29]], task="detect")),
    ],
)
def test_all_else_has_cocos_figures_and_no_mode(detections: Detections, truth: Dataset) -> None:
    figures = measure([detections], truth)
    assert figures["AP"] == pytest.approx(1)
    assert "mode" not in figures
    assert "AP_small" in figures
    with pytest.raises(UsageError, match="mode 'area' is for oriented boxes"):
        measure([detections], truth, mode="area")


class Oracle:
    """Stands where a loaded bundle would: finds the same cars on every image."""

    names = CLASSES
    info = SimpleNamespace(session=SessionInfo("reference", "fp32", "fp32", "cpu", "none 1"))

    def __init__(self, boxes: NDArray[np.float32]) -> None:
        self.boxes = boxes
        self.manifest = SimpleNamespace(angle="le90" if boxes.shape[1] == 5 else None)
        self.asked: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def predict(self, *_: object, **asked: object) -> Detections:
        self.asked.append(asked)
        return found(self.boxes.tolist(), self.boxes.shape[1])


def stand_in(monkeypatch: pytest.MonkeyPatch, boxes: list[list[float]]) -> Oracle:
    """Put an oracle where a bundle would be opened and loaded."""
    oracle = Oracle(np.array(boxes, np.float32))
    detector = SimpleNamespace(manifest=SimpleNamespace(task="detect"))
    monkeypatch.setattr(Bundle, "read", lambda *_: detector)
    monkeypatch.setattr(_detector, "start", lambda *_: oracle)
    return oracle


@pytest.fixture
def aerial(tmp_path: Path) -> Path:
    """An oriented set in DOTA form: one image with a car, one with nothing."""
    for name, text in (("a", TEXT), ("b", "")):
        for folder in ("images", "labelTxt"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        (tmp_path / "labelTxt" / f"{name}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize(("boxes", "kept"), [([[30, 10, 30, 10, 0]], (0.1, 2000)), ([[15, 5, 45, 15]], (0.6, 300))])
def test_eval_thins_oriented_boxes_as_dota_does_and_upright_ones_as_coco_does(
    boxes: list[list[float]], kept: tuple[float, int], aerial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = stand_in(monkeypatch, boxes)
    edgekd.evaluate("model.bin", aerial)
    assert [(asked["conf"], asked["iou"], asked["max_det"]) for asked in oracle.asked] == [(0.001, *kept)] * 2


def evaluated(monkeypatch: pytest.MonkeyPatch, boxes: list[list[float]], *words: str) -> int:
    stand_in(monkeypatch, boxes)
    return main(["eval", "model.bin", *words])


@pytest.mark.parametrize(("words", "mode"), [((), "area"), (("--mode", "voc07"), "voc07")])
def test_eval_of_oriented_data_prints_the_mode_beside_every_figure(
    words: tuple[str, ...], mode: str, aerial: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One hit and one false positive of one score: precision 0.5 up to recall 1, in either mode."""
    assert evaluated(monkeypatch, [[30, 10, 30, 10, 0]], str(aerial), *words) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("AP  ", "AP50", "AP75"):
        assert f"  {name}   50.0 %  ({mode}, IoU of rotated boxes)" in lines
    assert any(line.split() == ["class", "AP", f"({mode})", "AP50", f"({mode})"] for line in lines)
    assert any(line.split() == ["car", "50.0", "%", "50.0", "%"] for line in lines)
    assert any(line.split() == ["plane", "no", "object", "no", "object"] for line in lines)
    assert lines[-1] == "false positives on 1 images without objects: 1.00 per image at confidence 0.25"


def test_eval_as_json_holds_the_mode_and_no_nan(
    aerial: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(monkeypatch, [[30, 10, 30, 10, 0]], str(aerial), "--json") == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert (metrics["mode"], metrics["AP50"], metrics["per_class_AP50"]["plane"]) == ("area", 0.5, None)


def test_eval_of_upright_boxes_is_as_it_was(
    aerial: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(monkeypatch, [[15, 5, 45, 15]], str(aerial)) == 0
    out = capsys.readouterr().out
    assert "  AP_small" in out
    assert "area" not in out
    assert evaluated(monkeypatch, [[15, 5, 45, 15]], str(aerial), "--mode", "area") == 2
    assert "mode 'area' is for oriented boxes on an oriented set" in capsys.readouterr().err


def test_eval_refuses_an_unknown_mode_before_it_runs_anything(
    aerial: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Oracle, "predict", lambda *_, **__: pytest.fail("it ran"))
    assert evaluated(monkeypatch, [[30, 10, 30, 10, 0]], str(aerial), "--mode", "voc12") == 2
    assert "no mode 'voc12' of average precision; possible: voc07, area" in capsys.readouterr().err
