"""YOLO11 as ultralytics exports it finds what ultralytics finds; opt-in, since ultralytics is AGPL-3.0.

    EDGEKD_TEST_ULTRALYTICS=VENV/bin/python make test PYTEST_ARGS=tests/importing/test_ultralytics.py

VENV has ultralytics, onnx, onnxruntime and openvino, and is no part of this project. The weights are random, with the
classes spread, so that nothing has to be fetched and there is much to find.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import edgekd

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = os.environ.get("EDGEKD_TEST_ULTRALYTICS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="set EDGEKD_TEST_ULTRALYTICS to the interpreter of a venv with ultralytics"),
]
CONF = 0.3
SLACK = 1e-3  # of scores
IOU = {"yolo11n": 0.5, "yolo11n-obb": 1.0}  # theirs suppresses turned boxes by another overlap: compared without
FILES = {"onnx": "{}.onnx", "openvino": "{0}_openvino_model/{0}.xml"}

ORACLE = """
import json, sys, types
try:
    import torchvision
except Exception:  # one that does not fit this torch; ultralytics then has its own suppression
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    sys.modules["torchvision"] = types.ModuleType("torchvision")
import numpy as np
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.utils.nms import TorchNMS
if not hasattr(sys.modules["torchvision"], "ops"):
    sys.modules["torchvision"].ops = types.SimpleNamespace(nms=TorchNMS.nms)
name, conf, iou, *pictures = sys.argv[1:]
torch.manual_seed(0)
model = YOLO(name + ".yaml")
pixels = np.full((len(pictures), 640, 640, 3), 114, np.uint8)
for row, path in zip(pixels, pictures):
    held = np.array(Image.open(path))
    top = (640 - len(held)) // 2
    row[top : top + len(held)] = held
for layer in model.model.modules():
    if isinstance(layer, torch.nn.BatchNorm2d):
        layer.momentum = 1.0
with torch.no_grad():
    model.model.train()
    model.model(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)  # else random weights let everything vanish
    model.model.eval()
    for branch in model.model.model[-1].cv3:
        branch[-1].weight.mul_(2)
        branch[-1].bias.fill_(-4)
for kind in ("onnx", "openvino"):
    model.export(format=kind, imgsz=640, **({"simplify": False} if kind == "onnx" else {}))
told = {"names": list(model.names.values()), "pictures": []}
exported = YOLO(name + ".onnx", task="obb" if name.endswith("obb") else "detect")
for picture in pictures:
    (found,) = exported.predict(picture, conf=float(conf), iou=float(iou), imgsz=640, max_det=300, verbose=False)
    boxes = found.obb if found.obb is not None else found.boxes
    told["pictures"].append({
        "boxes": (boxes.xyxyxyxy if found.obb is not None else boxes.xyxy).tolist(),
        "scores": boxes.conf.tolist(),
        "labels": [int(label) for label in boxes.cls.tolist()],
    })
json.dump(told, open("told.json", "w"))
"""


@pytest.fixture(scope="module", params=sorted(IOU))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """Name of the network, folder of what ultralytics exported and of the pictures, and what it found on them."""
    folder = tmp_path_factory.mktemp(request.param)
    for index, size in enumerate([(640, 640), (640, 480)]):  # neither is resized, so that both see the same pixels
        noise = np.random.default_rng(index).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
        Image.fromarray(noise).resize(size).filter(ImageFilter.GaussianBlur(2)).save(folder / f"{index}.png")
    words = [str(PYTHON), "-c", ORACLE, request.param, str(CONF), str(IOU[request.param]), "0.png", "1.png"]
    environment = {**os.environ, "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return request.param, folder, json.loads((folder / "told.json").read_text())


@pytest.mark.parametrize("kind", sorted(FILES))
def test_exported_network_finds_what_ultralytics_finds(
    exported: tuple[str, Path, Any], kind: str, tmp_path: Path
) -> None:
    name, folder, told = exported
    head = name.replace("yolo11n", "yolo11")
    path = folder / FILES[kind].format(name)
    edgekd.import_model(path, tmp_path / "out.bin", head=head, classes=told["names"], images=folder / "0.png")
    with edgekd.load(tmp_path / "out.bin", device="cpu" if kind == "openvino" else "reference") as detector:
        for index, expected in enumerate(told["pictures"]):
            found = detector.predict(folder / f"{index}.png", conf=CONF, iou=IOU[name], max_det=300)
            assert len(found) == len(expected["scores"]) > 20
            boxes = np.array(expected["boxes"])
            for label, score, box in zip(expected["labels"], expected["scores"], boxes, strict=True):
                if score > expected["scores"][-1] + SLACK:  # those as good as the last may be left out for one another
                    alike = (found.labels == label) & (np.abs(found.scores - score) < SLACK)
                    assert (distances(found, box)[alike] < 0.5).any(), (label, score, box)


def distances(found: edgekd.Detections, box: Any) -> Any:
    """Return how far each box is from another, in pixels; corners are matched whichever comes first."""
    if not found.oriented:
        return np.abs(found.boxes - box).max(axis=1)
    return np.abs(found.corners[:, :, None] - box[None, None]).max(axis=3).min(axis=2).max(axis=1)
