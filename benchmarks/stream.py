"""How close does `Detector.stream` on a video come to the bare engine, and to reading and predicting in turn?

    python benchmarks/stream.py

YOLOX-nano (416 px) on OpenVINO, one thread, and a real video of 377 frames of 768x432 (the sets of ../shared/data). The
three ways are timed in turn, several times over; frames per second of each, and ratios, in results/stream.json.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from machine import conditions, write

import edgekd

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = Path(os.environ.get("EDGEKD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
VIDEO = SHARED / "smoke" / "video" / "car-detection.mp4"
FRAMES = 377
ROUNDS = 5
GOAL = 0.95


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.bin"
        weights = SHARED / "weights"
        edgekd.import_model(
            weights / "yolox_nano_416_coco.onnx", model, head="yolox", classes=weights / "coco_names_80.txt",
            images=SHARED / "smoke" / "coco20" / "images",
        )  # fmt: skip
        edgekd.build(model, targets="openvino")
        with edgekd.load(model, device="openvino", threads=1) as detector:
            detector.warmup()
            ways: dict[str, Callable[[edgekd.Detector], None]] = {
                "engine": engine,
                "in turn": in_turn,
                "stream": stream,
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    start = time.perf_counter()
                    way(detector)
                    seconds[name].append(time.perf_counter() - start)
    ratios = [bare / whole for bare, whole in zip(seconds["engine"], seconds["stream"], strict=True)]
    result = {
        "video": f"{VIDEO.name}, {FRAMES} frames of 768x432",
        "network": "YOLOX-nano 416, OpenVINO fp32, one thread",
        "seconds": seconds,
        "fps": {name: FRAMES / statistics.median(taken) for name, taken in seconds.items()},
        "stream_over_engine": statistics.median(ratios),
        "goal": GOAL,
        **conditions("openvino", "opencv-python-headless"),
    }
    write("stream", result)
    for name, fps in result["fps"].items():
        print(f"{name:8}  {fps:6.1f} frames a second")
    print(f"stream over bare engine: {result['stream_over_engine']:.2f} (goal {GOAL})")


def engine(detector: edgekd.Detector) -> None:
    """Run the engine alone, on grey."""
    spec = detector.manifest.input
    pixels = np.full((1, 3, spec.height, spec.width), 114, np.float32)
    for _ in range(FRAMES):
        detector._engine._session.infer(pixels)


def in_turn(detector: edgekd.Detector) -> None:
    """Read a frame, predict, read the next."""
    capture = cv2.VideoCapture(str(VIDEO))
    count = 0
    while True:
        good, frame = capture.read()
        if not good:
            break
        detector.predict(frame)
        count += 1
    assert count == FRAMES


def stream(detector: edgekd.Detector) -> None:
    """Read and predict at the same time."""
    assert sum(1 for _ in detector.stream(VIDEO)) == FRAMES


if __name__ == "__main__":
    main()
