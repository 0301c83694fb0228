"""Which machine code of the CUDA kernels' fatbin a GPU would load, without a CUDA toolkit or pycuda.

`ctypes` and the kernels' build script, which knows the architectures, are imported when `doctor` asks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

DRIVERS = ("libcuda.so.1", "nvcuda.dll")
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
CUDA_12_ONLY = 72  # Xavier: newer toolkits no longer compile for it


def architectures() -> tuple[int, ...]:
    """Return what the fatbin has machine code for, compute capability times ten, ascending."""
    known: tuple[int, ...] = importlib.import_module("edgekd.kernels.build_fatbin").ARCHITECTURES
    return known


def image_for(capability: int) -> str:
    """Say what a GPU loads from a fatbin.

    Machine code runs on its own architecture and on later ones of the same major number; else the driver compiles the
    PTX, which is that of the newest architecture, if the GPU is at least as new.

    Args:
        capability: compute capability times ten, such as 87.
    """
    known = architectures()
    fitting = [number for number in known if number // 10 == capability // 10 and number <= capability]
    note = " (in fatbins built with CUDA 12)" if fitting and max(fitting) == CUDA_12_ONLY else ""
    if fitting:
        return f"machine code sm_{max(fitting)}{note}"
    if capability > max(known):
        return f"PTX compute_{max(known)}, compiled by the driver when it is loaded"
    return f"none: the kernels are compiled for SM{', SM'.join(map(str, known))}"


def capabilities() -> tuple[int, ...]:
    """Return the compute capability, times ten, of each GPU that the CUDA driver shows; empty without a driver."""
    import ctypes

    for name in DRIVERS:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return ()
        return tuple(_capability(driver, index) for index in range(count.value))
    return ()


def _capability(driver: ctypes.CDLL, index: int) -> int:
    import ctypes

    device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    return 10 * major.value + minor.value
