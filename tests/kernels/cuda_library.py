"""The CUDA kernels as a library that takes NumPy arrays: emulated by g++, or built by nvcc for this machine's GPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cffi
import numpy as np
from edgekd.kernels import build_fatbin
from edgekd.kernels.build_cffi import declarations

from edgekd import geometry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

ROOT = Path(__file__).resolve().parents[2]
KERNELS, EMULATION = ROOT / "kernels", ROOT / "tests" / "kernels" / "emulation"
HOST_COMPILER = os.environ.get("CXX") or shutil.which("g++")
HOST_FLAGS = ["-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-pthread",
              "-I", str(EMULATION), "-I", str(KERNELS)]  # fmt: skip
DEVICE_SOURCE = ROOT / "benchmarks" / "cuda_device.cu"
FOR_TESTS = """
void emulation_order(uint32_t order);
void emulation_fail(void);
void emulation_trace(void (*on_launch)(const char *kernel, unsigned x, unsigned y, unsigned z, unsigned threads));
int32_t emulation_launch(const char *kernel, unsigned x, unsigned y, unsigned z, unsigned threads, const void *job);
int32_t emulation_launch_block(const char *kernel, unsigned batch, unsigned threads, void **given);
void *edgekd_device_alloc(int64_t bytes);
void edgekd_device_free(void *memory);
int32_t edgekd_device_copy(void *to, const void *from, int64_t bytes);
int32_t edgekd_device_time(int32_t (*queue)(const void *, void *), const void *job, int32_t samples, float *out_us);
"""
BAD_ARGUMENT, SMALL_WORKSPACE = -1, -2
METRICS = ("iou", "probiou")


def build_emulated(folder: Path) -> Path:
    """Return the emulated library in `folder`, named by what it was made of; compile it if it is not there."""
    sources = sorted([*EMULATION.iterdir(), *KERNELS.glob("*.h"), *KERNELS.glob("*.cu")])
    content = b"".join(path.read_bytes() for path in sources) + repr((HOST_COMPILER, HOST_FLAGS)).encode()
    library = folder / f"emulated-{hashlib.sha256(content).hexdigest()[:16]}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        command = [HOST_COMPILER, *HOST_FLAGS, "-O2", "-shared", "-fPIC", str(EMULATION / "emulated.cc"), "-o", partial]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        partial.replace(library)
    return library


def build_for_gpu(folder: Path) -> Path:
    """Return the library of the kernels and of benchmarks/cuda_device.cu for this machine's GPU."""
    library = folder / "libedgekd_cuda.so"
    sources = [KERNELS / "edgekd_cuda.cu", DEVICE_SOURCE]
    command = ["nvcc", *build_fatbin.FLAGS, f"-arch=sm_{capability()}", *build_fatbin.LIBRARY_FLAGS, *sources]
    done = subprocess.run([*command, "-o", library], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def no_gpu() -> str | None:
    """Say why nothing can run on a GPU here, or return None where it can."""
    if capability() is None:
        return "no NVIDIA GPU, or no driver for it"
    return None if shutil.which("nvcc") else "no nvcc"


def capability() -> str | None:
    """Return the first GPU's compute capability, such as "87", or None where there is no GPU or no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, 0)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
    return f"{major.value}{minor.value}"


class Memory:
    """Copies of arrays on the device, which the emulation plays too."""

    def __init__(self, ffi: cffi.FFI, lib: Any) -> None:
        self._ffi, self._lib = ffi, lib
        self._arrays: dict[int, NDArray[Any]] = {}

    def put(self, array: NDArray[Any]) -> int:
        """Return the address of a copy."""
        pointer = self._lib.edgekd_device_alloc(array.nbytes)
        assert pointer, "the device has no memory left"
        address = int(self._ffi.cast("intptr_t", pointer))
        self._arrays[address] = np.ascontiguousarray(array)
        self._copy(address, self._arrays[address].ctypes.data, array.nbytes)
        return address

    def get(self, address: int) -> NDArray[Any]:
        """Return what is there now."""
        array = np.empty_like(self._arrays[address])
        self._copy(array.ctypes.data, address, array.nbytes)
        return array

    def free(self) -> None:
        """Give all back."""
        for address in self._arrays:
            self._lib.edgekd_device_free(self._ffi.cast("void *", address))
        self._arrays.clear()

    def _copy(self, to: int, source: int, size: int) -> None:
        cast = self._ffi.cast
        status = self._lib.edgekd_device_copy(cast("void *", to), cast("void *", source), size)
        assert status == 0, f"CUDA error {status}"


class CudaKernels:
    """`suppress` and `letterbox` of edgekd_cuda.h on NumPy arrays."""

    def __init__(self, library: Path, *, emulated: bool) -> None:
        self.ffi = cffi.FFI()
        for header in ("edgekd_kernels.h", "edgekd_cuda.h"):
            self.ffi.cdef(declarations((KERNELS / header).read_text(encoding="utf-8")))
        self.ffi.cdef(FOR_TESTS)
        self.lib = self.ffi.dlopen(str(library))
        self.memory = Memory(self.ffi, self.lib)
        self.emulated = emulated

    def order(self, seed: int) -> None:
        """Shuffle the order of blocks and threads; a GPU does so by itself."""
        if self.emulated:
            self.lib.emulation_order(seed)

    def traced(self, call: Callable[[], Any]) -> list[tuple[str, tuple[int, int, int], int]]:
        """Return the launches of a call in emulation: kernel, blocks, threads."""
        launches: list[tuple[str, tuple[int, int, int], int]] = []

        @self.ffi.callback("void(const char *, unsigned, unsigned, unsigned, unsigned)")
        def note(name: Any, x: int, y: int, z: int, threads: int) -> None:
            launches.append((self.ffi.string(name).decode(), (x, y, z), threads))

        self.lib.emulation_trace(note)
        call()
        self.lib.emulation_trace(self.ffi.NULL)
        return launches

    def suppress(
        self, boxes: NDArray[np.float32], scores: NDArray[Any], *, max_det: int, block: bool = False, **options: Any
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]]:
        """Return boxes, scores, labels of each image of (B, N, 4|5) and (B, N, C), after checking their padding.

        `block`: by the one kernel of edgekd_cuda_suppress_block.
        """
        job = self.suppress_job(boxes, scores, max_det=max_det, block=block, **options)
        function = self.lib.edgekd_cuda_suppress_block if block else self.lib.edgekd_cuda_suppress
        status = function(job, self.ffi.NULL)
        assert status == 0, f"status {status}"
        counts, kept, best, labels = (self.field(job, f"out_{name}") for name in ("count", "boxes", "scores", "labels"))
        for image, count in enumerate(counts):
            assert 0 <= count <= max_det
            assert not kept[image, count:].view(np.uint32).any()
            assert not best[image, count:].view(np.uint32).any()
            assert (labels[image, count:] == -1).all()
        np.testing.assert_array_equal(self.field(job, "boxes").view(np.uint32), boxes.view(np.uint32))  # not written
        self.memory.free()
        return [(kept[i, :n], best[i, :n], labels[i, :n]) for i, n in enumerate(counts)]

    def suppress_job(
        self, boxes: NDArray[np.float32], scores: NDArray[Any], *, max_det: int, max_candidates: int,
        classes: Sequence[int] | None = None, metric: str = "iou", every_class: bool = False, block: bool = False,
        **thresholds: float,
    ) -> Any:  # fmt: skip
        """Return a job with its arrays in place; outputs and workspace hold garbage."""
        batch, rows, columns = boxes.shape
        together, times = (1, batch) if block else (batch, 1)
        sizes = (together, rows, columns, scores.shape[2], every_class, max_candidates)
        space = max(times * self.lib.edgekd_cuda_suppress_workspace(*sizes), 64)
        garbage = np.random.default_rng(7).integers(0, 256, space, np.uint8)
        fields = {
            "boxes": boxes, "scores": scores, "out_count": np.full(batch, -7, np.int32),
            "out_boxes": np.full((batch, max_det, columns), np.nan, np.float32),
            "out_scores": np.full((batch, max_det), np.nan, np.float32),
            "out_labels": np.full((batch, max_det), -7, np.int32), "workspace": garbage, "workspace_bytes": space,
            "batch": batch, "rows": rows, "columns": columns, "classes": scores.shape[2],
            "half_scores": scores.dtype == np.float16, "every_class": every_class, "metric": METRICS.index(metric),
            "max_candidates": max_candidates, "max_det": max_det,
        }  # fmt: skip
        if classes is not None:
            fields["allowed"] = np.isin(np.arange(scores.shape[2]), list(classes)).astype(np.uint8)
        return self.job("edgekd_suppress_job", {**fields, **thresholds})

    def letterbox(self, image: NDArray[np.uint8], height: int, width: int, **options: Any) -> NDArray[Any]:
        """Return what geometry.letterbox returns first, of an image whose pixels are adjacent in every row."""
        job = self.letterbox_job(image, height, width, **options)
        status = self.lib.edgekd_cuda_letterbox(job, self.ffi.NULL)
        assert status == 0, f"status {status}"
        filled = self.field(job.canvas, "data")
        self.memory.free()
        return filled

    def letterbox_job(
        self, image: NDArray[np.uint8], height: int, width: int, *, pixels: str = "interleaved",
        dtype: DTypeLike = np.float32, layout: str = "nchw", scale: float = 1.0, **values: Any,
    ) -> Any:  # fmt: skip
        """Return a job with its arrays in place; the canvas holds garbage."""
        frame = self._frame(image, pixels)
        placement, new_height, new_width = geometry.place(frame["height"], frame["width"], height, width)
        shape = (3, height, width) if layout == "nchw" else (height, width, 3)
        garbage = np.full(3 * height * width * np.dtype(dtype).itemsize, 0xA5, np.uint8).view(dtype).reshape(shape)
        canvas = {
            "data": garbage, "height": height, "width": width, "new_height": new_height, "new_width": new_width,
            "left": placement.left, "top": placement.top, "values": geometry.DTYPES.index(np.dtype(dtype)),
            "layout": geometry.LAYOUTS.index(layout), "pad": 114, "scale": scale, **values,
        }  # fmt: skip
        return self.job("edgekd_letterbox_job", {"frame": frame, "canvas": canvas})

    def _frame(self, image: NDArray[np.uint8], pixels: str) -> dict[str, Any]:
        """Return the fields of an edgekd_frame, after putting its rows into memory."""
        height, width = geometry.check_frame(image, pixels)
        if pixels == "nv12":
            luma, chroma = self._rows(image[:height]), self._rows(image[height:])
            names = ("data", "row_stride", "chroma", "chroma_stride")
            return dict(zip(names, luma + chroma, strict=True), pixels=3, height=height, width=width)
        data, stride = self._rows(image)
        kind = 4 if pixels == "yuyv" else {1: 0, 3: 1, 4: 2}[image.shape[2]]
        return {"data": data, "row_stride": stride, "pixels": kind, "height": height, "width": width}

    def _rows(self, rows: NDArray[np.uint8]) -> tuple[int, int]:
        """Put rows into memory as they lie here, gaps and order; return the address of the first, and the stride."""
        flipped = rows.strides[0] < 0
        stored = rows[::-1] if flipped else rows
        stride, size = stored.strides[0], stored[0].size
        memory = np.zeros((len(stored) - 1) * stride + size, np.uint8)
        np.lib.stride_tricks.as_strided(memory, (len(stored), size), (stride, 1))[...] = stored.reshape(-1, size)
        address = self.memory.put(memory)
        return (address + (len(stored) - 1) * stride, -stride) if flipped else (address, stride)

    def time(self, function: str, job: Any, samples: int) -> NDArray[np.float32]:
        """Return how many microseconds a replay of the captured call takes, `samples` times."""
        taken = np.empty(samples, np.float32)
        queue = self.ffi.cast(
            "int32_t (*)(const void *, void *)", self.ffi.addressof(self.lib, f"edgekd_cuda_{function}")
        )
        status = self.lib.edgekd_device_time(queue, job, samples, self.ffi.from_buffer("float[]", taken))
        assert status == 0, f"CUDA error {status}"
        return taken

    def job(self, name: str, fields: dict[str, Any]) -> Any:
        """Return a struct of the ABI; arrays are put into memory."""
        job = self.ffi.new(f"struct {name} *")
        self._fill(job, self.ffi.typeof(job).item, fields)
        return job

    def _fill(self, struct: Any, kind: Any, fields: dict[str, Any]) -> None:
        types = {field: detail.type for field, detail in kind.fields}
        for field, value in fields.items():
            if isinstance(value, dict):
                self._fill(getattr(struct, field), types[field], value)
                continue
            stored = self.memory.put(value) if isinstance(value, np.ndarray) else value
            setattr(struct, field, self.ffi.cast(types[field], stored) if types[field].kind == "pointer" else stored)

    def field(self, job: Any, name: str) -> NDArray[Any]:
        """Return the array that a pointer of a job points to."""
        return self.memory.get(int(self.ffi.cast("intptr_t", getattr(job, name))))
