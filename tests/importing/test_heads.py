"""Each head's decoding inside the graph, against its published definition written out in plain Python."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgekd
from edgekd import GenericHead, geometry
from edgekd._bundle import Bundle
from edgekd._golden import golden_outputs
from edgekd.errors import UsageError
from edgekd.importing.heads import HEADS, Pixels

from .conftest import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .conftest import Network

SIDE, CLASSES, BINS = 64, 3, 8
CELLS = [(x, y, stride) for stride in (8, 16, 32) for y in range(SIDE // stride) for x in range(SIDE // stride)]
rng = np.random.default_rng(7)


def probabilities(*shape: int) -> NDArray[np.float32]:
    return rng.uniform(0, 1, shape).astype(np.float32)


def decoded(path: Path, head: Any, photo: Path, tmp_path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return boxes and scores that the bundle's own graph gave for its golden image."""
    edgekd.import_model(path, tmp_path / "model.bin", head=head, classes=NAMES, images=photo)
    bundle = Bundle.read(tmp_path / "model.bin")
    boxes, scores = golden_outputs(bundle, bundle.manifest.golden[0])
    return boxes[0], scores[0]


def corners(cx: float, cy: float, width: float, height: float) -> list[float]:
    return [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2]


def test_yolox(network: Network, photo: Path, tmp_path: Path) -> None:
    raw = np.concatenate([rng.normal(size=(1, 84, 4)), probabilities(1, 84, 1 + CLASSES)], axis=2)
    boxes, scores = decoded(network({"out": raw}), "yolox", photo, tmp_path)
    for row, (x, y, stride) in enumerate(CELLS):
        dx, dy, log_width, log_height, objectness = raw[0, row, :5]
        size = math.exp(log_width) * stride, math.exp(log_height) * stride
        expected = corners((x + dx) * stride, (y + dy) * stride, *size)
        np.testing.assert_allclose(boxes[row], expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(scores[row], objectness * raw[0, row, 5:], atol=1e-6)


def test_yolov5(network: Network, photo: Path, tmp_path: Path) -> None:
    raw = np.concatenate([rng.uniform(1, 60, (1, 252, 4)), probabilities(1, 252, 1 + CLASSES)], axis=2)
    boxes, scores = decoded(network({"out": raw}), "yolov5", photo, tmp_path)
    for row in range(252):
        np.testing.assert_allclose(boxes[row], corners(*raw[0, row, :4]), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(scores[row], raw[0, row, 4] * raw[0, row, 5:], atol=1e-6)


@pytest.mark.parametrize("head", ["yolov8", "yolo11"])
def test_yolov8(head: str, network: Network, photo: Path, tmp_path: Path) -> None:
    raw = np.concatenate([rng.uniform(1, 60, (1, 4, 84)), probabilities(1, CLASSES, 84)], axis=1)
    boxes, scores = decoded(network({"out": raw}), head, photo, tmp_path)
    for row in range(84):
        np.testing.assert_allclose(boxes[row], corners(*raw[0, :4, row]), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(scores[row], raw[0, 4:, row], atol=1e-6)


def turned_rows(count: int) -> NDArray[np.float32]:
    """Return centre, sides and angle; with squares, sides swapped, and angles at and beyond every border."""
    rows = rng.uniform(4, 60, (count, 5)).astype(np.float32)
    rows[:, 4] = rng.uniform(-4, 4, count)
    rows[:8, 4] = [0, math.pi / 2, -math.pi / 2, math.pi / 4, -math.pi / 4, 3 * math.pi / 4, math.pi, 7]
    rows[8:16, 3] = rows[8:16, 2]
    return rows


def assert_same_rectangles(boxes: NDArray[np.float32], rows: NDArray[np.float32]) -> None:
    assert bool((boxes[:, 2] >= boxes[:, 3]).all())
    assert bool((np.abs(boxes[:, 4]) <= np.float32(math.pi / 2) + 1e-6).all())
    for got, (cx, cy, width, height, angle) in zip(geometry.xywhr_to_corners(boxes), rows.tolist(), strict=True):
        cos, sin = math.cos(angle), math.sin(angle)  # clockwise on the image, whose y runs down
        halves = [(sx * width / 2, sy * height / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        points = np.array([(cx + x * cos - y * sin, cy + x * sin + y * cos) for x, y in halves])
        distances = np.abs(got[:, None] - points[None]).max(axis=2)
        assert distances.min(axis=1).max() < 1e-3


@pytest.mark.parametrize("head", ["yolov8-obb", "yolo11-obb"])
def test_oriented(head: str, network: Network, photo: Path, tmp_path: Path) -> None:
    rows, scores = turned_rows(84), probabilities(84, CLASSES)
    raw = np.concatenate([rows[:, :4].T, scores.T, rows[:, 4:].T])[None]
    boxes, found = decoded(network({"out": raw}), head, photo, tmp_path)
    assert_same_rectangles(boxes, rows)
    np.testing.assert_allclose(found, scores, atol=1e-6)
    with edgekd.load(tmp_path / "model.bin") as detector:
        assert detector.manifest.predict.iou == 0.1
        assert detector.predict(photo).corners.shape[1:] == (4, 2)


def nanodet_outputs(classes: int = CLASSES) -> dict[str, NDArray[np.float32]]:
    """Return the six outputs in the order of NanoDet-m's export: classes of each stride, then distances."""
    cells = [(SIDE // stride) ** 2 for stride in (8, 16, 32)]
    scores = {f"c{index}": probabilities(1, count, classes) for index, count in enumerate(cells)}
    return scores | {f"d{index}": rng.normal(size=(1, count, 4 * BINS)) for index, count in enumerate(cells)}


def test_nanodet(network: Network, photo: Path, tmp_path: Path) -> None:
    outputs = nanodet_outputs()
    boxes, scores = decoded(network(outputs), "nanodet", photo, tmp_path)
    logits = np.concatenate([outputs[f"d{index}"][0] for index in range(3)])
    for row, (x, y, stride) in enumerate(CELLS):
        sides = []
        for side in range(4):
            weights = np.exp(logits[row, BINS * side : BINS * (side + 1)])
            sides.append(stride * sum(index * weight for index, weight in enumerate(weights)) / weights.sum())
        cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
        expected = [cx - sides[0], cy - sides[1], cx + sides[2], cy + sides[3]]
        np.testing.assert_allclose(boxes[row], expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores, np.concatenate([outputs[f"c{index}"][0] for index in range(3)]), atol=1e-6)


def test_nanodet_with_as_many_classes_as_distances_goes_by_order() -> None:
    shapes = {name: array.shape[1:] for name, array in nanodet_outputs(4 * BINS).items()}
    takes = HEADS["nanodet"].decoding(shapes, 4 * BINS, SIDE, SIDE).takes
    assert (takes["class8"], takes["sides8"], takes["class32"], takes["sides32"]) == ("c0", "d0", "c2", "d2")


@pytest.mark.parametrize("joined", [False, True])
def test_rtdetr(joined: bool, network: Network, photo: Path, tmp_path: Path) -> None:
    share, logits = rng.uniform(0.1, 0.9, (1, 20, 4)), rng.normal(size=(1, 20, CLASSES))
    expected = 1 / (1 + np.exp(-logits[0]))
    outputs = {"out": np.concatenate([share, expected[None]], axis=2)} if joined else {"l": logits, "b": share}
    boxes, scores = decoded(network(outputs, shape=(1, 3, 64, 96)), "rtdetr", photo, tmp_path)
    for row in range(20):
        np.testing.assert_allclose(boxes[row], corners(*(share[0, row] * [96, 64, 96, 64])), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert Bundle.read(tmp_path / "model.bin").manifest.predict.iou == 1.0


@pytest.mark.parametrize("layout", ["xyxy", "xywh", "cxcywh", "xywhr"])
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_generic(layout: str, activation: str, network: Network, photo: Path, tmp_path: Path) -> None:
    rows = turned_rows(20) if layout == "xywhr" else rng.uniform(4, 60, (20, 4))
    scores = rng.normal(size=(1, 20, CLASSES)) if activation == "sigmoid" else probabilities(1, 20, CLASSES)
    head = GenericHead(boxes="b", scores="s", layout=layout, activation=activation)
    boxes, found = decoded(network({"s": scores, "b": rows[None]}), head, photo, tmp_path)
    if layout == "xywhr":
        assert_same_rectangles(boxes, rows)
    else:
        for row, (a, b, c, d) in enumerate(rows.tolist()):
            expected = {"xyxy": [a, b, c, d], "xywh": [a, b, a + c, b + d], "cxcywh": corners(a, b, c, d)}[layout]
            np.testing.assert_allclose(boxes[row], expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-scores[0])) if activation == "sigmoid" else scores[0], atol=1e-6)


def test_generic_fractions(network: Network, photo: Path, tmp_path: Path) -> None:
    rows = rng.uniform(0.1, 0.9, (1, 20, 4))
    head = GenericHead(boxes="b", scores="s", unit="fraction", pixels=Pixels("bgr"))
    path = network({"s": probabilities(1, 20, CLASSES), "b": rows}, shape=(1, 3, 64, 96))
    boxes, _ = decoded(path, head, photo, tmp_path)
    np.testing.assert_allclose(boxes, rows[0] * [96, 64, 96, 64], rtol=1e-5)
    assert Bundle.read(tmp_path / "model.bin").manifest.input.color == "bgr"


@pytest.mark.parametrize("head", sorted(HEADS))
def test_other_shapes_are_refused_and_named(head: str) -> None:
    with pytest.raises(UsageError, match=rf"head {head.replace('yolo11', 'yolov8')}.* wants .*; found out \(7, 9\)$"):
        HEADS[head].decoding({"out": (7, 9)}, CLASSES, SIDE, SIDE)


@pytest.mark.parametrize("head", sorted(set(HEADS) - {"rtdetr"}))
def test_sides_that_cells_do_not_fill_are_refused(head: str) -> None:
    with pytest.raises(UsageError, match="multiples of 32; the input is 70x64"):
        HEADS[head].decoding({"out": (7, 9)}, CLASSES, 64, 70)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"boxes": "x"}, "no output 'x'; found b"),
        ({"layout": "yxyx"}, "layout 'yxyx'; possible: xyxy"),
        ({"unit": "mm"}, "unit 'mm'; possible: pixels, fraction"),
        ({"activation": "softmax"}, "activation 'softmax'; possible: none, sigmoid"),
        ({"layout": "xywhr"}, r"wants \(N, 5\) and \(N, 3\); found b \(20, 4\), s \(20, 3\)"),
        ({"layout": "xywhr", "unit": "fraction"}, "wants unit pixels"),
        ({"boxes": "s", "scores": "b"}, r"wants \(N, 4\) and \(N, 3\)"),
    ],
)
def test_generic_heads_that_do_not_fit_are_refused(wrong: dict[str, str], message: str) -> None:
    head = GenericHead(**{"boxes": "b", "scores": "s", **wrong})
    with pytest.raises(UsageError, match=message):
        head.decoding({"b": (20, 4), "s": (20, CLASSES)}, CLASSES, SIDE, SIDE)
