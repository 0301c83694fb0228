"""One engine from pixels to detections, for programs that are not edgekd's: DeepStream, Triton, `trtexec`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgekd.errors import BuildError, MissingPackageError

from . import _boards, _device, _nms_node, _plugin, _runtime
from ._compile import WORKSPACE_BYTES, Order, compile_engine
from ._engines import typed_graph
from ._memory import preflight
from ._nms_node import with_suppression

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._target import Progress

    from ._nms_node import Wish


class Single(NamedTuple):
    """An engine, and what it is bound to."""

    plan: bytes
    runtime: str
    gpu: str


def single_engine(bundle: Bundle, artifact: Artifact, wish: Wish, folder: Path, progress: Progress) -> Single:
    """Compile the engine on the GPU that is here.

    Args:
        bundle: holds the typed graph.
        artifact: names it.
        wish: what to keep, for good; the verb has checked its ranges.
        folder: that the engine goes to; its room is looked at.
        progress: told each stage.

    Raises:
        BuildError: no detector, or this TensorRT cannot hold the kernel or made no engine.
        MissingPackageError: no onnx.
        TargetUnavailableError: no GPU, no nvcc, or too little memory.
    """
    manifest = bundle.manifest
    if manifest.task == "anomaly":
        raise BuildError("an anomaly network has no boxes to suppress: its own engine gives map and score")
    tensorrt = _runtime.find()
    _plugin.register(tensorrt)
    lacks = _nms_node.missing()
    if lacks is not None:
        raise MissingPackageError(lacks)
    device = _device.open_device(0)
    try:
        with device.current():
            spec = manifest.input
            graph = typed_graph(bundle, artifact)
            whole = with_suppression(graph, spec, manifest.outputs, wish, device.capability)
            workspace = preflight(len(whole), WORKSPACE_BYTES, folder)
            progress(f"{tensorrt.name} {tensorrt.version} builds for {device.name} (SM{device.capability}); minutes")
            order = Order(
                whole, spec.name, (3, spec.height, spec.width), artifact.precision, (1, 1, wish.batch), workspace,
                jetson=bool(_boards.l4t()),
            )  # fmt: skip
            plan = compile_engine(tensorrt, order, progress).plan
    finally:
        device.close()
    return Single(plan, f"{tensorrt.name} {tensorrt.version}", f"{device.name} (SM{device.capability})")
