"""Kernel tests run once for each compiled implementation; those of CUDA emulated, and on the GPU if there is one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from edgekd import ops

from . import cuda_library

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPILED = ops.available()[:-1] or ("c++",)  # the last is the reference; those of other processors are none of ours


@pytest.fixture(scope="module", params=COMPILED)
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param not in ops.available():
        pytest.skip("the kernels were not compiled")
    ops.select(request.param)
    yield request.param
    ops.select("auto")


GPU = [pytest.param("gpu", marks=pytest.mark.gpu)] if cuda_library.no_gpu() is None else []


@pytest.fixture(scope="session", params=["emulated", *GPU])
def cuda(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> cuda_library.CudaKernels:
    if request.param == "gpu":
        library = cuda_library.build_for_gpu(tmp_path_factory.mktemp("cuda"))
        return cuda_library.CudaKernels(library, emulated=False)
    if cuda_library.HOST_COMPILER is None or sys.platform != "linux":
        pytest.skip("the emulation of CUDA needs g++ on Linux")
    library = cuda_library.build_emulated(request.config.cache.mkdir("edgekd"))
    return cuda_library.CudaKernels(library, emulated=True)
