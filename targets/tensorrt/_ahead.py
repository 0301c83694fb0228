"""Ahead-of-time check by TensorRT for RTX: the same parser and builder API, in wheels, without a GPU.

It shows that NVIDIA's parser takes the graph and that an engine comes out for a desktop chip; it does not replace the
board, whose TensorRT and compute capability (Orin's SM87, Thor's SM110) it does not know.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from edgekd.errors import BuildError

PACKAGES = ("tensorrt_rtx_bindings", "tensorrt_rtx_libs")
CHIP = "SM86"  # GeForce RTX 30, the oldest of TensorRT-RTX's list that shares Orin's architecture (Ampere)
BATCHES = (1, 1, 8)  # least, usual and largest batch of the engine


def available() -> bool:
    """Whether both wheels are installed."""
    return all(find_spec(name) is not None for name in PACKAGES)


def check(graph: bytes, name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Parse a graph as a strongly typed network and build an engine for `CHIP`.

    Args:
        graph: ONNX.
        name: its input.
        shape: (3, height, width) of the input.

    Returns:
        Version, chip, layers and engine_bytes, for the manifest.

    Raises:
        BuildError: the libraries do not load, the parser refused the graph (with its errors), or no engine came out.
    """
    trt = _load()
    log = _logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        listed = "\n  ".join(f"node {item.node()}: {item.desc()}" for item in errors)
        raise BuildError(f"TensorRT-RTX's parser refused the graph:\n  {listed}")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, CHIP), 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(name, *((batch, *shape) for batch in BATCHES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError("TensorRT-RTX's builder made no engine:\n  " + "\n  ".join(log.errors))
    version = importlib.import_module(PACKAGES[0]).__version__
    return {"version": version, "chip": CHIP, "layers": network.num_layers, "engine_bytes": engine.nbytes}


def _load() -> Any:
    """Import the bindings; their package opens the libraries of the other wheel first."""
    try:
        return importlib.import_module(f"{PACKAGES[0]}.tensorrt_rtx")
    except (OSError, ImportError) as error:
        raise BuildError(f"TensorRT-RTX is installed but does not load: {error}") from error


def _logger(trt: Any) -> Any:
    """Return a logger that keeps errors and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]  # its base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Log()
