"""ONNX Runtime on any CPU: the portable graph as it is. Slow, plain, right: what every target is compared with."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._session import Session
    from edgekd._target import Built, Progress, Quantization

PRECISIONS: tuple[str, ...] = ("fp32",)
GRAMMAR: str | None = None
DEVICES: tuple[str, ...] = ("cpu", "reference", "onnx", "onnxruntime")
PORTABLE: bool = True
RANK: int = 90


def probe() -> str | None:
    """Say why this target cannot run here, or None when it can."""
    if find_spec("onnxruntime") is None:
        return "the 'onnxruntime' package is missing: pip install onnxruntime"
    return None


def probe_build() -> str | None:
    """Say why this target cannot build here, or None when it can."""
    return probe()


def build(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None = None) -> Built:
    """Check that ONNX Runtime takes the portable graph; the artifact has no file of its own.

    Raises:
        BuildError: ONNX Runtime refused the graph.
    """
    del quantization  # there is no int8 here
    from ._build import check

    return check(bundle, precision, progress)


def load(
    bundle: Bundle,
    artifact: Artifact,
    *,
    device: str = "auto",
    threads: int = 0,
    mode: str = "latency",
    cache: Path | None = None,
) -> Session:
    """Start ONNX Runtime on the portable graph.

    Args:
        bundle: holds the graph.
        artifact: only says what was asked for.
        device: one of `DEVICES`; all mean the CPU.
        threads: CPU threads; 0: one a physical core.
        mode: "throughput": each call has one thread, and as many calls as there are threads run at once.
        cache: nothing here is worth keeping.

    Raises:
        UsageError: `device` is none of `DEVICES`.
        SessionError: ONNX Runtime refused the graph.
    """
    del cache
    from ._session import ReferenceSession

    return ReferenceSession(bundle, artifact, device=device, threads=threads, mode=mode)
