"""The launches that edgekd_cuda.h tables, for those who launch by name, are those that its functions do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from .cuda_library import CudaKernels

Launch = tuple[str, tuple[int, int, int], int]


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


def _tabled(
    batch: int, rows: int, columns: int, classes: int, half: bool, metric: str, max_candidates: int, every_class: bool
) -> Any:
    lanes = max(lanes for lanes in (1, 2, 4, 8, 16, 32) if lanes == 1 or lanes <= classes / 4)
    most = rows * classes if every_class else rows
    words = _ceil(max(1, min(most, max_candidates)), 64)
    kind = 16 if half else 32
    candidates = (f"edgekd_candidates_filter_f{kind}", (max(1, _ceil(rows, 256 // lanes)), batch, 1), 256)
    if every_class:
        candidates = (f"edgekd_candidates_every_f{kind}", (max(1, _ceil(most, 1024)), batch, 1), 256)
    shape = "xyxy" if columns == 4 else "xywhr"
    return [
        ("edgekd_suppress_clear", (_ceil(batch, 256), 1, 1), 256),
        candidates,
        ("edgekd_candidates_select", (batch, 1, 1), 512),
        (f"edgekd_nms_shapes_{shape}", (words, batch, 1), 64),
        (f"edgekd_nms_mask_{shape if metric == 'iou' else metric}", (words + 1, _ceil(words, 2), batch), 256),
        ("edgekd_nms_scan", (batch, 1, 1), 512),
    ]


def test_an_error_that_somebody_left_unread_is_not_taken_for_a_refused_launch(cuda) -> None:
    if not cuda.emulated:
        pytest.skip("compute-sanitizer would report the error")
    boxes, scores = np.zeros((1, 9, 4), np.float32), np.zeros((1, 9, 2), np.float32)
    for block in (False, True):
        cuda.lib.emulation_fail()
        cuda.suppress(boxes, scores, conf=0.5, iou=0.5, max_det=9, max_candidates=9, block=block)
    cuda.lib.emulation_fail()
    cuda.letterbox(np.zeros((4, 4, 3), np.uint8), 8, 8, swap=False, mean=(0.0,) * 3, std=(1.0,) * 3)


def _traced(cuda: CudaKernels, call: Any) -> list[Launch]:
    if not cuda.emulated:
        pytest.skip("launches are traced in emulation")
    return cuda.traced(call)


@pytest.mark.parametrize(
    ("batch", "rows", "columns", "classes", "half", "metric", "max_candidates"),
    [
        (1, 0, 4, 0, False, "iou", 4096), (1, 1, 4, 1, True, "iou", 1), (2, 64, 4, 7, False, "iou", 4096),
        (1, 65, 4, 8, True, "iou", 65), (1, 256, 5, 15, False, "iou", 64), (1, 257, 5, 16, True, "probiou", 129),
        (300, 33, 5, 3, False, "probiou", 128), (1, 1000, 4, 127, False, "iou", 1000), (3, 9, 5, 128, True, "iou", 9),
        (1, 64, 4, 16, False, "iou", 64), (1, 41, 4, 25, True, "iou", 64),
    ],
)  # fmt: skip
@pytest.mark.parametrize("every_class", [False, True])
def test_suppress_launches_as_tabled(
    cuda, batch, rows, columns, classes, half, metric, max_candidates, every_class
) -> None:
    boxes = np.zeros((batch, rows, columns), np.float32)
    scores = np.zeros((batch, rows, classes), np.float16 if half else np.float32)
    options = {"conf": 0.5, "iou": 0.5, "max_det": 1, "max_candidates": max_candidates}
    options |= {"metric": metric, "every_class": every_class}
    launches = _traced(cuda, lambda: cuda.suppress(boxes, scores, **options))
    assert launches == _tabled(batch, rows, columns, classes, half, metric, max_candidates, every_class)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 64), (17, 65), (40, 200)])
@pytest.mark.parametrize(
    ("kind", "pixels", "shape"),
    [
        ("packed", "interleaved", (5, 5, 1)), ("packed", "interleaved", (5, 5, 3)),
        ("packed", "interleaved", (5, 5, 4)), ("nv12", "nv12", (9, 4)), ("yuyv", "yuyv", (5, 4, 2)),
    ],
)  # fmt: skip
def test_letterbox_launches_as_tabled(cuda, height, width, kind, pixels, shape) -> None:
    options = {"swap": False, "mean": (0.0,) * 3, "std": (1.0,) * 3, "pixels": pixels}
    launches = _traced(cuda, lambda: cuda.letterbox(np.zeros(shape, np.uint8), height, width, **options))
    assert launches == [(f"edgekd_letterbox_{kind}", (_ceil(width, 64), _ceil(height, 16), 1), 256)]
