"""Ahead-of-time check by TensorRT for RTX: the same parser and builder API, in wheels, without a GPU.

It shows that NVIDIA's parser takes the graph and that an engine comes out for a desktop chip; it does not replace the
board, whose TensorRT and compute capability (Orin's SM87, Thor's SM110) it does not know.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from edgekd.errors import BuildError

from ._compile import Order, compile_engine
from ._runtime import TensorRT

PACKAGES = ("tensorrt_rtx_bindings", "tensorrt_rtx_libs")
CHIP = "SM86"  # GeForce RTX 30, the oldest of TensorRT-RTX's list that shares Orin's architecture (Ampere)


def available() -> bool:
    """Whether both wheels are installed."""
    return all(find_spec(name) is not None for name in PACKAGES)


def check(graph: bytes, name: str, shape: tuple[int, int, int], precision: str = "fp32") -> dict[str, Any]:
    """Parse a graph as a strongly typed network and build an engine for `CHIP`, as a board does for its own.

    Args:
        graph: ONNX.
        name: its input.
        shape: (3, height, width) of the input.
        precision: of the artifact; the graph holds the types.

    Returns:
        Version, chip, layers and engine_bytes, for the manifest.

    Raises:
        BuildError: the libraries do not load, the parser refused the graph (with its errors), or no engine came out.
    """
    tensorrt = _load()
    done = compile_engine(tensorrt, Order(graph, name, shape, precision, chip=CHIP), lambda _: None)
    return {"version": tensorrt.version, "chip": CHIP, "layers": done.layers, "engine_bytes": len(done.plan)}


def _load() -> TensorRT:
    """Import the bindings; their package opens the libraries of the other wheel first."""
    try:
        module = importlib.import_module(f"{PACKAGES[0]}.tensorrt_rtx")
    except (OSError, ImportError) as error:
        raise BuildError(f"TensorRT-RTX is installed but does not load: {error}") from error
    return TensorRT(module, "TensorRT-RTX", str(importlib.import_module(PACKAGES[0]).__version__))
