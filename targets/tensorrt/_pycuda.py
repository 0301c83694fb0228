"""The device on a real GPU: pycuda on the primary context, and four calls of the driver for what pycuda lacks.

pycuda (2026.1) wraps no stream capture, so graphs go to `libcuda` itself. The primary context is the one that PyTorch,
OpenCV and the CUDA runtime use; `pycuda.autoinit`, which makes another, is never imported. It is retained once and kept
to the end of the process, as the CUDA runtime does: pycuda lets go of a context only in the thread that retained it.
Everything else is freed inside `current()`, because pycuda frees in no other thread's name.
"""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import pycuda.driver as cuda

from edgekd.errors import SessionError, TargetUnavailableError

from ._kernels import image
from ._missing import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

P = ParamSpec("P")
T = TypeVar("T")
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


def _translated(call: Callable[P, T]) -> Callable[P, T]:
    """Let an error of pycuda be ours where it happens: a capture that fails is answered before `current()` ends."""

    @wraps(call)
    def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except cuda.Error as error:
            raise SessionError(f"CUDA failed: {error}") from error

    return translated


class CudaMemory:
    """An allocation of pycuda."""

    def __init__(self, size: int) -> None:
        self._held: Any = cuda.mem_alloc(size)
        self.address = int(self._held)

    def free(self) -> None:
        """Give it back."""
        if self._held is not None:
            self._held.free()
            self._held = None


class CudaPinned:
    """Page-locked and mapped memory."""

    def __init__(self, size: int) -> None:
        self.array: NDArray[np.uint8] = cuda.pagelocked_empty(size, np.uint8, mem_flags=cuda.host_alloc_flags.DEVICEMAP)
        self._held: Any = self.array.base
        self.address = int(self._held.get_device_pointer())

    def free(self) -> None:
        """Give it back."""
        if self._held is not None:
            self.array = np.empty(0, np.uint8)
            self._held.free()
            self._held = None


class Driver:
    """The driver's functions for graphs; every status is checked."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(DRIVER)

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call one.

        Raises:
            SessionError: it did not return CUDA_SUCCESS.
        """
        status = getattr(self._library, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            raise SessionError(f"{name} failed with CUDA error {status}: {(text.value or b'unknown').decode()}")


class CudaGraph:
    """An instantiated graph, and the stream it is launched on."""

    def __init__(self, driver: Driver, graph: ctypes.c_void_p, handle: int) -> None:
        self._driver, self._handle = driver, ctypes.c_void_p(handle)
        self._executable = ctypes.c_void_p()
        try:
            driver("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        finally:
            driver("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Queue it."""
        self._driver("cuGraphLaunch", self._executable, self._handle)

    def free(self) -> None:
        """Give it back."""
        if self._executable:
            self._driver("cuGraphExecDestroy", self._executable)
            self._executable = ctypes.c_void_p()


class CudaStream:
    """A stream of pycuda that captures."""

    def __init__(self, module: Any, driver: Driver) -> None:
        self._module, self._driver = module, driver
        self._stream: Any = cuda.Stream(NON_BLOCKING)
        self._functions: dict[str, Any] = {}
        self.handle = int(self._stream.handle)

    @_translated
    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy to the GPU."""
        cuda.memcpy_htod_async(address, array, self._stream)

    @_translated
    def download(self, array: NDArray[Any], address: int) -> None:
        """Queue a copy from the GPU."""
        cuda.memcpy_dtoh_async(array, address, self._stream)

    @_translated
    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, job: np.void) -> None:
        """Queue a kernel; its job goes as bytes, which every pycuda takes: a `np.void` cannot be hashed."""
        if kernel not in self._functions:
            self._functions[kernel] = self._module.get_function(kernel).prepare([f"{job.nbytes}s"])
        self._functions[kernel].prepared_async_call(grid, (threads, 1, 1), self._stream, job.tobytes())

    def capture(self) -> None:
        """Begin a capture."""
        self._driver("cuStreamBeginCapture_v2", ctypes.c_void_p(self.handle), THREAD_LOCAL)

    def captured(self) -> CudaGraph:
        """End the capture."""
        graph = ctypes.c_void_p()
        self._driver("cuStreamEndCapture", ctypes.c_void_p(self.handle), ctypes.byref(graph))
        return CudaGraph(self._driver, graph, self.handle)

    @_translated
    def synchronize(self) -> None:
        """Wait."""
        self._stream.synchronize()

    def free(self) -> None:
        """Give the stream back, and let go of the kernels."""
        self._functions.clear()
        self._stream = self._module = None


@cache
def _primary_context(index: int) -> Any:
    return cuda.Device(index).retain_primary_context()


class CudaDevice:
    """A GPU, its primary context and our kernels in it."""

    def __init__(self, index: int) -> None:
        try:
            cuda.init()
            count = cuda.Device.count()
        except cuda.Error as error:
            raise TargetUnavailableError(f"the NVIDIA driver does not start: {error}") from error
        if index >= count:
            raise TargetUnavailableError(f"there is no GPU {index}; the driver shows {count}, numbered from 0")
        device = cuda.Device(index)
        major, minor = device.compute_capability()
        self.name, self.capability = str(device.name()), 10 * int(major) + int(minor)
        self.multiprocessors = int(device.get_attribute(cuda.device_attribute.MULTIPROCESSOR_COUNT))
        self.integrated = bool(device.get_attribute(cuda.device_attribute.INTEGRATED))
        code = image(self.capability)
        self._driver = Driver()
        try:
            self._context = _primary_context(index)
        except cuda.Error as error:
            raise TargetUnavailableError(
                f"CUDA makes no context on GPU {index}, {self.name}: {error}. Close what else takes its memory, or has "
                "it for itself (sudo fuser -v /dev/nvidia*), and try again"
            ) from error
        with self.current():
            self._module: Any = cuda.module_from_buffer(code)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Push the context and pop it; errors of pycuda become ours."""
        self._context.push()
        try:
            yield
        except cuda.Error as error:
            raise SessionError(f"CUDA failed on {self.name}: {error}") from error
        finally:
            cuda.Context.pop()

    def allocate(self, size: int) -> CudaMemory:
        """Return memory of the GPU."""
        return CudaMemory(size)

    def pin(self, size: int) -> CudaPinned:
        """Return mapped memory of the host."""
        return CudaPinned(size)

    def stream(self) -> CudaStream:
        """Return a new stream."""
        return CudaStream(self._module, self._driver)

    def close(self) -> None:
        """Unload the kernels."""
        with self.current():
            self._module = None
