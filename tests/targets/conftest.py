"""A board without a board: the TensorRT target on the host device, with a fake TensorRT and a cache of its own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from edgekd.targets.tensorrt import _boards, _device, _runtime

from edgekd._target import load_target

from ..kernels import cuda_library
from .tensorrt_fake import FakeTensorRT
from .tensorrt_host import HostDevice

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Board:
    """What a test may look at and change.

    Attributes:
        kernels: the emulated library.
        tensorrt: what is installed.
        integrated: whether devices opened from now on share the host's memory.
        capability: of those devices.
        multiprocessors: likewise.
        model: what the device tree says.
        devices: opened so far.
    """

    kernels: cuda_library.CudaKernels
    tensorrt: FakeTensorRT = field(default_factory=FakeTensorRT)
    integrated: bool = True
    capability: int = 87
    multiprocessors: int = 8
    model: str = ""
    devices: list[HostDevice] = field(default_factory=list)

    def open(self, index: int) -> HostDevice:
        assert index == 0
        device = HostDevice(self.kernels, integrated=self.integrated, capability=self.capability)
        device.multiprocessors = self.multiprocessors
        self.devices = [*self.devices[-1:], device]
        self.tensorrt.kernels = self.kernels
        return device


@pytest.fixture(scope="session")
def emulated(request: pytest.FixtureRequest) -> cuda_library.CudaKernels:
    if cuda_library.HOST_COMPILER is None or sys.platform != "linux":
        pytest.skip("the emulation of CUDA needs g++ on Linux")
    library = cuda_library.build_emulated(request.config.cache.mkdir("edgekd"))
    return cuda_library.CudaKernels(library, emulated=True)


@pytest.fixture
def board(emulated: cuda_library.CudaKernels, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Board:
    board = Board(emulated)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_device, "open_device", board.open)
    monkeypatch.setattr(_boards, "device_tree_model", lambda *_: board.model)
    monkeypatch.setattr(_runtime, "find", lambda *_: board.tensorrt.found())
    monkeypatch.setattr(load_target("tensorrt"), "probe", lambda: None)
    return board
