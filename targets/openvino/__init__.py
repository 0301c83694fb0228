"""OpenVINO on Intel CPUs, integrated and discrete GPUs and NPUs (its CPU plugin runs on AMD and ARM too)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._session import Session
    from edgekd._target import Built, ForeignNetwork, Progress, Quantization

PRECISIONS: tuple[str, ...] = ("fp32", "fp16", "w8a32", "int8")
GRAMMAR: str | None = "int8-symmetric"
DEVICES: tuple[str, ...] = (
    "openvino", "cpu", "gpu", "gpu.*", "npu", "intel", "intel:cpu", "intel:gpu", "intel:gpu.*", "intel:npu",
)  # fmt: skip
PORTABLE: bool = False
SUFFIX: str = ".xml"  # of files that `edgekd import` takes
RANK: int = 20


def probe() -> str | None:
    """Say why this target cannot run here, or None when it can."""
    if find_spec("openvino") is None:
        return "the 'openvino' package is missing: pip install 'edgekd[openvino]'"
    return None


def probe_build() -> str | None:
    """Say why this target cannot build here, or None when it can."""
    return probe()


def build(bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None = None) -> Built:
    """Lower the portable graph to OpenVINO IR of batch 1 (`model.xml.z`, compressed, and `model.bin`).

    Args:
        bundle: its portable graph is read.
        precision: "fp32"; "fp16": weights stored as float16, half the size; "w8a32": as int8, a quarter, with float32
            arithmetic; "int8": the explicit int8 graph.
        progress: told each stage.
        quantization: the int8 graph.

    Raises:
        BuildError: OpenVINO refused the graph.
    """
    from ._build import lower

    return lower(bundle, precision, progress, quantization)


def read_foreign(path: Path, size: tuple[int, int] | None) -> ForeignNetwork:
    """Read somebody else's OpenVINO IR, `model.xml` and `model.bin` beside it.

    Args:
        path: of the XML file.
        size: height and width of an IR that takes any; None: the IR's.

    Raises:
        UsageError: no sound IR, or one that is no detector of one image; says what was found.
    """
    from ._foreign import ForeignIR

    return ForeignIR(path, size)


def load(
    bundle: Bundle,
    artifact: Artifact,
    *,
    device: str = "auto",
    threads: int = 0,
    mode: str = "latency",
    cache: Path | None = None,
) -> Session:
    """Compile the IR for a device and start it.

    Args:
        bundle: holds the IR.
        artifact: what `build` made.
        device: "auto" and "cpu" are the CPU plugin; "gpu", "gpu.1", "npu", "intel:gpu" ... the others.
        threads: CPU threads; 0: OpenVINO's choice (every core).
        mode: "throughput": as many streams as OpenVINO thinks the device is worth, each with its share of the threads.
        cache: where the compiled model is kept, so that the next load does not compile; None: nowhere.

    Raises:
        UsageError: no such device, or one that cannot do this.
        TargetUnavailableError: OpenVINO does not see that device here.
        SessionError: the IR cannot be read or compiled.
    """
    from ._session import OpenVINOSession

    return OpenVINOSession(bundle, artifact, device=device, threads=threads, mode=mode, cache=cache)
