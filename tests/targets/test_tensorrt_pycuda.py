"""The calls that `_pycuda.py` makes, in order, against a stand-in with the names and signatures of pycuda 2026.1.

It shows that every line runs and what is called inside which context; not what a driver makes of it.
"""

from __future__ import annotations

import importlib
import struct
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgekd.targets.tensorrt import _device, _kernels

from edgekd.errors import SessionError, TargetUnavailableError


class Stub:
    """pycuda.driver and libcuda at once; `log` has every call."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.depth = 0
        self.status: dict[str, int] = {}
        self.driver = ModuleType("pycuda.driver")
        self.error = type("Error", (Exception,), {})
        names: dict[str, Any] = {
            "Error": self.error, "init": lambda: self.note("init"), "Device": self.device(), "Stream": self.stream,
            "Context": SimpleNamespace(pop=self.pop), "mem_alloc": self.mem_alloc,
            "host_alloc_flags": SimpleNamespace(DEVICEMAP=2),
            "device_attribute": SimpleNamespace(INTEGRATED=18, MULTIPROCESSOR_COUNT=16),
            "pagelocked_empty": self.pagelocked_empty, "module_from_buffer": self.module_from_buffer,
            "memcpy_htod_async": lambda dest, src, _stream: self.inside(f"htod {dest} {src.nbytes}"),
            "memcpy_dtoh_async": lambda dest, src, _stream: self.inside(f"dtoh {src} {dest.nbytes}"),
        }  # fmt: skip
        for name, value in names.items():
            setattr(self.driver, name, value)

    def note(self, what: str) -> None:
        self.log.append(what)

    def inside(self, what: str) -> None:
        assert self.depth > 0, f"{what} outside the context"
        self.note(what)

    def pop(self) -> None:
        self.depth -= 1

    def push(self) -> None:
        self.depth += 1

    def device(self) -> Any:
        def retain() -> Any:
            self.note("retain")
            return SimpleNamespace(push=self.push)

        def make(index: int) -> Any:
            assert index == 0
            return SimpleNamespace(
                compute_capability=lambda: (8, 7), name=lambda: "Orin", get_attribute={18: 1, 16: 8}.get,
                retain_primary_context=retain,
            )  # fmt: skip

        make.count = lambda: 1  # type: ignore[attr-defined]
        return make

    def stream(self, flags: int) -> Any:
        self.inside(f"stream {flags}")
        return SimpleNamespace(handle=77, synchronize=lambda: self.inside("synchronize"))

    def mem_alloc(self, size: int) -> Any:
        self.inside(f"alloc {size}")
        if size > 1 << 40:
            raise self.error("cuMemAlloc failed: out of memory")

        class Allocation:
            def __int__(self) -> int:
                return 4096

        held: Any = Allocation()
        held.free = lambda: self.inside("free")
        return held

    def pagelocked_empty(self, shape: int, dtype: Any, *, mem_flags: int = 0) -> Any:
        self.inside(f"pin {shape} {mem_flags}")

        class Array(np.ndarray):
            pass

        array = np.zeros(shape, dtype).view(Array)
        held = SimpleNamespace(get_device_pointer=lambda: 8192, free=lambda: self.inside("unpin"))
        return SimpleNamespace(base=held, array=array)

    def module_from_buffer(self, buffer: bytes) -> Any:
        self.inside(f"module {buffer!r}")

        def get_function(name: str) -> Function:
            self.note(f"get {name}")
            return Function(self)

        return SimpleNamespace(get_function=get_function)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*_: Any) -> int:
            self.inside(name) if name != "cuGetErrorString" else None
            return self.status.get(name, 0)

        return call


class Function:
    """A kernel as pycuda gives it; a call of it is left out, since what that takes depends on the version."""

    def __init__(self, stub: Stub) -> None:
        self._stub, self._format = stub, ""

    def prepare(self, arg_types: list[str]) -> Function:
        self._format = "".join(arg_types)
        return self

    def prepared_async_call(self, grid: Any, block: Any, stream: Any, *args: Any) -> None:
        assert stream.handle == 77
        self._stub.inside(f"launch {grid} {block} {struct.pack(self._format, *args)!r}")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    package = ModuleType("pycuda")
    package.driver = stub.driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", stub.driver)
    monkeypatch.delitem(sys.modules, "edgekd.targets.tensorrt._pycuda", raising=False)
    monkeypatch.setattr(_kernels, "image", lambda capability: b"sm%d" % capability)
    module = importlib.import_module("edgekd.targets.tensorrt._pycuda")
    monkeypatch.setattr(module.ctypes, "CDLL", lambda _: stub)
    return stub


def test_every_call_is_made_inside_the_primary_context(stub: Stub) -> None:
    device = _device.open_device(0)
    assert (device.name, device.capability, device.multiprocessors, device.integrated) == ("Orin", 87, 8, True)
    with device.current():
        stream, memory = device.stream(), device.allocate(100)
        assert (stream.handle, memory.address) == (77, 4096)
        stream.upload(memory.address, np.zeros(7, np.uint8))
        job = np.array((258, 1), [("a", "<i4"), ("b", "<u2")])[()]
        for _ in range(2):
            stream.launch("edgekd_nms_scan", (1, 2, 3), 512, job)
        stream.capture()
        graph = stream.captured()
        graph.launch()
        stream.download(np.zeros(9, np.uint8), 5)
        stream.synchronize()
        for held in (graph, memory, stream):
            held.free()
            held.free()
    device.close()
    assert stub.depth == 0
    assert stub.log == [
        "init", "retain", "module b'sm87'", "stream 1", "alloc 100", "htod 4096 7", "get edgekd_nms_scan",
        *[r"launch (1, 2, 3) (512, 1, 1) b'\x02\x01\x00\x00\x01\x00'"] * 2, "cuStreamBeginCapture_v2",
        "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphDestroy", "cuGraphLaunch", "dtoh 5 9",
        "synchronize", "free",
    ]  # fmt: skip


def test_primary_context_is_retained_once_a_process(stub: Stub) -> None:
    for _ in range(2):
        _device.open_device(0).close()
    assert stub.log.count("retain") == 1


def test_pinned_memory_is_mapped_and_freed(stub: Stub) -> None:
    device = _device.open_device(0)
    with device.current():
        pinned = device.pin(64)
        assert pinned.address == 8192
        pinned.free()
        pinned.free()
    assert stub.log[-2:] == ["pin 64 2", "unpin"]
    assert len(pinned.array) == 0


def test_errors_of_the_vendor_become_ours_and_the_context_is_popped(stub: Stub) -> None:
    device = _device.open_device(0)
    with pytest.raises(SessionError, match="CUDA failed on Orin: cuMemAlloc failed: out of memory"), device.current():
        device.allocate(1 << 41)
    stub.status["cuStreamBeginCapture_v2"] = 900
    with pytest.raises(SessionError, match="cuStreamBeginCapture_v2 failed with CUDA error 900"), device.current():
        device.stream().capture()
    assert stub.depth == 0


def test_errors_of_a_stream_are_ours_where_they_happen(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane answers them while the context is still current."""
    device = _device.open_device(0)

    def fail(*_: Any, **__: Any) -> None:
        raise stub.error("operation not permitted when stream is capturing")

    job = np.zeros((), [("a", "i8")])[()]
    with device.current():
        stream = device.stream()
        monkeypatch.setattr(stub.driver, "memcpy_htod_async", fail)
        monkeypatch.setattr(stub.driver, "memcpy_dtoh_async", fail)
        monkeypatch.setattr(stream._stream, "synchronize", fail)
        monkeypatch.setattr(Function, "prepared_async_call", fail)
        for call in (
            lambda: stream.upload(1, np.zeros(1)),
            lambda: stream.download(np.zeros(1), 1),
            lambda: stream.launch("edgekd_nms_scan", (1, 1, 1), 1, job),
            stream.synchronize,
        ):
            with pytest.raises(SessionError, match="CUDA failed: operation not permitted"):
                call()


@pytest.mark.parametrize("call", ["cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_capture_that_is_no_graph_is_an_error_of_ours(stub: Stub, call: str) -> None:
    device = _device.open_device(0)
    stub.status[call] = 901
    with device.current():
        stream = device.stream()
        stream.capture()
        with pytest.raises(SessionError, match=f"{call} failed with CUDA error 901"):
            stream.captured()
    assert ("cuGraphDestroy" in stub.log) is (call != "cuStreamEndCapture")


def test_gpu_that_is_not_there_says_how_many_are(stub: Stub) -> None:
    with pytest.raises(TargetUnavailableError, match="no GPU 3; the driver shows 1"):
        _device.open_device(3)


def test_driver_that_does_not_start_says_why(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise stub.error("cuInit failed: unknown error")

    monkeypatch.setattr(stub.driver, "init", fail)
    with pytest.raises(TargetUnavailableError, match="does not start: cuInit failed"):
        _device.open_device(0)


def test_context_when_the_driver_makes_none_then_it_says_why(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(what: str) -> None:
        if what == "retain":
            raise stub.error("cuDevicePrimaryCtxRetain failed: out of memory")

    monkeypatch.setattr(stub, "note", fail)
    with pytest.raises(TargetUnavailableError, match=r"no context on GPU 0, Orin: .*out of memory\. Close what else"):
        _device.open_device(0)
