"""TensorRT on Jetson and desktop NVIDIA GPUs.

An engine is bound to one GPU and one TensorRT version, so it is built where it runs. What is built here is the graph
that a board's own TensorRT compiles, checked ahead of time by TensorRT for RTX where its wheels are installed.
"""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._session import Session
    from edgekd._target import Built, Progress

PRECISIONS: tuple[str, ...] = ("fp32", "fp16")
DEVICES: tuple[str, ...] = ("cuda", "cuda:*", "gpu", "gpu:*", "nvidia", "tensorrt", "trt")
PORTABLE: bool = False
RANK: int = 10
DRIVER = "libcuda.so.1"


def probe() -> str | None:
    """Say why this target cannot run here."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        return f"no NVIDIA driver found ({error})"
    return (
        "an NVIDIA driver is here, but this version of edgekd only prepares and checks the graph for TensorRT: it does "
        "not build the engine on the board or run it. Use another target, for example device='cpu'"
    )


def probe_build() -> str | None:
    """Say why this target cannot build here, or None when it can."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    return f"preparing the graph needs {' and '.join(missing)}: pip install 'edgekd[build]'" if missing else None


def build(bundle: Bundle, precision: str, progress: Progress) -> Built:
    """Prepare `model.onnx`, the graph that TensorRT compiles on the board as a strongly typed network.

    Args:
        bundle: its portable graph is read.
        precision: "fp32": the graph as it is; "fp16": float16 up to the head's last convolutions, float32 after them.
        progress: told each stage.

    Raises:
        BuildError: the graph cannot be made float16, or TensorRT-RTX's parser or builder refused it.
    """
    from ._build import prepare

    return prepare(bundle, precision, progress)


def load(bundle: Bundle, artifact: Artifact, *, device: str = "auto", threads: int = 0) -> Session:
    """Refuse: see `probe`.

    Raises:
        TargetUnavailableError: always, with the reason.
    """
    from edgekd.errors import TargetUnavailableError

    wanted = f"the tensorrt {artifact.precision} artifact of {bundle.manifest.name!r} (device={device!r}, {threads=})"
    raise TargetUnavailableError(f"cannot run {wanted}: {probe()}")
