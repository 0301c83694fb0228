"""The device of the TensorRT target on the host: our CUDA kernels compiled by g++, and streams that run when waited
for.

Stricter than a GPU: work outside a current context, allocation while capturing, use after free and a second free are
errors; fresh memory holds garbage; nothing queued happens before `synchronize`.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ..kernels.cuda_library import CudaKernels

GARBAGE = 0xA5
KERNELS_AT_ONCE = threading.Lock()  # the emulation has one set of fibers a process
HANDLES = itertools.count(1)
STREAMS: weakref.WeakValueDictionary[int, HostStream] = weakref.WeakValueDictionary()


def view(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return the array at an address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_ubyte * size).from_address(address), dtype).reshape(shape)


class HostMemory:
    """A block that starts as garbage; the device counts it."""

    def __init__(self, device: HostDevice, size: int) -> None:
        self._device = device
        self._held: NDArray[np.uint8] | None = np.full(size + 64, GARBAGE, np.uint8)
        start = -self._held.ctypes.data % 64
        self.array = self._held[start : start + size]
        self.address = self.array.ctypes.data
        self.size = size
        device.made += 1
        device.live.append(self)

    def free(self) -> None:
        self._device.require()
        if self._held is not None:
            self._held[...] = GARBAGE
            self._device.freed.append(self._held)  # keeps the address from being used again: stale reads find garbage
            self._held = None
            self._device.live.remove(self)


class HostGraph:
    """Recorded work."""

    def __init__(self, stream: HostStream, work: list[Callable[[], None]]) -> None:
        self._stream, self._work = stream, work
        self._stream.device.graphs += 1

    def launch(self) -> None:
        assert self._work is not None, "launched after free"
        self._stream.device.require()
        self._stream.device.replays += 1
        for item in self._work:
            self._stream.add(item)

    def free(self) -> None:
        if self._work is not None:
            self._stream.device.graphs -= 1
        self._work = None  # type: ignore[assignment]


class HostStream:
    """Work that runs when it is waited for."""

    def __init__(self, device: HostDevice) -> None:
        self.device = device
        self.handle = next(HANDLES)
        device.streams += 1
        STREAMS[self.handle] = self
        self._queued: list[Callable[[], None]] = []
        self._recorded: list[Callable[[], None]] | None = None

    def add(self, work: Callable[[], None]) -> None:
        self.device.require()
        (self._queued if self._recorded is None else self._recorded).append(work)

    def _driver(self, call: str) -> None:
        """Fail as `CudaStream` does, where a test wants it and only while capturing."""
        from edgekd.errors import SessionError

        if call in self.device.refused and self._recorded is not None:
            raise SessionError(f"{call} failed: operation not permitted when stream is capturing")

    def upload(self, address: int, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        self._driver("upload")
        self.device.copies += 1
        self.add(lambda: np.copyto(view(address, array.shape, array.dtype), array))

    def download(self, array: NDArray[Any], address: int) -> None:
        assert array.flags.c_contiguous
        self._driver("download")
        self.device.copies += 1
        self.add(lambda: np.copyto(array, view(address, array.shape, array.dtype)))

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, job: np.void) -> None:
        self._driver("launch")
        content = job.tobytes()  # by value
        self.add(lambda: self.device.run(kernel, grid, threads, content))

    def capture(self) -> None:
        assert self._recorded is None
        self._recorded = []
        self.device.capturing.add(threading.get_ident())

    def captured(self) -> HostGraph:
        assert self._recorded is not None
        try:
            self._driver("captured")
        finally:
            work, self._recorded = self._recorded, None
            self.device.capturing.discard(threading.get_ident())
        return HostGraph(self, work)

    def free(self) -> None:
        self.device.require()
        if self.handle in STREAMS:
            del STREAMS[self.handle]
            self.device.streams -= 1

    def synchronize(self) -> None:
        self.device.require()
        assert self._recorded is None, "waited for while capturing"
        work, self._queued = self._queued, []
        for item in work:
            item()


class HostDevice:
    """A GPU that is none.

    Attributes:
        made: blocks allocated so far.
        live: those not freed.
        graphs: captured and not freed.
        streams: made and not freed.
        replays: graphs launched so far.
        copies: queued or captured so far.
        launches: names of the kernels that ran.
        refused: calls of a stream that fail while it captures.
    """

    name = "host"

    def __init__(self, kernels: CudaKernels, *, integrated: bool, capability: int = 87) -> None:
        self._kernels = kernels
        self.integrated, self.capability, self.multiprocessors = integrated, capability, 8
        self.made = self.graphs = self.streams = self.replays = self.copies = 0
        self.live: list[HostMemory] = []
        self.freed: list[NDArray[np.uint8]] = []
        self.launches: list[str] = []
        self.capturing: set[int] = set()
        self.refused: set[str] = set()
        self.closed = False
        self.room = 1 << 40  # bytes
        self._depth = threading.local()

    def require(self) -> None:
        assert getattr(self._depth, "value", 0) > 0, "no context is current in this thread"
        assert not self.closed, "used after close"

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        assert not self.closed
        self._depth.value = getattr(self._depth, "value", 0) + 1
        try:
            yield
        finally:
            self._depth.value -= 1

    def run(self, kernel: str, grid: tuple[int, int, int], threads: int, job: bytes) -> None:
        with KERNELS_AT_ONCE:
            self.launches.append(kernel)
            assert self._kernels.lib.emulation_launch(kernel.encode(), *grid, threads, job) == 0, kernel

    def allocate(self, size: int) -> HostMemory:
        from edgekd.errors import SessionError

        self.require()
        assert threading.get_ident() not in self.capturing, "allocation while capturing"
        if sum(item.size for item in self.live) + size > self.room:
            raise SessionError("CUDA failed on host: cuMemAlloc failed: out of memory")
        return HostMemory(self, size)

    pin = allocate

    def stream(self) -> HostStream:
        self.require()
        return HostStream(self)

    def close(self) -> None:
        assert getattr(self._depth, "value", 0) == 0
        self.closed = True
