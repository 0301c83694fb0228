"""What a machine lacks to run this target, with what to type; imports nothing of a vendor's."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec

DRIVER = "libcuda.so.1"
BINDINGS = ("tensorrt", "tensorrt_rtx_bindings")


def missing() -> str | None:
    """Return the first thing that is missing, or None."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError as error:
        return (
            f"no NVIDIA driver found ({error}): start a container with --runtime nvidia; on a Jetson sudo apt-get "
            "install nvidia-l4t-cuda; on a desktop sudo ubuntu-drivers install"
        )
    if not any(find_spec(name) for name in BINDINGS):
        return (
            "no TensorRT for Python: on Jetson sudo apt-get install python3-libnvinfer (it comes with JetPack and is "
            "never pip-installed; a virtual environment needs --system-site-packages to see it); on a desktop "
            "pip install 'edgekd[tensorrt]'"
        )
    if find_spec("pycuda") is None:
        return "pycuda is missing: pip install pycuda (compiled there, about a minute; needs nvcc on PATH)"
    return None
