"""TensorRT on Jetson and desktop NVIDIA GPUs.

An engine is bound to one GPU and one TensorRT version, so it is built where it runs: `build` makes the typed graph, and
the first `load` on a device compiles it there and keeps the engine beside the bundle. The session runs the whole
pipeline on the GPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._session import Session
    from edgekd._target import Built, Progress, Quantization

PRECISIONS: tuple[str, ...] = ("fp32", "fp16", "int8")
GRAMMAR: str | None = "int8-symmetric"
DEVICES: tuple[str, ...] = ("cuda", "cuda:*", "dla", "dla:*", "gpu", "gpu:*", "nvidia", "tensorrt", "trt")
PORTABLE: bool = False
RANK: int = 10


def probe() -> str | None:
    """Say why this target cannot run here, or None when it can."""
    from ._missing import missing

    return missing()


def probe_build() -> str | None:
    """Say why this target cannot build here, or None when it can."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    return f"preparing the graph needs {' and '.join(missing)}: pip install 'edgekd[build]'" if missing else None


def build(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None = None) -> Built:
    """Prepare `model.onnx`, the graph that TensorRT compiles on the board as a strongly typed network.

    Args:
        bundle: its portable graph is read.
        precision: "fp32": the graph as it is; "fp16": float16 up to the head's last convolutions, float32 after them;
            "int8": the explicit int8 graph (`model.onnx.packed`), its weights in float32 in front of QuantizeLinear
            once it is unpacked.
        progress: told each stage.
        quantization: the int8 graph.

    Raises:
        BuildError: the graph cannot be made float16, or TensorRT-RTX's parser or builder refused it.
    """
    from ._build import prepare

    return prepare(bundle, precision, progress, quantization)


def load(
    bundle: Bundle,
    artifact: Artifact,
    *,
    device: str = "auto",
    threads: int = 0,
    mode: str = "latency",
    cache: Path | None = None,
) -> Session:
    """Start the engine of this GPU and TensorRT; compile it first if none is kept, which takes minutes.

    Args:
        bundle: holds the typed graph; its file is not written. The engine goes to `<bundle>.engines/`.
        artifact: what `build` made.
        device: "auto", "cuda", "gpu:1" ...: which GPU; "dla:1": a DLA core, with the GPU for what it leaves over.
        threads: CPU threads; nothing here uses any.
        mode: "latency" only; the copies of one call and the work of another overlap in any case.
        cache: a folder for the engine instead of the one beside the bundle.

    Raises:
        UsageError: no such device, or another mode.
        TargetUnavailableError: no driver, pycuda, TensorRT or kernels, or too little memory to build.
        SessionError: TensorRT refused the graph or the engine.
    """
    del threads
    from ._session import TensorRTSession

    return TensorRTSession(bundle, artifact, device=device, mode=mode, cache=cache)


def single_engine(
    bundle: Bundle, artifact: Artifact, wish: Mapping[str, float | int], folder: Path, progress: Progress
) -> tuple[bytes, str, str]:
    """Return an engine from pixels to detections for the GPU that is here, the TensorRT that made it, and the GPU.

    Args:
        bundle: holds the typed graph.
        artifact: what `build` made.
        wish: conf, iou, max_det, max_candidates and batch; the engine keeps them.
        folder: that the engine goes to; its room is looked at.
        progress: told each stage.

    Raises:
        BuildError: no detector, or this TensorRT cannot hold the kernel or made no engine.
        MissingPackageError: no onnx.
        TargetUnavailableError: no GPU, no nvcc, or too little memory.
    """
    from ._nms_node import Wish
    from ._single import single_engine as make

    return make(bundle, artifact, Wish(**wish), folder, progress)  # type: ignore[arg-type]


def probe_single_engine() -> str | None:
    """Say why `single_engine` can make none here, or None when it can."""
    from ._plugin import missing

    return missing()


def run_single_engine(
    plan: bytes, pixels: Sequence[NDArray[np.float32]]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    """Run what `single_engine` made on images `(1, 3, H, W)` float32, 0 to 255; return boxes, scores, labels of each.

    Raises:
        SessionError: TensorRT does not take the engine, or did not run it.
    """
    from ._single_run import run

    return run(plan, pixels)


def probe_dla() -> str | None:
    """Say why there is no DLA here, or None when there is one."""
    from ._dla import missing

    return missing()


def board(root: Path | None = None) -> tuple[str, ...]:
    """Return what `doctor` says of the board, one line each; empty where this is no Jetson.

    Args:
        root: of the file system; None: "/".
    """
    from ._boards import ROOT, machine

    found = machine(ROOT if root is None else root)
    return () if found is None else found.lines()
