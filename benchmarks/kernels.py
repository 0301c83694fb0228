"""What the kernels cost, as ratios to OpenCV and to NumPy or torch chains in the same run, and how cost grows.

    python benchmarks/kernels.py          # results/kernels.json and docs/pictures/rotated-nms.png

One thread. Each figure is the median of repeated calls; what is compared takes turns of 10 ms. Random boxes:
centres in a square of 1024 pixels, sides 4 to 100 pixels, any angle, scores uniform, threshold 0.1. In the series
over N the square grows with N, so that each box keeps about as many neighbours.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from machine import conditions, write

from edgekd import geometry, ops

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "rotated-nms.png"
THRESHOLD = 0.1
GOALS_MS = {
    "rotated NMS, 1000": 1.0,
    "rotated NMS, 10000": 25.0,
    "NMS, 1000": 0.2,
    "letterbox 1080p -> 640": 0.5,
    "anomaly map 256 -> 1080p": 3.0,
}


def rotated(count: int, span: float = 1024, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = [
        rng.uniform(0, span, (count, 2)),
        rng.uniform(4, 100, (count, 2)),
        rng.uniform(-np.pi / 2, np.pi / 2, (count, 1)),
    ]
    return np.concatenate(columns, axis=1).astype(np.float32), rng.random(count).astype(np.float32)


def upright(count: int) -> tuple[np.ndarray, np.ndarray]:
    boxes, scores = rotated(count)
    return np.concatenate([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2], axis=1), scores


def in_turn(calls: dict[str, Callable[[], Any]], seconds: float = 2.0) -> dict[str, float]:
    """Return the median of each call in ms; they take turns of about 10 ms, at least 5 rounds, `seconds` in all."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    stop, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < stop or rounds < 5:
        for name, call in calls.items():
            end_of_turn = time.perf_counter() + 0.01
            while True:
                begin = time.perf_counter()
                call()
                samples[name].append(1000 * (time.perf_counter() - begin))
                if time.perf_counter() >= end_of_turn:
                    break
        rounds += 1
    return {name: statistics.median(values) for name, values in samples.items()}


def opencv_rotated(boxes: np.ndarray, scores: np.ndarray) -> Callable[[], Any]:
    rectangles = [((x, y), (w, h), float(np.degrees(r))) for x, y, w, h, r in boxes.tolist()]
    confidences = scores.tolist()
    return lambda: cv2.dnn.NMSBoxesRotated(rectangles, confidences, 0.0, THRESHOLD)


def opencv_upright(boxes: np.ndarray, scores: np.ndarray) -> Callable[[], Any]:
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
    confidences = scores.tolist()
    return lambda: cv2.dnn.NMSBoxes(corners, confidences, 0.0, THRESHOLD)


def torch_upright(boxes: np.ndarray, scores: np.ndarray) -> Callable[[], Any]:
    """The usual loop of those who have no torchvision: one row of overlaps for each box that stays."""
    tensor, ranks = torch.from_numpy(boxes), torch.from_numpy(scores).argsort(descending=True, stable=True)

    def run() -> list[int]:
        order, kept = ranks, []
        areas = (tensor[:, 2] - tensor[:, 0]) * (tensor[:, 3] - tensor[:, 1])
        while len(order):
            best, rest = order[0], order[1:]
            kept.append(int(best))
            low = torch.maximum(tensor[best, :2], tensor[rest, :2])
            inter = (torch.minimum(tensor[best, 2:], tensor[rest, 2:]) - low).clamp(min=0).prod(1)
            order = rest[inter / (areas[best] + areas[rest] - inter) <= THRESHOLD]
        return kept

    return run


def peers() -> dict[str, dict[str, float]]:
    """Time each operation beside what others offer for it."""
    rows: dict[str, dict[str, float]] = {}
    for count in (300, 1000, 3000, 10_000):
        boxes, scores = rotated(count)
        calls: dict[str, Callable[[], Any]] = {"ours": lambda b=boxes, s=scores: ops.nms_rotated(b, s, THRESHOLD)}
        if count <= 3000:
            calls["OpenCV"] = opencv_rotated(boxes, scores)
        if count <= 1000:
            calls["NumPy reference"] = lambda b=boxes, s=scores: geometry.nms_rotated(b, s, THRESHOLD)
        rows[f"rotated NMS, {count}"] = in_turn(calls)
    for count in (300, 1000, 5000):
        boxes, scores = upright(count)
        rows[f"NMS, {count}"] = in_turn(
            {
                "ours": lambda b=boxes, s=scores: ops.nms(b, s, THRESHOLD),
                "OpenCV": opencv_upright(boxes, scores),
                "torch loop": torch_upright(boxes, scores),
            }
        )
    thousand = rotated(1000)[0]
    rows["rotated IoU, 1000 x 1000"] = in_turn(
        {
            "ours": lambda: ops.iou_rotated(thousand, thousand),
            "ours, float64": lambda: ops.iou_rotated(thousand, thousand, dtype=np.float64),
            "NumPy reference": lambda: geometry.iou_rotated(thousand, thousand),
        }
    )
    rows.update(pictures())
    rows["anomaly map 256 -> 1080p"] = in_turn(anomaly())
    return rows


def anomaly() -> dict[str, Callable[[], Any]]:
    """About 20 blobs on noise: blur, resize, threshold, components, beside the usual chain of OpenCV."""
    rng = np.random.default_rng(0)
    raw = rng.random((256, 256), np.float32) * 0.2
    for x, y in rng.integers(10, 240, (20, 2)):
        raw[y : y + 8, x : x + 8] += 1
    out = np.empty((1080, 1920), np.float32), np.empty((1080, 1920), bool)

    def chain() -> Any:
        smooth = cv2.GaussianBlur(raw, (33, 33), 4, borderType=cv2.BORDER_REFLECT_101)
        large = cv2.resize(smooth, (1920, 1080), interpolation=cv2.INTER_LINEAR)
        return cv2.connectedComponentsWithStats((large > 0.3).astype(np.uint8), connectivity=8)

    return {
        "ours": lambda: ops.anomaly_regions(raw, 1080, 1920, sigma=4.0, threshold=0.3, min_area=400, out=out),
        "OpenCV chain": chain,
    }


def pictures() -> dict[str, dict[str, float]]:
    """Time the letterbox beside OpenCV's usual chain."""
    image = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    out, mean, std = np.empty((3, 640, 640), np.float32), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)

    def chain() -> np.ndarray:
        canvas = np.full((640, 640, 3), 114, np.uint8)
        canvas[140:500] = cv2.resize(image, (640, 360), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(canvas[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32) / 255

    return {
        "letterbox 1080p -> 640": in_turn(
            {
                "ours": lambda: ops.letterbox(image, 640, 640, swap=True, mean=mean, std=std, out=out),
                "OpenCV and NumPy chain": chain,
                "OpenCV, resize alone": lambda: cv2.resize(image, (640, 360), interpolation=cv2.INTER_LINEAR),
            }
        )
    }


def growth() -> dict[str, list[dict[str, float]]]:
    """Time rotated NMS against N at one density, and at N = 3000 against density."""
    series: dict[str, list[dict[str, float]]] = {"boxes": [], "density": []}
    for count in (100, 300, 1000, 3000, 10_000, 30_000, 100_000):
        boxes, scores = rotated(count, 1024 * (count / 1000) ** 0.5)
        cost = in_turn({"ours": lambda b=boxes, s=scores: ops.nms_rotated(b, s, THRESHOLD)}, 1.0)["ours"]
        series["boxes"].append({"boxes": count, "ms": cost, "kept": len(ops.nms_rotated(boxes, scores, THRESHOLD))})
    for threshold in (THRESHOLD, 0.9):  # at 0.9 hardly any box goes, so that each meets all its neighbours
        for span in (100_000, 10_000, 3000, 1024, 300, 100, 30, 1):
            boxes, scores = rotated(3000, span)
            meets = float((ops.iou_rotated(boxes, boxes) > 0).sum(1).mean()) - 1
            cost = in_turn({"ours": lambda b=boxes, s=scores, t=threshold: ops.nms_rotated(b, s, t)}, 1.0)["ours"]
            kept = len(ops.nms_rotated(boxes, scores, threshold))
            series["density"].append({"threshold": threshold, "meets": meets, "ms": cost, "kept": kept})
    return series


def draw(series: dict[str, list[dict[str, float]]], rows: dict[str, dict[str, float]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    left.loglog([row["boxes"] for row in series["boxes"]], [row["ms"] for row in series["boxes"]], "o-", label="edgekd")
    known = [(count, rows[f"rotated NMS, {count}"]["OpenCV"]) for count in (300, 1000, 3000)]
    left.loglog(*zip(*known, strict=True), "s--", label="OpenCV NMSBoxesRotated")
    left.set(xlabel="boxes (each meets about as many others)", ylabel="ms, one thread", title="Rotated NMS against N")
    for threshold, style in ((THRESHOLD, "o-"), (0.9, "s-")):
        points = [row for row in series["density"] if row["threshold"] == threshold]
        label = f"IoU {threshold}"
        right.loglog([max(row["meets"], 0.01) for row in points], [row["ms"] for row in points], style, label=label)
    right.set(xlabel="other boxes that a box meets", ylabel="ms, one thread", title="3000 boxes against density")
    for axes in (left, right):
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows, series = peers(), growth()
    for name, row in rows.items():
        goal = f" (goal {GOALS_MS[name]} ms)" if name in GOALS_MS else ""
        figures = (f"{who} {ms:.3f} ms = {ms / row['ours']:.1f}x" for who, ms in row.items() if who != "ours")
        print(f"{name}: ours {row['ours']:.3f} ms{goal}; {', '.join(figures)}", file=sys.stderr)
    result = {
        "implementation": ops.implementation(), "load": os.getloadavg()[0], "median_ms": rows, "goals_ms": GOALS_MS,
        "growth": series, **conditions("torch", "opencv-python-headless"),
    }  # fmt: skip
    write("kernels", result)
    draw(series, rows)


if __name__ == "__main__":
    main()
