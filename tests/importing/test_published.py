"""Two published detectors with their published weights: the bundle finds what plain NumPy finds after them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
import pytest
from onnx import TensorProto, helper

import edgekd
from edgekd import ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DATA = Path(os.environ.get("EDGEKD_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = {"yolox": "yolox_nano_416_coco.onnx", "nanodet": "nanodet_m_416_coco.onnx"}
SIDE = 416
BGR = {"yolox": ((0, 0, 0), (1, 1, 1)), "nanodet": ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))}


def yolox(outputs: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    raw = outputs[0][0]
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(SIDE // s) for x in range(SIDE // s)]
    grid = np.array(cells, np.float32)
    centre, size = (raw[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(raw[:, 2:4]) * grid[:, 2:]
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1), raw[:, 4:5] * raw[:, 5:]


def nanodet(outputs: list[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    boxes = []
    for stride, distances in zip((8, 16, 32), outputs[3:], strict=True):
        shares = np.exp(distances[0].reshape(-1, 4, 8))
        left, top, right, bottom = ((shares / shares.sum(axis=2, keepdims=True)) @ np.arange(8) * stride).T
        y, x = (axis.reshape(-1) for axis in (np.mgrid[: SIDE // stride, : SIDE // stride] + 0.5) * stride)
        boxes.append(np.stack([x - left, y - top, x + right, y + bottom], axis=1))
    return np.concatenate(boxes), np.concatenate([item[0] for item in outputs[:3]])


def greedy(boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]) -> list[int]:
    """Return which rows stay, best first: those that no better one of their class overlaps by more than a half."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = boxes[row]
        for other in kept:
            left, top, right, bottom = boxes[other]
            common = max(0, min(x2, right) - max(x1, left)) * max(0, min(y2, bottom) - max(y1, top))
            union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - common
            if labels[row] == labels[other] and common > 0.5 * union:
                break
        else:
            kept.append(int(row))
    return kept


@pytest.mark.data
@pytest.mark.parametrize("head", ["yolox", "nanodet"])
def test_published_detector(head: str, tmp_path: Path) -> None:
    weights, photos = DATA / "weights" / FILES[head], DATA / "smoke" / "coco20" / "images"
    if not weights.exists() or not photos.exists():
        pytest.skip(f"needs {weights} and {photos}")
    names = DATA / "weights" / "coco_names_80.txt"
    edgekd.import_model(weights, tmp_path / "model.bin", head=head, classes=names, images=photos)
    with edgekd.Bundle.read(tmp_path / "model.bin") as bundle:  # exported for one image, opened for any number
        assert onnx.load_from_string(bundle.graph()).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    found = 0
    with edgekd.load(tmp_path / "model.bin", device="reference") as detector:
        for photo in sorted(photos.glob("*.jpg")):
            rgb = np.asarray(edgekd._preprocess.to_rgb(photo)[0])
            mean, std = BGR[head]
            pixels, place = ops.letterbox(rgb, SIDE, SIDE, swap=True, mean=mean, std=std, pad=114)
            boxes, scores = {"yolox": yolox, "nanodet": nanodet}[head](session.run(None, {name: pixels[None]}))
            labels = scores.argmax(axis=1)
            best = scores[np.arange(len(scores)), labels]
            rows = np.flatnonzero(best > 0.25)
            kept = rows[greedy(boxes[rows], best[rows], labels[rows])]
            got = detector.predict(photo)
            assert got.labels.tolist() == labels[kept].tolist()
            np.testing.assert_allclose(got.scores, best[kept], atol=1e-5)
            np.testing.assert_allclose(got.boxes, place.undo(boxes[kept].astype(np.float32)), atol=0.02)
            found += len(got)
    assert found > 80  # of 156 objects on the twenty photos


def as_ir(weights: Path, folder: Path) -> Path:
    """Write the network as OpenVINO's converter leaves it."""
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.convert_model(str(weights)), folder / "net.xml", compress_to_fp16=False)
    return folder / "net.xml"


def as_tflite(weights: Path, folder: Path) -> Path:
    """Write the network as a converter from TensorFlow leaves it: channels last, nothing decoded."""
    pytest.importorskip("litert_torch")
    from edgekd.targets.tflite._build import convert_graph

    model = onnx.version_converter.convert_version(onnx.load(weights), 17)
    image = model.graph.input[0]
    del model.graph.input[1:]  # weights, in old files
    for node in model.graph.node:
        node.input[:] = ["placed" if name == image.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Transpose", [image.name], ["placed"], perm=[0, 3, 1, 2]))
    image.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.FLOAT, [1, SIDE, SIDE, 3]))
    names = dict.fromkeys(item.name for item in model.graph.output)
    path = folder / "net.tflite"
    path.write_bytes(convert_graph(model.SerializeToString(), json.dumps(names)).model)
    return path


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "convert"), [("yolox", as_ir), ("nanodet", as_tflite)], ids=["yolox-openvino", "nanodet-tflite"]
)
def test_published_detector_as_a_file_of_a_target(head: str, convert: Callable[..., Path], tmp_path: Path) -> None:
    """What comes from elsewhere as IR or TFLite finds what the ONNX file it was made from finds."""
    weights, photos = DATA / "weights" / FILES[head], DATA / "smoke" / "coco20" / "images"
    if not weights.exists() or not photos.exists():
        pytest.skip(f"needs {weights} and {photos}")
    sidecar = tmp_path / "net.toml"
    names = DATA / "weights" / "coco_names_80.txt"
    sidecar.write_text(f'head = "{head}"\nclasses = "{names}"\nimages = "{photos}"\n')
    edgekd.import_model(convert(weights, tmp_path), tmp_path / "file.bin", sidecar=sidecar)
    edgekd.import_model(weights, tmp_path / "onnx.bin", sidecar=sidecar)
    found = 0
    with (
        edgekd.load(tmp_path / "file.bin") as detector,
        edgekd.load(tmp_path / "onnx.bin", device="reference") as reference,
    ):
        for photo in sorted(photos.glob("*.jpg")):
            got, expected = detector.predict(photo), reference.predict(photo)
            assert got.labels.tolist() == expected.labels.tolist()
            np.testing.assert_allclose(got.scores, expected.scores, atol=1e-4)
            np.testing.assert_allclose(got.boxes, expected.boxes, atol=0.05)
            found += len(got)
    assert found > 80
