"""The converter process: `python -m edgekd.targets.tflite._convert FOLDER`.

Reads `graph.onnx` and `request.json` in FOLDER (the layout of each output); writes `float.tflite` and `answer.json`
(`layers` and `tools`, or `error`).
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from edgekd._target import relative_error
from edgekd.errors import BuildError

from ._graph import LiteGraph
from ._layers import find_layers
from ._static import constants, fix_batch
from ._torch_from_onnx import TranslatedGraph

TOLERANCE = 1e-3
"""Of the translated module against ONNX Runtime, relative to the largest output (at least 1). A wrong translation is
far off; float32 rounding alone moved YOLOX-nano by 2e-4 in either runtime, against float64."""
TOOLS = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch")


def translate(graph: bytes, layouts: dict[str, str | None]) -> tuple[TranslatedGraph, tuple[torch.Tensor, ...]]:
    """Return the graph as a PyTorch module that agrees with ONNX Runtime, and the inputs it was compared on.

    Args:
        graph: ONNX.
        layouts: `OutputSpec.layout` of each output, by name, in order.

    Raises:
        BuildError: an operator cannot be translated, or the module computes something else.
    """
    names = list(layouts)
    module = TranslatedGraph(_parsed(graph), names).eval()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    given = {item.name: random.normal(size=(1, *item.shape[1:])).astype(np.float32) for item in session.get_inputs()}
    expected = session.run(names, given)
    inputs = tuple(torch.from_numpy(values) for values in given.values())
    with torch.no_grad():
        got = module(*inputs)
    for name, theirs in zip(names, expected, strict=True):
        ours = got[name]
        if theirs.shape != tuple(ours.shape):
            raise BuildError(f"translating {name!r} gave shape {tuple(ours.shape)}, ONNX Runtime gives {theirs.shape}")
        error = relative_error(theirs, ours.numpy(), layouts[name])
        if not error <= TOLERANCE:
            raise BuildError(
                f"the translated graph's {name!r} is off by {error:.1e} of ONNX Runtime's; at most {TOLERANCE} may be"
            )
    return module, inputs


def _parsed(graph: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(graph)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # protobuf's and ONNX's errors share no other base
        raise BuildError(f"the portable graph is no sound ONNX: {error}") from error
    return model


def answer(folder: Path) -> dict[str, Any]:
    """Do what `request.json` asks; return what `answer.json` is to hold."""
    layouts = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    graph = (folder / "graph.onnx").read_bytes()
    try:
        module, inputs = translate(graph, layouts)
    except BuildError as error:
        return {"error": str(error)}
    import litert_torch  # after the translation, which fails sooner: this import takes seconds

    model = litert_torch.convert(module, inputs).model_content()
    (folder / "float.tflite").write_bytes(model)
    portable = fix_batch(_parsed(graph)).graph
    layers = find_layers(portable, constants(portable), LiteGraph(model))
    return {"tools": {name: version(name) for name in TOOLS}, "layers": layers}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "answer.json").write_text(json.dumps(answer(place)), encoding="utf-8")
