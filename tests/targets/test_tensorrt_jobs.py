"""The jobs in NumPy are those of the C header, and the launches by name are those that its functions do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from edgekd.targets.tensorrt import _jobs
from hypothesis import given
from hypothesis import strategies as st

from edgekd import geometry

from ..conformance import bundles

if TYPE_CHECKING:
    from ..kernels.cuda_library import CudaKernels


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("edgekd_frame", _jobs.FRAME), ("edgekd_canvas", _jobs.CANVAS),
        ("struct edgekd_letterbox_job", _jobs.LETTERBOX), ("struct edgekd_suppress_job", _jobs.SUPPRESS),
    ],
)  # fmt: skip
def test_job_has_the_layout_of_its_struct(emulated: CudaKernels, name: str, dtype: np.dtype[Any]) -> None:
    kind = emulated.ffi.typeof(name)
    assert dtype.itemsize == emulated.ffi.sizeof(kind)
    offsets = {field: (detail.offset, emulated.ffi.sizeof(detail.type)) for field, detail in kind.fields}
    assert dtype.fields is not None
    assert {field: (entry[1], entry[0].itemsize) for field, entry in dtype.fields.items()} == offsets
    assert list(dtype.names or ()) == [field for field, _ in kind.fields]


@given(
    st.integers(1, 70), st.integers(0, 9000), st.sampled_from([4, 5]), st.integers(0, 90), st.integers(1, 4096)
)  # fmt: skip
def test_workspace_is_what_the_library_says(emulated: CudaKernels, batch, rows, columns, classes, most) -> None:
    expected = emulated.lib.edgekd_cuda_suppress_workspace(batch, rows, columns, classes, 0, most)
    assert _jobs.workspace_bytes(batch, rows, columns, most) == expected


@pytest.mark.parametrize("columns", [4, 5])
@pytest.mark.parametrize(
    ("batch", "rows", "classes", "most"), [(1, 1, 1, 1), (2, 65, 8, 4096), (300, 33, 3, 20), (3, 257, 128, 129)]
)
def test_suppress_launches_are_those_of_the_library(emulated: CudaKernels, columns, batch, rows, classes, most) -> None:
    boxes, scores = np.zeros((batch, rows, columns), np.float32), np.zeros((batch, rows, classes), np.float32)
    options: dict[str, Any] = {"conf": 0.5, "iou": 0.5, "max_det": 1, "max_candidates": most}
    expected = emulated.traced(lambda: emulated.suppress(boxes, scores, **options))
    fields = {"batch": batch, "rows": rows, "columns": columns, "classes": classes, "max_candidates": most}
    assert [launch[:3] for launch in _jobs.suppress(fields)] == expected


@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 17, 3), (40, 200, 4)])
def test_letterbox_launch_is_that_of_the_library(emulated: CudaKernels, shape: tuple[int, int, int]) -> None:
    spec = bundles.manifest().input
    place = geometry.place(shape[0], shape[1], spec.height, spec.width)
    image = np.zeros(shape, np.uint8)
    options: dict[str, Any] = {"swap": False, "mean": spec.mean, "std": spec.std}
    expected = emulated.traced(lambda: emulated.letterbox(image, spec.height, spec.width, **options))
    assert [_jobs.letterbox(64, shape, place, spec, 128, swap=False)[:3]] == expected
