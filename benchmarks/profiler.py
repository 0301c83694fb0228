"""Is `edgekd profile` honest? Known latencies, rails and throttling are found; stages add up; measuring costs little.

    python benchmarks/profiler.py            # 2 min; writes results/profiler.json; exit code 1 if a promise is broken

1. A device that is none: its latencies (with outliers), its power rail and a throttle from the middle on are known.
   Every figure has to be right to 2 %, the slowest call has to be there, the throttle has to be found.
2. On this machine: what of a call no stage accounts for is at most 3 % of it.
3. On this machine: calls under `measure` and bare calls of `predict`, in turn, in blocks; measuring may cost 2 %.
4. How much of `infer` the runtime's own times by layer add up to (no promise: their clocks cost time).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import machine
import numpy as np

from edgekd import Bundle
from edgekd._detector import start
from edgekd._manifest import Artifact, InputSpec, Manifest, OutputSpec
from edgekd._recipe import InputConfig, ModelConfig
from edgekd._target import load_target
from edgekd.profiling.layers import layer_times
from edgekd.profiling.record import TOTAL, Profile
from edgekd.profiling.run import Pace, measure
from edgekd.profiling.run import machine as described
from edgekd.profiling.sensors import Sensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIZE, CLASSES = 320, 5
BLOCKS, CALLS = 30, 40
CLOSE, STAGES, COST = 0.02, 0.03, 0.02  # what is promised
RAIL = "sys/class/hwmon/hwmon0"
THROTTLE = "sys/class/thermal/cooling_device0"


class Known:
    """Takes as long as it is told and says how long it really took; power and throttle change in the middle."""

    def __init__(self, root: Path, calls: int) -> None:
        rng = np.random.default_rng(3)
        self.told_ms = np.where(np.arange(calls) % 97 == 50, 60.0, rng.lognormal(2.0, 0.25, calls))
        self.root, self.taken_ms = root, []
        self.halfway_s = self.begun_s = 0.0
        for name, text in {
            f"{RAIL}/in1_label": "VDD",
            f"{RAIL}/in1_input": "5000",
            f"{THROTTLE}/type": "cpu-throttle",
        }.items():
            self.write(name, text)
        self.power(1.0)
        self.write(f"{THROTTLE}/cur_state", "0")

    def write(self, name: str, text: str) -> None:
        """Write a file at once, as the kernel shows it: a sensor that is read meanwhile sees the old or the new."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)

    def power(self, amperes: float) -> None:
        """Set the current of the rail; its voltage is 5 V."""
        self.write(f"{RAIL}/curr1_input", str(int(1000 * amperes)))

    def predict(self, _image: Any) -> Any:
        """Be busy for as long as this call is told to take."""
        begin = time.perf_counter()
        self.begun_s = self.begun_s or begin
        if len(self.taken_ms) == len(self.told_ms) // 2:
            self.power(3.0)
            self.write(f"{THROTTLE}/cur_state", "1")
            self.halfway_s = time.perf_counter()
        while time.perf_counter() - begin < self.told_ms[len(self.taken_ms)] / 1e3:
            pass
        taken = 1e3 * (time.perf_counter() - begin)
        self.taken_ms.append(taken)
        return SimpleNamespace(timings_ms={"infer": 0.9 * taken, TOTAL: 0.9 * taken})


def synthetic() -> dict[str, Any]:
    """Measure what is known; return what was known and what was found."""
    calls = 970
    with tempfile.TemporaryDirectory() as folder:
        device = Known(Path(folder), calls)
        found = measure(device.predict, [None], Pace(calls, 0, None), Sensors(Path(folder)))
        ended_s = time.perf_counter()
    profile = _profile(found, {"processor": "none"})
    known = np.asarray(device.taken_ms)
    energy = 1e3 * (5.0 * (device.halfway_s - device.begun_s) + 15.0 * (ended_s - device.halfway_s)) / calls
    rows = {
        name: (value, getattr(profile.summary[TOTAL], name))
        for name, value in {
            "mean": known.mean(), "p50": np.percentile(known, 50), "p90": np.percentile(known, 90),
            "p99": np.percentile(known, 99), "max": known.max(),
        }.items()
    }  # fmt: skip
    rows["energy mJ"] = (energy, profile.energy_mj()["VDD"])
    return {
        "figures": {
            name: {"known": float(a), "found": float(b), "error": float(b / a - 1)} for name, (a, b) in rows.items()
        },
        "throttle found": any(line.startswith("it throttled") for line in found.problems),
        "outliers": {"known": int((known > 50).sum()), "found": int((np.asarray(found.stages_ms[TOTAL]) > 50).sum())},
    }  # fmt: skip


def _profile(found: Any, about: dict[str, Any]) -> Profile:
    return Profile(
        name="", digest="", session={}, machine=about, images="", fps=None, load_ms=0, first_ms=0,
        peak_memory_bytes=0, **found._asdict(),
    )  # fmt: skip


def bundle(target: str) -> Bundle:
    """Return an untrained student of the demo's size with an artifact of a target."""
    import torch

    from edgekd.training.export import export_onnx
    from edgekd.training.models import build_model

    size = InputConfig(height=SIZE, width=SIZE)
    config = ModelConfig(backbone="csp-tiny", width=0.5, channels=32, head_depth=1, levels=(3, 4, 5))
    model = build_model(config, CLASSES, size, seed=0).eval()
    with torch.no_grad():
        rows = model(torch.zeros(1, 3, SIZE, SIZE))[0].shape[1]
    manifest = Manifest(
        name="student", task="detect", classes=tuple("abcde"), input=InputSpec(height=SIZE, width=SIZE),
        outputs=(
            OutputSpec(name="boxes", kind="boxes", shape=(rows, 4), layout="xyxy"),
            OutputSpec(name="scores", kind="scores", shape=(rows, CLASSES), activation="sigmoid"),
        ),
    )  # fmt: skip
    made = Bundle.create(manifest, {"graph.onnx": export_onnx(model, size)})
    built = load_target(target).build(made, "fp32", lambda _: None)
    files = {name: f"artifacts/{target}/{name}" for name in built.files}
    artifact = Artifact(target=target, precision="fp32", files=files, options=dict(built.options), tools={})
    chunks = {files[name]: content for name, content in built.files.items()}
    return made.replace(_with(manifest, artifact), chunks)


def _with(manifest: Manifest, artifact: Artifact) -> Manifest:
    import dataclasses

    return dataclasses.replace(manifest, artifacts=(artifact,))


def here(target: str) -> dict[str, Any]:
    """Measure a real `predict` bare and under `measure`, in turn."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    made = bundle(target)
    layers, why = layer_times(made, target, "fp32", 1, image, 50)
    with start(made, target, "fp32", 1) as detector:

        def predict(shown: Any) -> Any:
            return detector.predict(shown, color="rgb")

        for _ in range(2 * CALLS):
            predict(image)
        bare: list[list[float]] = []
        measured: list[Any] = []
        for block in range(BLOCKS):
            for kind in ("bare", "measured") if block % 2 else ("measured", "bare"):
                if kind == "bare":
                    bare.append(_bare(predict, image))
                else:
                    measured.append(measure(predict, [image], Pace(CALLS, 0, None), Sensors()))
    stages = {name: [value for item in measured for value in item.stages_ms[name]] for name in measured[0].stages_ms}
    total, other = (np.asarray(stages[name]) for name in (TOTAL, "other"))
    pairs = [
        statistics.median(item.stages_ms[TOTAL]) / statistics.median(samples) - 1
        for item, samples in zip(measured, bare, strict=True)
    ]
    infer, layers_ms = float(np.median(stages["infer"])), sum(item.ms for item in layers)
    return {
        "calls": len(total),
        "median ms": {name: float(np.median(values)) for name, values in stages.items()},
        "unaccounted": float(np.median(other / total)),
        "cost of measuring": float(np.median(pairs)),
        "cost, blocks": {"p25": float(np.percentile(pairs, 25)), "p75": float(np.percentile(pairs, 75))},
        "layers": {"count": len(layers), "missing": why, "ms": layers_ms, "of infer": layers_ms / infer},
        "bare ms": bare,
        "measured ms": [item.stages_ms[TOTAL] for item in measured],
    }  # fmt: skip


def _bare(predict: Callable[[Any], Any], image: NDArray[np.uint8]) -> list[float]:
    samples = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        predict(image)
        samples.append(1e3 * (time.perf_counter() - begin))
    return samples


def main() -> int:
    """Measure all; write and judge it."""
    known = synthetic()
    found = {target: here(target) for target in ("openvino", "reference")}
    broken = [
        f"{name} is off by {row['error']:.1%}" for name, row in known["figures"].items() if abs(row["error"]) > CLOSE
    ]
    broken += [] if known["throttle found"] else ["the throttle was not found"]
    broken += [] if known["outliers"]["known"] == known["outliers"]["found"] else ["outliers are missing"]
    for target, row in found.items():
        for name, limit in (("unaccounted", STAGES), ("cost of measuring", COST)):
            if row[name] > limit:
                broken.append(f"{target}: {name} {row[name]:.1%}, promised {limit:.0%}")
    conditions = machine.conditions("openvino", "onnxruntime")
    result = {**conditions, "seen": described(Sensors()), "synthetic": known, "here": found, "broken": broken}
    machine.write("profiler", result)
    for name, row in known["figures"].items():
        print(f"{name:<10} known {row['known']:8.3f}  found {row['found']:8.3f}  {row['error']:+.2%}")
    print(f"throttle found: {known['throttle found']}; outliers {known['outliers']}")
    for target, row in found.items():
        layers = row["layers"]
        print(
            f"{target}: total {row['median ms'][TOTAL]:.2f} ms, unaccounted {row['unaccounted']:.1%}, measuring costs "
            f"{row['cost of measuring']:+.1%}; {layers['count']} layers are {layers['of infer']:.0%} of infer"
        )
    print("broken: " + ("; ".join(broken) or "nothing"))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
