"""Our suppression as a TensorRT plugin whose kernel lies in the engine: neither Python nor a library where it runs.

TensorRT calls this "quickly deployable, ahead of time": `tensorrt.plugin` describes the outputs, and gives one kernel
as PTX, with its launch and its parameters in the order inputs, integers, outputs. Integers only: thresholds go as the
bits of a float. Annotations are set by hand, since TensorRT reads them as classes and knows no strings.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import BuildError

from . import _kernels
from ._nms_node import NAME, NAMESPACE, OUTPUTS

if TYPE_CHECKING:
    from ._runtime import TensorRT

ID = f"{NAMESPACE}::{NAME}"
KERNELS = {4: "edgekd_suppress_block_xyxy", 5: "edgekd_suppress_block_xywhr"}
THREADS = 512
ATTRIBUTES = {
    "conf": float, "iou": float, "max_det": int, "max_candidates": int, "columns": int, "workspace": int,
    "capability": int,
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
        boxes: Any, scores: Any, conf: float, iou: float, max_det: int, max_candidates: int, columns: int,
        workspace: int, capability: int,
    ) -> Any:  # fmt: skip
        del scores, conf, iou, max_candidates, capability
        batch = boxes.shape_expr[0]
        shapes = ((batch, 1), (batch, max_det, columns), (batch, max_det), (batch, max_det), (batch, workspace))
        kinds = (trt.int32, trt.float32, trt.float32, trt.int32, trt.float32)
        return tuple(plugin.from_shape_expr(shape, dtype=kind) for shape, kind in zip(shapes, kinds, strict=True))

    def implement(
        boxes: Any, scores: Any, conf: float, iou: float, max_det: int, max_candidates: int, columns: int,
        workspace: int, capability: int, outputs: Any, tactic: int,
    ) -> Any:  # fmt: skip
        del workspace, outputs, tactic
        launch = plugin.KernelLaunchParams()
        launch.grid_x, launch.block_x, launch.shared_mem = boxes.shape_expr[0], THREADS, 0
        whole = [boxes.shape_expr[1], scores.shape_expr[2], max_candidates, max_det, bits(conf), bits(iou)]
        extra = plugin.SymIntExprs.from_tuple([plugin.SymInt32(value) for value in whole])
        return KERNELS[columns].encode(), _kernels.ptx(capability), launch, extra

    pair, described = {"boxes": desc, "scores": desc}, _tuple(*(desc,) * (len(OUTPUTS) + 1))
    given = _tuple(bytes, bytes, plugin.KernelLaunchParams, plugin.SymIntExprs)
    describe.__annotations__ = {**pair, **ATTRIBUTES, "return": described}
    implement.__annotations__ = {**pair, **ATTRIBUTES, "outputs": described, "tactic": int, "return": given}
    plugin.register(ID)(describe)
    plugin.aot_impl(ID)(implement)
    _registered.append(plugin)


def _tuple(*kinds: Any) -> Any:
    return tuple.__class_getitem__(kinds)


def bits(value: float) -> int:
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
