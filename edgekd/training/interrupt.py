"""Ctrl-C between two steps, not within one."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C (or SIGTERM) after `step` steps, with a checkpoint written."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after step {step} of {steps}; the checkpoint is written")
        self.step = step


class StopSignal:
    """Context manager: the first SIGINT or SIGTERM sets `requested`; a second one acts as usual.

    Outside the main thread, where Python delivers no signals, it changes nothing.
    """

    def __init__(self) -> None:
        self._requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def requested(self) -> bool:
        """Whether any rank was asked to stop; every rank has to call it at the same step."""
        if not dist.is_initialized():
            return self._requested
        flag = torch.tensor(float(self._requested), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(flag)
        return bool(flag > 0)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
