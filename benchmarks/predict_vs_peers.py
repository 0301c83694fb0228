"""One YOLO11n through edgekd, through the bare engines, and through ultralytics: what does each add to the network?

    python benchmarks/predict_vs_peers.py FOLDER --ultralytics-python VENV/bin/python

FOLDER holds yolo11n.onnx and yolo11n_openvino_model/ as ultralytics exports them (640 px; random weights will do).
ultralytics is AGPL-3.0: it runs in a venv of its own, is never a dependency, and without it the rest is measured.

Every contender is a process of its own, and they take turns, so that other work on the machine meets all alike:
time from the start of the process to the first result, peak resident memory, milliseconds outside inference, and
pictures a second for one, two and four calling threads. "Bare" is what a user writes by hand around the engine: the
picture with Pillow, resize, one call, the best scores; no letterbox, no suppression, no checks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from machine import conditions, write

import edgekd
from edgekd._bundle import Bundle

SHARED = Path(os.environ.get("EDGEKD_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
IMAGES = SHARED / "smoke" / "coco20" / "images"
STARTS, ROUNDS, CALLS = 5, 2, 20
CALLERS = (1, 2, 4)

SHELL = """
import json, re, sys, threading, time
kind, model, image, callers, calls = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
{body}
picture = open(image, "rb").read()
first = make()
first(picture)
told = {{"first_at": time.time()}}
for _ in range(5):
    first(picture)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # getrusage's outlives exec
told["peak_bytes"] = 1024 * int(peak[1])
if calls:
    import numpy as np
    from PIL import Image
    picture = np.asarray(Image.open(image).convert("RGB"))  # decoded: that costs all of them the same
    rows = []
    for _ in range(calls):
        start = time.perf_counter()
        inside = first(picture)
        rows.append([1e3 * (time.perf_counter() - start), inside])
    told["rows_ms"] = rows
    each = [first] + [again() for _ in range(callers - 1)]
    def work(call):
        for _ in range(calls // callers):
            call(picture)
    threads = [threading.Thread(target=work, args=(call,)) for call in each]
    start = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    told["per_second"] = callers * (calls // callers) / (time.perf_counter() - start)
print(json.dumps(told))
"""

EDGEKD = """
import edgekd
def make():
    global detector
    mode = "throughput" if callers > 1 else "latency"
    threads = 1 if callers == 1 else 0
    detector = edgekd.load(model, device=kind, threads=threads, mode=mode, cache={cache!r})
    return again()
def again():
    return lambda picture: detector.predict(picture, color="rgb").timings_ms["infer"]
"""

BARE_PREPARE = """
import io
import numpy as np
from PIL import Image
def prepared(picture):
    opened = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else Image.fromarray(picture)
    pixels = np.asarray(opened.convert("RGB").resize((640, 640)), np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None] / 255)
def best(scores):
    return np.flatnonzero(scores.max(axis=-1) > 0.25)
def timed(infer):
    def call(picture):
        pixels = prepared(picture)
        start = time.perf_counter()
        scores = infer(pixels)
        inside = 1e3 * (time.perf_counter() - start)
        best(scores)
        return inside
    return call
"""

BARE_OPENVINO = """
import openvino
def make():
    global compiled
    hint = {"PERFORMANCE_HINT": "THROUGHPUT"} if callers > 1 else {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {**hint, "INFERENCE_PRECISION_HINT": "f32"})
    return again()
def again():
    request = compiled.create_infer_request()
    def infer(pixels):
        request.infer({0: pixels})
        return request.get_tensor("scores").data
    return timed(infer)
"""  # noqa: E501 - as a user writes it

BARE_ONNXRUNTIME = """
import onnxruntime
def make():
    global session
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return again()
def again():
    name = session.get_inputs()[0].name
    return timed(lambda pixels: session.run(["scores"], {name: pixels})[0])
"""

ULTRALYTICS = """
import os, types
os.environ.update(OMP_NUM_THREADS="1")
try:
    import torchvision
    told_of = "torchvision " + torchvision.__version__
except Exception:  # no build of it fits this torch; ultralytics has a suppression of its own for that case
    told_of = "its own suppression, because torchvision cannot be imported"
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    sys.modules["torchvision"] = types.ModuleType("torchvision")
import torch
torch.set_num_threads(1)
import io
from PIL import Image
from ultralytics import YOLO
if not told_of.startswith("torchvision"):
    from ultralytics.utils.nms import TorchNMS
    sys.modules["torchvision"].ops = types.SimpleNamespace(nms=TorchNMS.nms)
def make():
    return again()
def again():  # its documentation says: a model of its own for each thread
    network = YOLO(model, task="detect")
    def call(picture):
        opened = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
        found = network.predict(opened, imgsz=640, verbose=False, device="cpu", rect=False)
        return found[0].speed["inference"]
    return call
"""


class Contender:
    """A script, the interpreter that runs it, and what it loads."""

    def __init__(self, body: str, kind: str, model: Path, python: str = sys.executable) -> None:
        self.code, self.kind, self.model, self.python = SHELL.format(body=body), kind, model, python

    def run(self, image: Path, *, callers: int = 1, calls: int = 0) -> dict[str, Any]:
        """Run it once; "start_s" is from before the process to its first result."""
        words = [self.python, "-c", self.code, self.kind, str(self.model), str(image), str(callers), str(calls)]
        environment = {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
        begin = time.time()
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
        told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        told["start_s"] = told.pop("first_at") - begin
        return told


def contenders(exported: Path, folder: Path, python: str | None) -> dict[str, Contender]:
    """Import and build the network, take the bundle's own files for the bare engines; the ways by name."""
    names, path = folder / "names.txt", folder / "yolo11n.bin"
    names.write_text("".join(f"class{index}\n" for index in range(80)))
    edgekd.import_model(exported / "yolo11n.onnx", path, head="yolo11", classes=names, images=IMAGES)
    edgekd.build(path, targets="openvino")
    with Bundle.read(path) as bundle:
        (artifact,) = (item for item in bundle.manifest.artifacts if item.target == "openvino")
        (folder / "model.xml").write_bytes(zlib.decompress(bundle.file(artifact, "model.xml.z")))
        (folder / "model.bin").write_bytes(bundle.file(artifact, "model.bin"))
        (folder / "model.onnx").write_bytes(bundle.graph())
    plain, cached = EDGEKD.format(cache=None), EDGEKD.format(cache=str(folder / "cache"))
    found = {
        "edgekd, OpenVINO": Contender(plain, "openvino", path),
        "edgekd, OpenVINO, cache": Contender(cached, "openvino", path),
        "bare OpenVINO": Contender(BARE_PREPARE + BARE_OPENVINO, "", folder / "model.xml"),
        "edgekd, ONNX Runtime": Contender(plain, "reference", path),
        "bare ONNX Runtime": Contender(BARE_PREPARE + BARE_ONNXRUNTIME, "", folder / "model.onnx"),
    }
    if python:
        openvino_model = exported / "yolo11n_openvino_model"
        found["ultralytics, OpenVINO"] = Contender(ULTRALYTICS, "", openvino_model, python)
        found["ultralytics, ONNX Runtime"] = Contender(ULTRALYTICS, "", exported / "yolo11n.onnx", python)
    return found


def measure(ways: dict[str, Contender], image: Path, starts: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Run all ways in turn, several times over; raw samples."""
    samples: dict[str, dict[str, Any]] = {
        name: {"start_s": [], "peak_bytes": [], "rows_ms": [], "per_second": {str(n): [] for n in CALLERS}}
        for name in ways
    }
    for turn in range(starts + 1):
        for name, way in ways.items():
            told = way.run(image)
            if "error" in told:
                samples[name]["error"] = told["error"]
            elif turn:  # the first round fills the page cache, and the cache of compiled models
                samples[name]["start_s"].append(told["start_s"])
                samples[name]["peak_bytes"].append(told["peak_bytes"])
    for _ in range(rounds):
        for callers in CALLERS:
            for name, way in ways.items():
                told = way.run(image, callers=callers, calls=CALLS)
                if "error" in told:
                    samples[name]["error"] = told["error"]
                    continue
                samples[name]["per_second"][str(callers)].append(told["per_second"])
                if callers == 1:
                    samples[name]["rows_ms"] += told["rows_ms"]
    return samples


def medians(samples: dict[str, Any]) -> dict[str, Any]:
    """Return the middle of each."""
    if "error" in samples:
        return {"error": samples["error"]}
    outside = [total - inside for total, inside in samples["rows_ms"]]
    return {
        "start_s": statistics.median(samples["start_s"]),
        "peak_mib": statistics.median(samples["peak_bytes"]) / 2**20,
        "total_ms": statistics.median(total for total, _ in samples["rows_ms"]),
        "outside_inference_ms": statistics.median(outside),
        "per_second": {name: statistics.median(values) for name, values in samples["per_second"].items()},
    }


def ratios(middle: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return what the goals are about, where both sides ran."""
    pairs = {
        "start, edgekd over bare OpenVINO": ("edgekd, OpenVINO", "bare OpenVINO", "start_s"),
        "start, edgekd with cache over bare OpenVINO": ("edgekd, OpenVINO, cache", "bare OpenVINO", "start_s"),
        "memory, edgekd over bare OpenVINO": ("edgekd, OpenVINO", "bare OpenVINO", "peak_mib"),
        "memory, edgekd with cache over bare OpenVINO": ("edgekd, OpenVINO, cache", "bare OpenVINO", "peak_mib"),
        "start, edgekd over bare ONNX Runtime": ("edgekd, ONNX Runtime", "bare ONNX Runtime", "start_s"),
        "memory, edgekd over bare ONNX Runtime": ("edgekd, ONNX Runtime", "bare ONNX Runtime", "peak_mib"),
        "outside inference, ultralytics over edgekd": (
            "ultralytics, OpenVINO", "edgekd, OpenVINO", "outside_inference_ms",
        ),
        "start, ultralytics over edgekd": ("ultralytics, OpenVINO", "edgekd, OpenVINO", "start_s"),
        "memory, ultralytics over edgekd": ("ultralytics, OpenVINO", "edgekd, OpenVINO", "peak_mib"),
    }  # fmt: skip
    return {
        name: middle[upper][key] / middle[lower][key]
        for name, (upper, lower, key) in pairs.items()
        if key in middle.get(upper, {}) and key in middle.get(lower, {})
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exported", type=Path, metavar="FOLDER", help="yolo11n.onnx and yolo11n_openvino_model/")
    parser.add_argument("--starts", type=int, default=STARTS, help=f"processes of each (default {STARTS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of latency and throughput (default {ROUNDS})")
    parser.add_argument("--ultralytics-python", metavar="PYTHON", help="of a venv that has ultralytics")
    options = parser.parse_args()
    image = sorted(IMAGES.iterdir())[0]
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        samples = measure(
            contenders(options.exported, Path(folder), options.ultralytics_python),
            image,
            options.starts,
            options.rounds,
        )
    middle = {name: medians(item) for name, item in samples.items()}
    result = {
        "network": "YOLO11n at 640 px, random weights: nothing is found, so nothing is suppressed",
        "threads": "one for start, memory and one caller; for two and four callers each engine's throughput setting",
        "picture": f"{image.name}, as the bytes of its file for the start, decoded before for the rest",
        "medians": middle,
        "ratios": ratios(middle),
        "goals": {
            "outside inference, ultralytics over edgekd": "at least 4",
            "start, edgekd over bare OpenVINO": "at most 1.2",
            "memory, edgekd over bare OpenVINO": "at most 1.15",
        },
        "note": "ways took turns; the load average says what else ran on the cores",
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "samples": samples,
        **conditions("openvino", "onnxruntime", "pillow"),
    }
    write("predict_vs_peers", result)
    for name, item in middle.items():
        if "error" in item:
            print(f"{name:26} {item['error']}")
            continue
        many = ", ".join(f"{count}: {value:.1f}" for count, value in item["per_second"].items())
        print(
            f"{name:26} start {item['start_s']:.2f} s  peak {item['peak_mib']:.0f} MiB  "
            f"outside {item['outside_inference_ms']:.2f} ms of {item['total_ms']:.1f}  a second by callers {many}"
        )
    for name, value in result["ratios"].items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
