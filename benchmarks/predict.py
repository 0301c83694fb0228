"""What `predict` adds to the network: end-to-end time minus bare inference of the same compiled model, on one core.

    python benchmarks/predict.py                                       # 1080p -> 640 and 640x480 -> 320, 100 detections
    python benchmarks/predict.py --ultralytics-python VENV/bin/python  # and ultralytics (AGPL: a venv of its own)

The network is a small convolutional one whose outputs have the size of a COCO detector's (8400 x 80 at 640) and hold
exactly 100 objects, each seen by 5 overlapping boxes. `predict` and the bare inference are timed in turn in one loop,
and so is the usual chain of OpenCV and NumPy; the raw samples are in results/predict.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import openvino
from machine import conditions, write
from onnx import TensorProto, helper, numpy_helper

import edgekd
from edgekd import ops
from edgekd._bundle import Bundle
from edgekd._manifest import Artifact, InputSpec, Manifest, OutputSpec
from edgekd._target import load_target

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = {"1080p -> 640": ((1080, 1920), 640), "640x480 -> 320": ((480, 640), 320)}
OBJECTS, COPIES, CLASSES = 100, 5, 80
CONF, IOU = 0.25, 0.5
GOAL_MS = 0.7
WARMUP = 10
ROW = 20


def outputs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (N, 4) xyxy and scores (N, 80) float32 of a network that sees 100 objects, 5 boxes each."""
    rng = np.random.default_rng(size)
    count = sum((size // stride) ** 2 for stride in (8, 16, 32))
    corner = rng.random((count, 2)) * size * 0.9
    boxes = np.concatenate([corner, corner + rng.random((count, 2)) * size * 0.1], axis=1)
    scores = rng.random((count, CLASSES)) * 0.1
    cell = size / 10
    rows = rng.permutation(count)[: OBJECTS * COPIES].reshape(OBJECTS, COPIES)
    for index, copies in enumerate(rows):
        x, y = (index % 10 + 0.2) * cell, (index // 10 + 0.2) * cell
        jitter = rng.random((COPIES, 4)) * 0.02 * cell
        boxes[copies] = np.array([x, y, x + 0.6 * cell, y + 0.6 * cell]) + jitter
        scores[copies, rng.integers(CLASSES)] = 0.4 + 0.5 * rng.random(COPIES)
    return boxes.astype(np.float32), scores.astype(np.float32)


def network(size: int, *, raw: bool) -> bytes:
    """Return ONNX bytes; `raw`: one output (1, 4 + 80, N), centre boxes, as ultralytics exports them."""
    rng = np.random.default_rng(0)
    boxes, scores = outputs(size)
    nodes, constants, x, channels = [], [], "images", 3
    for index, (out, stride) in enumerate(((8, 4), (16, 2), (32, 2))):
        weight = rng.normal(0, 0.1, (out, channels, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [x, f"w{index}"], [f"y{index}"], strides=[stride, stride], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index}"]))
        x, channels = f"x{index}", out
    nodes.append(helper.make_node("ReduceMean", [x], ["mean"], axes=[1, 2, 3], keepdims=1))
    constants.append(numpy_helper.from_array(np.float32([1e-12]), "little"))
    constants.append(numpy_helper.from_array(np.int64([-1, 1, 1]), "shape"))
    nodes.append(helper.make_node("Mul", ["mean", "little"], ["small"]))
    nodes.append(helper.make_node("Reshape", ["small", "shape"], ["nothing"]))
    if raw:
        centre = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
        tensors = {"output0": np.concatenate([centre, scores], axis=1).T[None]}
    else:
        tensors = {"boxes": boxes[None], "scores": scores[None]}
    ends = []
    for name, value in tensors.items():
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"{name}_value"))
        nodes.append(helper.make_node("Add", ["nothing", f"{name}_value"], [name]))
        ends.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *value.shape[1:]]))
    start = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1 if raw else "batch", 3, size, size])
    graph = helper.make_graph(nodes, "hundred", [start], ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    names = {index: f"class{index}" for index in range(CLASSES)}
    for key, value in {"names": names, "stride": 32, "task": "detect", "batch": 1, "imgsz": [size, size]}.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def bundle(folder: Path, size: int) -> Path:
    """Write a bundle of that network, built for OpenVINO in fp32."""
    boxes, scores = outputs(size)
    manifest = Manifest(
        name=f"hundred-{size}",
        task="detect",
        classes=tuple(f"class{index}" for index in range(CLASSES)),
        input=InputSpec(height=size, width=size, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=boxes.shape, layout="xyxy"),
            OutputSpec(name="scores", kind="scores", shape=scores.shape, activation="sigmoid"),
        ),
    )
    path = folder / f"hundred-{size}.bin"
    with Bundle.create(manifest, {"graph.onnx": network(size, raw=False)}) as portable:
        built = load_target("openvino").build(portable, "fp32", lambda _: None)
        chunks = {name: f"openvino/fp32/{name}" for name in built.files}
        artifact = Artifact(target="openvino", precision="fp32", files=chunks, tools=dict(built.tools))
        contents = {chunks[name]: content for name, content in built.files.items()}
        portable.replace(manifest=dataclasses.replace(manifest, artifacts=(artifact,)), add=contents).write(path)
    return path


def chain(image: np.ndarray, size: int, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Letterbox the usual way: OpenCV and NumPy; return (1, 3, size, size) float32."""
    scale = min(size / image.shape[0], size / image.shape[1])
    high, wide = round(image.shape[0] * scale), round(image.shape[1] * scale)
    top, left = (size - high) // 2, (size - wide) // 2
    resized = cv2.resize(image, (wide, high), interpolation=cv2.INTER_LINEAR)
    border = (top, size - high - top, left, size - wide - left)
    framed = cv2.copyMakeBorder(resized, *border, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    planes = np.ascontiguousarray(framed[:, :, ::-1].transpose(2, 0, 1)).astype(np.float32)
    planes -= mean
    planes /= std
    return planes[None]


def chain_suppress(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Filter and suppress the usual way: NumPy and OpenCV; return the kept rows' indices."""
    labels = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), labels]
    chosen = best > CONF
    xywh = boxes[chosen].copy()
    xywh[:, 2:] -= xywh[:, :2]
    kept = cv2.dnn.NMSBoxesBatched(xywh.tolist(), best[chosen].tolist(), labels[chosen].tolist(), CONF, IOU)
    return np.flatnonzero(chosen)[np.asarray(kept, int)]


def clock(function: Callable[[], Any]) -> tuple[float, float]:
    """Return milliseconds of one call: on the wall, and of CPU, which does not count what other processes took."""
    start, cpu = time.perf_counter(), time.process_time()
    function()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu)


def measure(path: Path, shape: tuple[int, int], size: int, runs: int) -> dict[str, Any]:
    """Time predict, bare inference, the chain and the stages, in turn, then the first two in rows; samples in ms."""
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8), (0, 0), 3)
    samples: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {}
    with edgekd.load(path, device="openvino", threads=1) as detector:
        timed = contenders(detector, image, size, stages)
        for run in range(runs + WARMUP):
            for name, function in timed.items():
                wall, cpu = clock(function)
                if run >= WARMUP:
                    samples.setdefault(name, []).append(wall)
                    samples.setdefault(f"{name} cpu", []).append(cpu)
        for _ in range(max(runs // ROW, 1)):  # and as on a device that does nothing else
            for name in ("predict", "infer"):
                row = [clock(timed[name])[0] for _ in range(ROW)]
                samples.setdefault(f"{name} in a row", []).extend(row)
    return {"samples_ms": samples, "stages_ms": {name: values[-runs:] for name, values in stages.items()}}


def contenders(
    detector: edgekd.Detector, image: np.ndarray, size: int, stages: dict[str, list[float]]
) -> dict[str, Callable[[], Any]]:
    """Return what is timed, by name; each was checked to find the hundred objects."""
    spec = detector.manifest.input
    mean, std = np.float32(spec.mean)[:, None, None], np.float32(spec.std)[:, None, None]
    found = detector.predict(image, conf=CONF, iou=IOU)
    assert len(found) == OBJECTS, f"{len(found)} detections"
    (pixels, _), held = detector._pipeline._pixels(1), detector._pipeline._outputs(1)  # predict's own: as warm
    assert np.abs(pixels - chain(image, size, mean, std)).max() < 0.05
    request = detector._engine._session._compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(pixels, shared_memory=True))
    request.infer()
    boxes, scores = (request.get_tensor(name).data[0] for name in ("boxes", "scores"))
    assert len(chain_suppress(boxes, scores)) == OBJECTS
    return {
        "predict": lambda: stages_of(detector.predict(image, conf=CONF, iou=IOU), stages),
        "infer": request.infer,
        "session": lambda: detector._engine._session.infer(pixels, held),
        "opencv letterbox": lambda: chain(image, size, mean, std),
        "opencv suppress": lambda: chain_suppress(boxes, scores),
        "opencv resize": lambda: cv2.resize(image, (size, size * image.shape[0] // image.shape[1])),
    }


def stages_of(found: Any, stages: dict[str, list[float]]) -> None:
    """Append what one prediction says about its own stages."""
    for name, value in found.timings_ms.items():
        stages.setdefault(name, []).append(value)


def kernels_alone(runs: int) -> dict[str, Any]:
    """Time each kernel by itself against OpenCV; return raw samples in milliseconds and medians."""
    rng = np.random.default_rng(2)
    image, planes = rng.integers(0, 256, (1080, 1920, 3), np.uint8), np.empty((3, 640, 640), np.float32)
    _, scores = outputs(640)
    centre, half = rng.random((1000, 2)) * 640, (rng.random((1000, 2)) * 128 + 2) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
    best = rng.random(1000).astype(np.float32)
    rows = [(float(x), float(y), float(w), float(h)) for x, y, w, h in np.hstack([boxes[:, :2], 2 * half])]
    options = {"swap": True, "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    assert len(ops.nms(boxes, best, IOU)) == len(cv2.dnn.NMSBoxes(rows, best.tolist(), 0.0, IOU))
    timed: dict[str, Callable[[], Any]] = {
        "letterbox 1080p -> 640": lambda: ops.letterbox(image, 640, 640, **options, out=planes),
        "cv2.resize 1080p -> 640": lambda: cv2.resize(image, (640, 360)),
        "candidates 8400 x 80": lambda: ops.candidates(scores, CONF, 3000),
        "nms 1000": lambda: ops.nms(boxes, best, IOU),
        "cv2.dnn.NMSBoxes 1000": lambda: cv2.dnn.NMSBoxes(rows, best.tolist(), 0.0, IOU),
    }
    samples: dict[str, list[float]] = {name: [] for name in timed}
    for name, function in timed.items():  # each by itself, as warm as the other
        rounds = [clock(function)[0] for _ in range(runs + WARMUP)]
        samples[name] = rounds[WARMUP:]
    return {"samples_ms": samples, "median_ms": {name: float(np.median(values)) for name, values in samples.items()}}


def summarise(case: dict[str, Any]) -> dict[str, float]:
    """Return medians in milliseconds and the ratio to the usual chain."""
    median = {name: float(np.median(values)) for name, values in case["samples_ms"].items()}
    samples = {name: np.array(values) for name, values in case["samples_ms"].items()}
    overhead = samples["predict"] - samples["infer"]
    usual = median["opencv letterbox"] + median["opencv suppress"]
    return {
        **{f"{name}_ms": value for name, value in median.items()},
        **{f"stage {name}_ms": float(np.median(values)) for name, values in case["stages_ms"].items()},
        "overhead_ms": float(np.median(overhead)),
        "overhead_in_a_row_ms": median["predict in a row"] - median["infer in a row"],
        "overhead_cpu_ms": float(np.median(samples["predict cpu"] - samples["infer cpu"])),
        "overhead_p95_ms": float(np.percentile(overhead, 95)),
        "usual_chain_ms": usual,
        "chain_over_ours": usual / float(np.median(overhead)),
    }


ULTRALYTICS = """
import json, sys, time, types
import numpy as np, torch
torch.set_num_threads(1)
try:
    import torchvision
    suppression = "torchvision " + torchvision.__version__
except Exception as error:  # its binary does not fit this torch; ultralytics has its own NMS for where it is missing
    suppression = "ultralytics' own NMS, because torchvision cannot be imported: " + str(error)
    sys.modules["torchvision"] = types.ModuleType("torchvision")
import ultralytics
from ultralytics import YOLO
from ultralytics.utils.nms import TorchNMS
if not suppression.startswith("torchvision"):
    sys.modules["torchvision"].ops = types.SimpleNamespace(nms=TorchNMS.nms)
path, height, width, size, runs = sys.argv[1], *map(int, sys.argv[2:])
image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
model = YOLO(path, task="detect")
options = dict(imgsz=size, conf=0.25, iou=0.5, verbose=False, device="cpu", rect=False)
rows = []
for run in range(runs + 10):
    start = time.perf_counter()
    found = model.predict(image, **options)[0]
    rows.append({"total": 1e3 * (time.perf_counter() - start), **found.speed, "found": len(found)})
versions = {"ultralytics": ultralytics.__version__, "torch": torch.__version__, "suppression": suppression}
print(json.dumps({**versions, "rows": rows[10:]}))
"""


def ultralytics(python: str, folder: Path, shape: tuple[int, int], size: int, runs: int) -> dict[str, Any]:
    """Time ultralytics' predict on the same outputs in its own interpreter; an error is part of the result."""
    path = folder / f"raw-{size}.onnx"
    path.write_bytes(network(size, raw=True))
    arguments = [python, "-c", ULTRALYTICS, str(path), *map(str, (*shape, size, runs))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    rows = result.pop("rows")
    samples = {name: [row[name] for row in rows] for name in rows[0]}
    outside = [row["preprocess"] + row["postprocess"] for row in rows]
    overhead = [row["total"] - row["inference"] for row in rows]
    result |= {"pre_and_post_ms": float(np.median(outside)), "overhead_ms": float(np.median(overhead))}
    return {**result, "samples_ms": samples}


def report(name: str, case: dict[str, Any]) -> None:
    """Print the medians of one case."""
    median = case["median"]
    print(f"\n{name}: {OBJECTS} detections, medians in ms")
    print(
        f"  predict {median['predict_ms']:.3f} - infer {median['infer_ms']:.3f} = {median['overhead_ms']:.3f}", end=""
    )
    print(f"  (p95 {median['overhead_p95_ms']:.3f}, of CPU {median['overhead_cpu_ms']:.3f}; goal {GOAL_MS})")
    print(f"  {ROW} in a row: {median['overhead_in_a_row_ms']:.3f}")
    stages = ", ".join(f"{stage} {median[f'stage {stage}_ms']:.3f}" for stage in ("decode", "letterbox", "suppress"))
    print(f"  of which {stages}, session's own {median['session_ms'] - median['infer_ms']:.3f}")
    parts = f"{median['opencv letterbox_ms']:.3f} + {median['opencv suppress_ms']:.3f}"
    print(f"  OpenCV and NumPy: {parts}, {median['chain_over_ours']:.1f} times ours; cv2.resize alone", end=" ")
    print(f"{median['opencv resize_ms']:.3f}")
    if other := case.get("ultralytics"):
        told = (
            other.get("error")
            or f"pre + post {other['pre_and_post_ms']:.3f}, all but inference {other['overhead_ms']:.3f}"
        )
        print(f"  ultralytics: {told}")


def main() -> int:
    """Run the cases, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="timed rounds per case")
    parser.add_argument("--core", type=int, default=0, help="CPU core everything runs on")
    parser.add_argument("--ultralytics-python", help="interpreter of a venv that has ultralytics")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    cv2.setNumThreads(1)
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, (shape, size) in CASES.items():
            cases[case] = measure(bundle(folder, size), shape, size, options.runs)
            cases[case]["median"] = summarise(cases[case])
            if options.ultralytics_python:
                python = options.ultralytics_python
                cases[case]["ultralytics"] = ultralytics(python, folder, shape, size, options.runs)
            report(case, cases[case])
    alone = kernels_alone(options.runs)
    print("\nKernels by themselves, medians in ms")
    for name, value in alone["median_ms"].items():
        print(f"  {name}: {value:.3f}")
    load = os.getloadavg()[0]
    result = {**conditions("openvino", "opencv-python-headless"), "kernels": ops.implementation(), "load": load}
    print(f"\n{write('predict', {**result, 'cores_used': 1, 'cases': cases, 'alone': alone})}; load {load:.1f}")
    return 0 if all(case["median"]["overhead_ms"] <= GOAL_MS for case in cases.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
