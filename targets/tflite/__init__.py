"""LiteRT (TensorFlow Lite) with XNNPACK on ARM boards; runs on x86 as well. Built on a Linux x86-64 host only."""

from __future__ import annotations

import platform
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._session import Session
    from edgekd._target import Built, ForeignNetwork, Progress, Quantization

PRECISIONS: tuple[str, ...] = ("fp32", "fp16", "w8a32", "int8")
GRAMMAR: str | None = "int8-asymmetric"  # LiteRT measures its own ranges, with zero points
DEVICES: tuple[str, ...] = ("tflite", "litert", "xnnpack", "cpu")
PORTABLE: bool = False
SUFFIX: str = ".tflite"  # of files that `edgekd import` takes
RANK: int = 30
RUNTIMES = ("ai_edge_litert", "tflite_runtime")  # in order of preference
CONVERTERS = ("litert_torch", "ai_edge_quantizer", "torch", "onnx", "onnxruntime")


def probe() -> str | None:
    """Say why this target cannot run here, or None when it can."""
    if all(find_spec(name) is None for name in RUNTIMES):
        return "neither 'ai-edge-litert' nor 'tflite-runtime' is installed: pip install ai-edge-litert"
    return None


def probe_build() -> str | None:
    """Say why this target cannot build here, or None when it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return (
            f"LiteRT models are converted on Linux x86-64, this is {platform.system()} {platform.machine()}: "
            "on such a host, pip install 'edgekd[tflite-build]' and edgekd build model.bin --target tflite; "
            "then copy model.bin here"
        )
    missing = [name for name in CONVERTERS if find_spec(name) is None]
    if missing:
        return f"the converter lacks {', '.join(missing)}: pip install 'edgekd[tflite-build]' (about 1.5 GB)"
    return None


def build(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None = None) -> Built:
    """Convert the portable graph to a LiteRT model of batch 1 (`model.tflite`).

    Args:
        bundle: its portable graph is read.
        precision: "fp32", "fp16" (weights of convolutions stored as float16, arithmetic in float32), or "int8" (inputs,
            outputs and decoding in float32).
        progress: told each stage.
        quantization: for "int8"; its `pixels` are run through the float model, its `floating` layers stay as they are.
            Its graph is not read: LiteRT has a grammar of its own.

    Raises:
        BuildError: an operator cannot be translated, the converter failed, a `floating` layer cannot be found in the
            LiteRT model, or no layer is left in int8.
    """
    from ._build import convert

    return convert(bundle, precision, progress, quantization)


def read_foreign(path: Path, size: tuple[int, int] | None) -> ForeignNetwork:
    """Read somebody else's LiteRT model.

    Args:
        path: of the `.tflite` file.
        size: height and width, if they are to be checked: a LiteRT model has one size.

    Raises:
        UsageError: no sound model, or one that is no detector of one image; says what was found.
    """
    from ._foreign import ForeignTFLite

    return ForeignTFLite(path, size)


def load(
    bundle: Bundle,
    artifact: Artifact,
    *,
    device: str = "auto",
    threads: int = 0,
    mode: str = "latency",
    cache: Path | None = None,
) -> Session:
    """Start a LiteRT interpreter.

    Args:
        bundle: holds the model.
        artifact: what `build` made.
        device: one of `DEVICES`; all mean the CPU.
        threads: CPU threads; 0: LiteRT's own choice, which is one; for throughput, one a core.
        mode: "throughput": an interpreter a thread, each with its own copy of the weights.
        cache: nothing here is worth keeping.

    Raises:
        UsageError: `device` is none of `DEVICES`.
        SessionError: the model cannot be read.
    """
    del cache
    from ._session import TFLiteSession

    return TFLiteSession(bundle, artifact, device=device, threads=threads, mode=mode)
