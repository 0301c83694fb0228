"""The seam between the session and CUDA: what a session asks of a GPU, and nothing more.

`_pycuda.py` fills it on a GPU. The tests fill it on the host, with the same kernels compiled for the CPU, so that
everything above this file runs where there is no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray


class Memory(Protocol):
    """Memory that the GPU reaches."""

    @property
    def address(self) -> int:
        """Where the GPU sees it."""
        ...

    def free(self) -> None:
        """Give it back; a second call does nothing."""
        ...


class Pinned(Memory, Protocol):
    """Page-locked memory of the host, mapped into the GPU's addresses: both read and write it where it lies."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """The bytes, `(size,)` uint8."""
        ...


class Graph(Protocol):
    """Captured work."""

    def launch(self) -> None:
        """Queue all of it on the stream that it was captured on."""
        ...

    def free(self) -> None:
        """Give it back; a second call does nothing."""
        ...


class Stream(Protocol):
    """Work of one queue, in order. What is queued between `capture` and `captured` is kept, and does not run.

    Whatever the driver refuses is a `SessionError`, so that who captures needs to know no vendor's errors.
    """

    @property
    def handle(self) -> int:
        """The `CUstream`, for TensorRT."""
        ...

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy of a contiguous array to the GPU; the caller keeps the array alive and as it is."""
        ...

    def download(self, array: NDArray[Any], address: int) -> None:
        """Queue a copy from the GPU to a contiguous array."""
        ...

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, job: np.void) -> None:
        """Queue one of our kernels; `job` is its only parameter, by value (see kernels/edgekd_cuda.h)."""
        ...

    def capture(self) -> None:
        """Begin a capture."""
        ...

    def captured(self) -> Graph:
        """End the capture, also a failed one."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued is done."""
        ...

    def free(self) -> None:
        """Give it back; a second call does nothing."""
        ...


class Device(Protocol):
    """One GPU, on its primary context. Everything but the properties is called inside `with device.current():`."""

    @property
    def name(self) -> str:
        """As the driver says it."""
        ...

    @property
    def capability(self) -> int:
        """Compute capability times ten, such as 87."""
        ...

    @property
    def multiprocessors(self) -> int:
        """How many it has switched on: CUDA's name and capability are the same on every Orin."""
        ...

    @property
    def integrated(self) -> bool:
        """Whether the GPU shares the host's memory, as on every Jetson: then nothing is copied to it."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread, and put back what was current before."""
        ...

    def allocate(self, size: int) -> Memory:
        """Return `size` bytes of the GPU's memory, not cleared."""
        ...

    def pin(self, size: int) -> Pinned:
        """Return `size` bytes of mapped host memory, not cleared."""
        ...

    def stream(self) -> Stream:
        """Return a new stream that does not wait for the default one."""
        ...

    def close(self) -> None:
        """Unload the kernels; a second call does nothing. The primary context belongs to the process, and stays."""
        ...


def open_device(index: int) -> Device:
    """Open a GPU by its number.

    Raises:
        TargetUnavailableError: no driver, no pycuda, no such GPU, or no kernels for it; says what to type.
    """
    from ._pycuda import CudaDevice

    return CudaDevice(index)
