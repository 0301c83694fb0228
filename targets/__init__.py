"""Targets: one folder a runtime. Its name is the target's; edgekd/_target.py says what it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # mypy checks each module against the Protocol here; nothing imports a target that is not asked for
    from edgekd._target import BoardTarget, CompilingTarget, ImportingTarget, Target

    from . import openvino, reference, tensorrt, tflite

    _: tuple[Target, ...] = (openvino, reference, tensorrt, tflite)
    __: tuple[BoardTarget, ...] = (tensorrt,)
    ___: tuple[ImportingTarget, ...] = (openvino, tflite)
    ____: tuple[CompilingTarget, ...] = (tensorrt,)
