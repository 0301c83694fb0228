"""From the portable ONNX graph to a LiteRT model, in a process of its own.

The converter prints hundreds of lines from C++ and Python, keeps over a gigabyte, and aborts the process on an MLIR
assertion. A child process keeps all three away from the caller; what it printed is shown when it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd._target import Built
from edgekd.errors import BuildError

if TYPE_CHECKING:
    from edgekd._bundle import Bundle
    from edgekd._target import Progress

QUIET = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
LAST_LINES = 20  # of the converter's output, shown when it dies


def convert(bundle: Bundle, precision: str, progress: Progress) -> Built:
    """Run `_convert` in a child process and collect `model.tflite`."""
    progress(f"LiteRT: ONNX to PyTorch to LiteRT, batch 1, {precision} weights")
    with tempfile.TemporaryDirectory(prefix="edgekd-tflite-") as name:
        folder = Path(name)
        (folder / "graph.onnx").write_bytes(bundle.graph())
        request = {"precision": precision, "outputs": {spec.name: spec.layout for spec in bundle.manifest.outputs}}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "edgekd.targets.tflite._convert", name]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env={**os.environ, **QUIET}, check=False
        )
        answer = folder / "answer.json"
        if not answer.exists():
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
            raise BuildError(f"the LiteRT converter ended with code {done.returncode}; its last lines:\n{tail}")
        result = json.loads(answer.read_text(encoding="utf-8"))
        if "error" in result:
            raise BuildError(result["error"])
        return Built(files={"model.tflite": (folder / "model.tflite").read_bytes()}, tools=result["tools"])
