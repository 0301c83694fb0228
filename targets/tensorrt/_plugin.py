"""Our suppression as a TensorRT plugin whose kernel lies in the engine: neither Python nor a library where it runs.

TensorRT calls this "quickly deployable, ahead of time": `tensorrt.plugin` describes the outputs, and gives one kernel
as PTX, with its launch and its parameters in the order inputs, integers, outputs. Integers only: thresholds go as the
bits of a float. Annotations are set by hand, since TensorRT reads them as classes and knows no strings. Attributes are
arrays of one element: of one that is declared as float TensorRT calls float(array), which NumPy refuses since 2.4.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BuildError

from . import _kernels, _nms_node, _runtime
from ._nms_node import NAME, NAMESPACE, OUTPUTS

if TYPE_CHECKING:
    from ._runtime import TensorRT

ID = f"{NAMESPACE}::{NAME}"
KERNELS = {4: "edgekd_suppress_block_xyxy", 5: "edgekd_suppress_block_xywhr"}
THREADS = 512
Float = NDArray[np.float32]
Whole = NDArray[np.int32]
ATTRIBUTES = {
    "conf": Float, "iou": Float, "max_det": Whole, "max_candidates": Whole, "columns": Whole, "workspace": Whole,
    "capability": Whole,
}  # fmt: skip
_registered: list[Any] = []  # modules that know it: TensorRT's registry belongs to the process


def register(tensorrt: TensorRT) -> None:
    """Make the plugin known to this process's TensorRT, once.

    Raises:
        BuildError: it has no plugins that are made ahead of time.
    """
    plugin = _module(tensorrt)
    if any(plugin is known for known in _registered):
        return
    trt = tensorrt.module
    desc = plugin.TensorDesc

    def describe(
        boxes: Any, scores: Any, conf: Float, iou: Float, max_det: Whole, max_candidates: Whole, columns: Whole,
        workspace: Whole, capability: Whole,
    ) -> Any:  # fmt: skip
        del scores, conf, iou, max_candidates, capability
        batch, rows = boxes.shape_expr[0], int(max_det[0])
        shapes = ((batch, 1), (batch, rows, int(columns[0])), (batch, rows), (batch, rows), (batch, int(workspace[0])))
        kinds = (trt.int32, trt.float32, trt.float32, trt.int32, trt.float32)
        return tuple(plugin.from_shape_expr(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))

    def implement(
        boxes: Any, scores: Any, conf: Float, iou: Float, max_det: Whole, max_candidates: Whole, columns: Whole,
        workspace: Whole, capability: Whole, outputs: Any, tactic: int,
    ) -> Any:  # fmt: skip
        del workspace, outputs, tactic
        launch = plugin.KernelLaunchParams()
        launch.grid_x, launch.block_x, launch.shared_mem = boxes.shape_expr[0], THREADS, 0
        whole = [int(max_candidates[0]), int(max_det[0]), bits(conf[0]), bits(iou[0])]
        sides = (boxes.shape_expr[1], scores.shape_expr[2])
        extra = plugin.SymIntExprs.from_tuple([plugin.SymInt32(value) for value in (*sides, *whole)])
        return KERNELS[int(columns[0])].encode(), _kernels.ptx(int(capability[0])), launch, extra

    pair, described = {"boxes": desc, "scores": desc}, _tuple(*(desc,) * (len(OUTPUTS) + 1))
    given = _tuple(bytes, bytes, plugin.KernelLaunchParams, plugin.SymIntExprs)
    describe.__annotations__ = {**pair, **ATTRIBUTES, "return": described}
    implement.__annotations__ = {**pair, **ATTRIBUTES, "outputs": described, "tactic": int, "return": given}
    plugin.register(ID)(describe)
    plugin.aot_impl(ID)(implement)
    _registered.append(plugin)


def missing() -> str | None:
    """Return why this TensorRT cannot hold the kernel, or what the graph around it lacks, or None."""
    try:
        _module(_runtime.find())
    except BuildError as error:
        return str(error)
    return _nms_node.missing()


def _tuple(*kinds: Any) -> Any:
    return tuple.__class_getitem__(kinds)


def bits(value: float | np.float32) -> int:
    """Return a float32 as the signed 32-bit integer of the same bits."""
    return int(np.float32(value).view(np.int32))


def _module(tensorrt: TensorRT) -> Any:
    try:
        found = getattr(tensorrt.module, "plugin", None) or importlib.import_module(
            f"{tensorrt.module.__name__}.plugin"
        )
    except (ImportError, AttributeError):
        found = None
    if not hasattr(found, "aot_impl"):
        raise BuildError(
            f"{tensorrt.name} {tensorrt.version} cannot keep a kernel of ours in an engine (tensorrt.plugin.aot_impl: "
            "TensorRT 10.9 and later, not TensorRT for RTX). edgekd.load(...).predict needs no such engine"
        )
    return found
