"""The compiled kernels: whether they are there, which implementation serves, and how memory is handed to them.

`edgekd.ops` calls them. Nothing else imports cffi.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSTRUCTIONS = {"c++ avx512": 3, "c++ avx2": 2, "c++ neon": 4, "c++": 1}  # enum edgekd_instructions
IMPLEMENTATIONS = (*INSTRUCTIONS, "numpy reference")
"""What can compute, fastest first."""

METRICS = {"iou": 0, "probiou": 1}  # enum edgekd_metric
STATUS = {
    -1: "an argument is out of range",
    -2: "the workspace is too small",
    -3: "the processor lacks the instructions",
}
EMPTY = np.empty(1, np.float32)  # something to point at where an array has no element


class Kernels:
    """The compiled library, if there is one, and which implementation serves."""

    def __init__(self) -> None:
        self.lib: Any = None
        self.ffi: Any = None
        self.local = threading.local()
        self.reason = ""
        try:
            from ._native import ffi, lib
        except ImportError as error:
            self.reason = f"the C++ kernels cannot be used ({error})"
        else:
            self.lib, self.ffi = lib, ffi
        self.serving = self.available()[0]
        self.told = False

    def available(self) -> tuple[str, ...]:
        """Return what of `IMPLEMENTATIONS` can compute here."""
        if self.lib is None:
            return IMPLEMENTATIONS[-1:]
        compiled = (name for name, value in INSTRUCTIONS.items() if self.lib.edgekd_supports(value))
        return (*compiled, IMPLEMENTATIONS[-1])

    def instructions(self) -> int:
        """Return the `instructions` argument of the kernels; 0: the reference serves."""
        if self.lib is None and not self.told:
            self.told = True
            logging.getLogger("edgekd").warning(
                "edgekd: %s; the NumPy reference serves, right but slow. To compile them: install a C++ compiler and "
                "reinstall edgekd",
                self.reason,
            )
        return INSTRUCTIONS.get(self.serving, 0)

    def pointer(self, array: NDArray[Any] | None, kind: str) -> Any:
        """Return a C pointer to the first element; the caller keeps the array alive."""
        if array is None:
            return self.ffi.NULL
        return self.ffi.from_buffer(kind, array if array.size else EMPTY)

    def workspace(self, needed: int) -> tuple[Any, int]:
        """Return this thread's scratch memory of at least `needed` bytes: it grows and is kept."""
        held = getattr(self.local, "memory", None)
        if held is None or len(held[0]) < needed:
            memory = np.empty(needed, np.uint8)
            held = self.local.memory = (memory, self.ffi.from_buffer("char[]", memory))
        return held[1], len(held[0])

    def check(self, status: int, name: str) -> None:
        """Raise UsageError unless `status` is 0; the arguments were checked before, so this is our own slip."""
        if status != 0:
            raise UsageError(f"{name}: {STATUS.get(status, f'status {status}')}")


kernels = Kernels()


def implementation() -> str:
    """Say what computes: one of `IMPLEMENTATIONS`."""
    return kernels.serving


def available() -> tuple[str, ...]:
    """Return what of `IMPLEMENTATIONS` can compute here, fastest first."""
    return kernels.available()


def select(name: str) -> None:
    """Choose what computes, for the whole process: to compare implementations or to track a fault down.

    Args:
        name: "auto" (the fastest), or one of `IMPLEMENTATIONS`.

    Raises:
        UsageError: it is not available here; the message lists what is.
    """
    possible = kernels.available()
    if name != "auto" and name not in possible:
        raise UsageError(f"no implementation {name!r} here; possible: auto, {', '.join(possible)}")
    kernels.serving = possible[0] if name == "auto" else name
