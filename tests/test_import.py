"""`import edgekd` is cheap: NumPy and little else."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime", "tensorrt", "tensorrt_rtx_bindings",
    "PIL", "cv2", "cryptography", "supervision", "argparse", "jsonschema",
)  # fmt: skip


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_edgekd_loads_no_heavy_package() -> None:
    loaded = json.loads(_run("import sys, json, edgekd; print(json.dumps(sorted(sys.modules)))"))
    assert not {name.split(".")[0] for name in loaded} & set(HEAVY)


def test_import_edgekd_adds_few_modules_over_numpy() -> None:
    # A count, not a time: the time is measured by benchmarks/import_time.py.
    code = "import sys, numpy; n = len(sys.modules); import edgekd; print(len(sys.modules) - n)"
    assert int(_run(code)) < 100


def test_import_edgekd_prints_nothing() -> None:
    assert _run("import edgekd") == ""
