"""Where the time of `predict(big, tile=1024, overlap=200)` goes, and whether seams lose or double anything.

    python benchmarks/oriented.py                                  # a hand-made network, a drawn picture
    python benchmarks/oriented.py model.bin --image big.png --conf 0.3  # a real one: times and doubles, no truth

The hand-made network finds bright rectangles of two colours by their moments, with convolutions, exactly; nothing was
trained, and its inference says nothing about a detector's. It sees pieces at seams as a detector does, and the same
weights run on the whole picture of 4000 x 4000 in one pass, with which the tiles are compared. The plain way beside it
is a loop over the same windows, with OpenCV's `NMSBoxesRotated` in each tile and over all of them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
from machine import conditions, write
from onnx import TensorProto, helper, numpy_helper

import edgekd
from edgekd import geometry, ops
from edgekd._bundle import Bundle
from edgekd._manifest import ANGLE, InputSpec, Manifest, OutputSpec, Suppression

if TYPE_CHECKING:
    from edgekd._detector import Detector

SIDE, TILE, OVERLAP = 4000, 1024, 200
WINDOW, STRIDE = 96, 8  # pixels that the network looks at around a point, and between points
PITCH = 100  # pixels between the drawn objects
CLASSES = ("red", "green")
SAME_PX = 0.5  # a corner of one object in two passes
CONF, IOU = 0.6, 0.3


class Graph:
    """Nodes and constants of one ONNX graph, appended in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        """Add a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def op(self, kind: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output; inputs that are no names are constants."""
        names = [item if isinstance(item, str) else self.constant(item) for item in inputs]
        self.nodes.append(helper.make_node(kind, names, [name or f"t{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])


def network(side: int) -> bytes:
    """Return ONNX: images (B, 3, side, side) -> boxes (B, N, 5) xywhr and scores (B, N, 2), N = 2 (side / 8)^2."""
    g = Graph()
    colours = g.op("Slice", "images", *(g.constant([v], np.int64) for v in (0, 2, 1)))
    mask = g.op("Clip", g.op("Div", g.op("Sub", colours, 96.0), 64.0), 0.0, 1.0)
    offset = np.arange(WINDOW, dtype=np.float32) - (WINDOW - 1) / 2
    pad = (WINDOW - STRIDE) // 2
    rows = np.tile(np.stack([offset**0, offset, offset**2]), (2, 1))[:, None, None, :]
    sums = g.op("Conv", mask, rows, strides=[1, STRIDE], pads=[0, pad, 0, pad], group=2)
    columns = np.zeros((12, 3, WINDOW, 1), np.float32)
    for out, (power_y, source) in enumerate([(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)] * 2):
        columns[out, source, :, 0] = offset**power_y
    moments = g.op("Conv", sums, columns, strides=[STRIDE, 1], pads=[pad, 0, pad, 0], group=2)
    points = (side // STRIDE) ** 2
    flat = g.op("Reshape", moments, g.constant([0, 2, 6, points], np.int64))
    split = [f"m{index}" for index in range(6)]
    g.nodes.append(helper.make_node("Split", [flat, g.constant([1] * 6, np.int64)], split, axis=2))
    boxes, scores = _decode(g, split, side)
    g.op("Reshape", g.op("Transpose", boxes, perm=[0, 1, 3, 2]), g.constant([0, 2 * points, 5], np.int64), name="boxes")
    g.op(
        "Reshape",
        g.op("Mul", scores, np.eye(2)[None, :, None]),
        g.constant([0, 2 * points, 2], np.int64),
        name="scores",
    )
    start = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, side, side])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2 * points, columns])
            for name, columns in (("boxes", 5), ("scores", 2))]  # fmt: skip
    graph = helper.make_graph(g.nodes, "moments", [start], ends, g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _decode(g: Graph, moments: list[str], side: int) -> tuple[str, str]:
    """Return boxes (B, 2, 5, points) and scores (B, 2, points, 1): the rectangle that has these moments."""
    area = g.op("Max", moments[0], 1.0)
    x, y, xx, xy, yy = (g.op("Div", item, area) for item in moments[1:])
    xx, yy = (g.op("Sub", square, g.op("Mul", item, item)) for square, item in ((xx, x), (yy, y)))
    xy = g.op("Sub", xy, g.op("Mul", x, y))
    common, half = (g.op("Mul", g.op(kind, xx, yy), 0.5) for kind in ("Add", "Sub"))
    root = g.op("Sqrt", g.op("Add", g.op("Mul", half, half), g.op("Mul", xy, xy)))
    # Half of atan2(xy, half); and a row of n pixels has the variance (n^2 - 1) / 12.
    angle = g.op("Atan", g.op("Div", g.op("Add", xy, 1e-6), g.op("Add", g.op("Add", root, half), 1e-7)))
    sides = [g.op("Sqrt", g.op("Mul", g.op("Max", g.op("Add", g.op(kind, common, root), 1 / 12), 1e-3), 12.0))
             for kind in ("Add", "Sub")]  # fmt: skip
    row, column = np.mgrid[0 : side // STRIDE, 0 : side // STRIDE].reshape(2, 1, 1, 1, -1) * STRIDE + STRIDE / 2
    boxes = g.op("Concat", g.op("Add", x, column[0]), g.op("Add", y, row[0]), *sides, angle, axis=2)
    off = g.op("Add", g.op("Mul", x, x), g.op("Mul", y, y))
    near = g.op("Clip", g.op("Sub", 1.0, g.op("Div", off, 4.0 * STRIDE**2)), 0.0, 1.0)
    fill = g.op("Clip", g.op("Div", area, g.op("Mul", *sides)), 0.0, 1.0)
    there = g.op("Clip", g.op("Div", g.op("Sub", moments[0], 100.0), 50.0), 0.0, 1.0)
    score = g.op("Mul", g.op("Mul", near, fill), there)
    return boxes, g.op("Transpose", score, perm=[0, 1, 3, 2])


def hand_made(folder: Path, side: int) -> Path:
    """Write a bundle of that network; it runs on the reference target."""
    rows = 2 * (side // STRIDE) ** 2
    manifest = Manifest(
        name=f"moments-{side}",
        task="detect",
        classes=CLASSES,
        input=InputSpec(height=side, width=side, pad=0),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(rows, 5), layout="xywhr"),
            OutputSpec(name="scores", kind="scores", shape=(rows, 2), activation="sigmoid"),
        ),
        predict=Suppression(conf=CONF, iou=IOU, max_det=100_000, max_candidates=100_000),
        angle=ANGLE,
    )
    path = folder / f"moments-{side}.bin"
    Bundle.create(manifest, {"graph.onnx": network(side)}).write(path)
    return path


def picture(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (SIDE, SIDE, 3) uint8 RGB and the rectangles drawn on it, (N, 5) xywhr."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
    truth = []
    for row in range(SIDE // PITCH):
        for column in range(SIDE // PITCH):
            if rng.random() < 0.3:
                continue
            centre = (np.array([column, row]) + 0.5) * PITCH + rng.uniform(-10, 10, 2)
            box = [*centre, rng.uniform(30, 56), rng.uniform(14, 26), rng.uniform(-np.pi / 2, np.pi / 2)]
            colour = [0, 0, 0]
            colour[(row + column) % 2] = 255
            corners = geometry.xywhr_to_corners([box])[0] - 0.5  # OpenCV counts from the middle of a pixel
            cv2.fillPoly(image, [np.rint(corners * 256).astype(np.int32)], colour, lineType=cv2.LINE_AA, shift=8)
            truth.append(box)
    return image, np.array(truth, np.float32)


def plain(detector: Detector, image: np.ndarray, conf: float, iou: float) -> tuple[dict[str, float], int]:
    """Run the usual loop; return milliseconds by stage and how many objects it reports."""
    spec, stages = detector.manifest.input, dict.fromkeys(("letterbox", "infer", "suppress", "merge"), 0.0)
    mean, std, parts = np.float32(spec.mean), np.float32(spec.std), []
    for x1, y1, x2, y2 in geometry.windows(*image.shape[:2], TILE, OVERLAP).tolist():
        begin = time.perf_counter()
        crop = cv2.resize(image[y1:y2, x1:x2], (spec.width, spec.height)).astype(np.float32)
        pixels = np.ascontiguousarray(((crop - mean) / std).transpose(2, 0, 1)[None])
        letterboxed = time.perf_counter()
        boxes, scores = (item[0] for item in detector._engine._session.infer(pixels))
        inferred = time.perf_counter()
        boxes, scores, labels = usual_suppression(boxes, scores.max(axis=1), scores.argmax(axis=1), conf, iou)
        scale = (x2 - x1) / spec.width
        parts.append((boxes * np.float32([scale] * 4 + [1]) + np.float32([x1, y1, 0, 0, 0]), scores, labels))
        stages["letterbox"] += letterboxed - begin
        stages["infer"] += inferred - letterboxed
        stages["suppress"] += time.perf_counter() - inferred
    begin = time.perf_counter()
    found = usual_suppression(*(np.concatenate(column) for column in zip(*parts, strict=True)), conf, iou)
    stages["merge"] = time.perf_counter() - begin
    return {name: 1e3 * value for name, value in stages.items()} | {"total": 1e3 * sum(stages.values())}, len(found[0])


def usual_suppression(boxes: Any, best: Any, labels: Any, conf: float, iou: float) -> tuple[Any, Any, Any]:
    """Suppress class by class with OpenCV."""
    rows = []
    for label in np.unique(labels):
        own = np.flatnonzero((labels == label) & (best > conf))
        rects = [((float(x), float(y)), (float(w), float(h)), float(np.rad2deg(r))) for x, y, w, h, r in boxes[own]]
        rows.append(own[np.asarray(cv2.dnn.NMSBoxesRotated(rects, best[own].tolist(), conf, iou), np.int64).ravel()])
    keep = np.concatenate(rows)
    return boxes[keep], best[keep], labels[keep]


def matches(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (N,) how many of `found` have their centre in each rectangle of `truth`."""
    return np.array([(np.hypot(*(found[:, :2] - box[:2]).T) < box[2] / 2).sum() for box in truth])


def check(detector: Detector, whole: Detector, image: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Compare tiles with one pass over the whole picture, object by object."""
    found = detector.predict(image, color="rgb", tile=TILE, overlap=OVERLAP)
    once = whole.predict(image, color="rgb")
    corners, windows = geometry.xywhr_to_corners(truth), geometry.windows(SIDE, SIDE, TILE, OVERLAP)
    low, high = corners.min(axis=1), corners.max(axis=1)
    lines = [np.unique(windows[:, columns]) for columns in ([0, 2], [1, 3])]
    seams = np.zeros(len(truth), bool)
    for axis, borders in enumerate(lines):
        for border in borders[(borders > 0) & (borders < SIDE)]:
            seams |= (low[:, axis] <= border) & (high[:, axis] >= border)
    nearest = [geometry.box_distances(found.boxes, np.repeat(box[None], len(found), 0)).min() for box in once.boxes]
    seen, counted = matches(found.boxes, truth), matches(once.boxes, truth)
    return {
        "objects": len(truth),
        "at_seams": int(seams.sum()),
        "untiled": len(once),
        "tiled": len(found),
        "untiled_wrong": int((counted != 1).sum()),
        "missed": int((seen == 0).sum()),
        "doubled_at_seams": int((seen[seams] > 1).sum()),
        "doubled_elsewhere": int((seen[~seams] > 1).sum()),
        "farthest_corner_px": float(max(nearest)),
    }


def doubles(found: edgekd.Detections, iou: float) -> int:
    """Return how many pairs of one class overlap more than `iou`."""
    boxes = found.boxes if found.oriented else np.concatenate(
        [(found.boxes[:, :2] + found.boxes[:, 2:]) / 2, found.boxes[:, 2:] - found.boxes[:, :2],
         np.zeros((len(found), 1), np.float32)], axis=1)  # fmt: skip
    overlaps = ops.iou_rotated(boxes, boxes) * (found.labels[:, None] == found.labels)
    return int((np.triu(overlaps, 1) > iou).sum())


def main() -> int:
    """Measure, print, write the result; 3 if seams lost or doubled something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", help="model.bin (default: the hand-made network)")
    parser.add_argument("--image", help="the picture for a bundle (default: the drawn one)")
    parser.add_argument("--conf", type=float, help="score threshold (default: the bundle's)")
    parser.add_argument("--runs", type=int, default=3, help="timed rounds")
    options = parser.parse_args()
    drawn, truth = picture()
    image = drawn if options.image is None else cv2.cvtColor(cv2.imread(options.image), cv2.COLOR_BGR2RGB)
    with tempfile.TemporaryDirectory() as name:
        path = options.bundle or hand_made(Path(name), TILE)
        with edgekd.load(path, threads=1) as detector:
            defaults = detector.manifest.predict
            conf = defaults.conf if options.conf is None else options.conf
            found = detector.predict(image, color="rgb", conf=conf, tile=TILE, overlap=OVERLAP)
            print(f"{path} on {detector.info.session.target}: {found}")
            result: dict[str, Any] = {"bundle": options.bundle or "hand-made", "found": len(found)}
            ours, theirs = [], []
            for _ in range(options.runs):
                found = detector.predict(image, color="rgb", conf=conf, tile=TILE, overlap=OVERLAP)
                ours.append(dict(found.timings_ms))
                if found.oriented:
                    stages, result["plain_found"] = plain(detector, image, conf, defaults.iou)
                    theirs.append(stages)
            result |= {"samples_ms": {"predict": ours, "plain": theirs}, "doubles": doubles(found, defaults.iou)}
            if options.bundle is None:
                with edgekd.load(hand_made(Path(name), SIDE), threads=1) as whole:
                    result["check"] = check(detector, whole, drawn, truth)
    return report(result)


def report(result: dict[str, Any]) -> int:
    """Print medians and checks, and write them; return the exit code."""
    for way, samples in result["samples_ms"].items():
        if samples:
            medians = {stage: float(np.median([item[stage] for item in samples])) for stage in samples[0]}
            print(f"{way:8}", "  ".join(f"{stage} {value:.1f} ms" for stage, value in medians.items()))
    print(f"{result['found']} objects, {result['doubles']} overlapping pairs; plain way {result.get('plain_found')}")
    said = result.get("check", {})
    for name, value in said.items():
        print(f"  {name}: {value:g}")
    wrong = result["doubles"] or any(said.get(name) for name in ("missed", "doubled_at_seams", "doubled_elsewhere"))
    wrong = wrong or said.get("farthest_corner_px", 0.0) > SAME_PX
    load = os.getloadavg()[0]
    result = {**conditions("onnxruntime", "opencv-python-headless"), "kernels": ops.implementation(), **result}
    print(f"{write('oriented', {**result, 'load': load})}; load {load:.1f}")
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
