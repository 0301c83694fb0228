"""Are the CUDA kernels right on this machine's GPU, to the bit, and how long do they take?

Compiles them for the GPU, runs on it the tests that elsewhere run emulated, then times each case as a captured graph,
between two events. Without a GPU: one line, exit code 4.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import conditions, write

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "kernels"
sys.path.insert(0, str(TESTS))

import cuda_library  # noqa: E402

SAMPLES = 200
SEED = 5


def boxes(n: int, columns: int) -> np.ndarray:
    """Return (1, n, columns) boxes of up to a fifth of a 640 x 640 image."""
    rng = np.random.default_rng(SEED)
    centre, size = rng.random((n, 2)) * 640, rng.random((n, 2)) * 128 + 1
    upright = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    rotated = np.concatenate([centre, size, rng.random((n, 1)) * 3], axis=1)
    return (upright if columns == 4 else rotated)[None].astype(np.float32)


def scores(n: int, classes: int, over: int) -> np.ndarray:
    """Return (1, n, classes) scores of which `over` rows have one over 0.25."""
    rng = np.random.default_rng(SEED)
    values = rng.random((1, n, classes), np.float32) * np.float32(0.2)
    rows = rng.permutation(n)[:over]
    values[0, rows, rng.integers(0, classes, over)] = rng.random(over, np.float32) * 0.7 + 0.3
    return values


def suppressions() -> dict[str, dict[str, Any]]:
    """Return the arguments of every timed suppression."""
    usual = {"conf": 0.25, "iou": 0.6, "max_det": 300, "max_candidates": 1000}
    most = {**usual, "max_candidates": 4096}
    few = scores(8400, 80, 300)
    return {
        "8400 x 80, 300 candidates": {"boxes": boxes(8400, 4), "scores": few, **usual},
        "8400 x 80 half, 300 candidates": {"boxes": boxes(8400, 4), "scores": few.astype(np.float16), **usual},
        "8400 x 80, 8400 candidates": {"boxes": boxes(8400, 4), "scores": scores(8400, 80, 8400), **usual},
        "8400 x 80, 300 rows, every class": {"boxes": boxes(8400, 4), "scores": few, **usual, "every_class": True},
        "1000 boxes": {"boxes": boxes(1000, 4), "scores": scores(1000, 1, 1000), **usual},
        "1000 rotated boxes": {"boxes": boxes(1000, 5), "scores": scores(1000, 1, 1000), **usual},
        "1000 rotated boxes, probiou": {
            "boxes": boxes(1000, 5), "scores": scores(1000, 1, 1000), **usual, "metric": "probiou",
        },
        "4096 rotated boxes": {"boxes": boxes(4096, 5), "scores": scores(4096, 1, 4096), **most},
    }  # fmt: skip


def letterboxes() -> dict[str, dict[str, Any]]:
    """Return the frame and the type of values of every timed letterbox."""
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 256, (1080, 1920, 3), np.uint8)
    nv12 = rng.integers(0, 256, (1620, 1920), np.uint8)
    return {
        "1920 x 1080 to 640 x 640": {"image": image},
        "1920 x 1080 to 640 x 640, uint8 NHWC": {
            "image": image, "dtype": np.uint8, "layout": "nhwc", "scale": 1 / 255,
        },
        "1920 x 1080 NV12 to 640 x 640": {"image": nv12, "pixels": "nv12"},
    }  # fmt: skip


def timed(cuda: cuda_library.CudaKernels, function: str, job: Any) -> list[float]:
    """Return the microseconds of each sample."""
    samples = cuda.time(function, job, SAMPLES)
    cuda.memory.free()
    return [round(float(value), 2) for value in samples]


def measure(cuda: cuda_library.CudaKernels) -> dict[str, list[float]]:
    """Return the samples of every case."""
    found = {}
    for name, case in suppressions().items():
        found[f"suppress: {name}"] = timed(cuda, "suppress", cuda.suppress_job(**case))
    usual = {"swap": True, "mean": (0.0,) * 3, "std": (255.0,) * 3}
    for name, case in letterboxes().items():
        job = cuda.letterbox_job(height=640, width=640, **usual, **case)
        found[f"letterbox: {name}"] = timed(cuda, "letterbox", job)
    return found


def gpu() -> str:
    """Return the name of the first GPU."""
    name = ctypes.create_string_buffer(256)
    ctypes.CDLL("libcuda.so.1").cuDeviceGetName(name, len(name), 0)
    return name.value.decode()


def main() -> int:
    """Test, time, write the JSON."""
    reason = cuda_library.no_gpu()
    if reason:
        sys.stderr.write(f"{reason}: this benchmark runs on a machine with an NVIDIA GPU and a CUDA toolkit\n")
        return 4
    tests = [TESTS / "test_cuda_emulated.py", TESTS / "test_cuda_letterbox.py"]
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", *tests], cwd=ROOT, check=False)
    if tested.returncode:
        sys.stderr.write("the tests failed on this GPU: nothing was timed\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        cuda = cuda_library.CudaKernels(cuda_library.build_for_gpu(Path(folder)), emulated=False)
        samples = measure(cuda)
    for name, values in samples.items():
        print(f"{name:50s} p50 {np.percentile(values, 50):8.1f} us  p95 {np.percentile(values, 95):8.1f} us")
    result = {
        **conditions(), "gpu": gpu(), "architecture": f"sm_{cuda_library.capability()}",
        "what": "us per replay of a captured graph; each sample the mean of ten",
        "p50_us": {name: float(np.percentile(values, 50)) for name, values in samples.items()},
        "p95_us": {name: float(np.percentile(values, 95)) for name, values in samples.items()},
        "samples_us": samples,
    }  # fmt: skip
    print(f"wrote {write('cuda_kernels', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
