"""Is OpenVINO's own quantizer, NNCF, better than the explicit graph? Same images, same gates, same engine.

    pip install nncf
    python benchmarks/int8_nncf.py xray model.bin --calib DATA     # writes results/int8_nncf/NAME.json

Also measured: the explicit graph as it is written, with signed activations, which OpenVINO 2026.4 gets wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from machine import conditions, write

import edgekd
from edgekd._bundle import Bundle
from edgekd._int8.data import calibration_images, judging_images
from edgekd._int8.gates import judge
from edgekd._int8.options import bounds
from edgekd._int8.race import median_ms, race
from edgekd._int8.runs import run_set
from edgekd._int8.search import Plan
from edgekd._session import SessionInfo
from edgekd._target import load_target


class Engine:
    """An OpenVINO model of batch 1 on one thread."""

    def __init__(self, model: Any, plan: Plan) -> None:
        spec = plan.bundle.manifest.input
        model.reshape({model.inputs[0].any_name: [1, 3, spec.height, spec.width]})
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self.request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self.names = [item.name for item in plan.bundle.manifest.outputs]
        self.info = SessionInfo("openvino", "int8", "int8", "cpu", f"OpenVINO {openvino.__version__}")

    def infer(self, pixels: Any, _out: Any = None) -> Any:
        """Return new arrays of the outputs."""
        found = self.request.infer([pixels])
        return tuple(np.array(found[name]) for name in self.names)

    def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--calib", required=True)
    args = parser.parse_args()
    bundle = Bundle.read(args.bundle)
    manifest, options = bundle.manifest, edgekd.Calibration(train=args.calib)
    judges = judging_images(manifest, options)
    chosen = calibration_images(manifest, options, print)
    limits = bounds(options, anomaly=manifest.task == "anomaly", oriented=manifest.angle is not None)
    plan = Plan(bundle, chosen, judges, limits, options.ranges, print)
    quantization = plan.quantization(frozenset())
    built = load_target("openvino").build(bundle, "int8", print, quantization)
    read = openvino.Core().read_model
    engines = {
        "explicit graph": plan.session("openvino", built, quantization),
        "explicit graph, signed": Engine(read(io.BytesIO(quantization.graph)), plan),
    }
    for preset in PRESETS:
        engines[f"NNCF, {preset}"] = Engine(by_nncf(read(io.BytesIO(bundle.graph())), plan, preset), plan)
    times = race({**engines, "fp32": Engine(read(io.BytesIO(bundle.graph())), plan)}, chosen.pixels[:1], 60)
    rows = {}
    for name, engine in engines.items():
        with contextlib.closing(engine):
            verdict = judge(manifest, plan.float_run, run_set(engine, manifest, judges.search), limits)
        rows[name] = {"gates": [vars(gate) for gate in verdict.gates], "p50_ms": median_ms(times[name])}
        print(name, "; ".join(map(str, verdict.gates)), f"{rows[name]['p50_ms']:.2f} ms")
    write(f"int8_nncf/{args.name}", {"rows": rows, "times_ms": times, **conditions("openvino", "nncf")})


PRESETS = ("performance", "mixed")  # symmetric activations; asymmetric ones where a tensor is not one-sided


def by_nncf(model: Any, plan: Plan, preset: str) -> Any:
    import nncf

    spec = plan.bundle.manifest.input
    model.reshape({spec.name: [1, 3, spec.height, spec.width]})
    images = nncf.Dataset([plan.chosen.pixels[index : index + 1] for index in range(len(plan.chosen.pixels))])
    wanted = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}[preset]
    return nncf.quantize(model, images, preset=wanted, subset_size=len(plan.chosen.pixels))


if __name__ == "__main__":
    main()
