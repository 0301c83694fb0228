"""Nothing is compiled: the portable graph is what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime

from edgekd._target import Built
from edgekd.errors import BuildError

if TYPE_CHECKING:
    from edgekd._bundle import Bundle
    from edgekd._target import Progress


def check(bundle: Bundle, precision: str, progress: Progress) -> Built:
    """Start ONNX Runtime once on the portable graph and return an artifact without files."""
    progress(f"ONNX Runtime: load the portable graph, {precision}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        onnxruntime.InferenceSession(bundle.graph(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise BuildError(f"ONNX Runtime {onnxruntime.__version__} refused the portable graph: {error}") from error
    return Built(files={}, tools={"onnxruntime": onnxruntime.__version__})
