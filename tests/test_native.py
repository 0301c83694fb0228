"""Which implementation serves, what is said about it, and that the reference takes over."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekd import geometry, native, ops
from edgekd.errors import UsageError
from edgekd.ops._letterbox import _readable

if TYPE_CHECKING:
    from collections.abc import Iterator

BOXES = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]])
SCORES = np.float32([[0.9], [0.8], [0.7]])


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    yield
    ops.select("auto")


def _calls() -> list[object]:
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    planes, placement = ops.letterbox(image, 8, 8, swap=True, mean=(1, 2, 3), std=(4, 5, 6))
    suppressed = ops.suppress(BOXES, SCORES, conf=0.1, iou=0.5, max_det=9, max_candidates=9)
    regions = ops.anomaly_regions(BOXES, 8, 9, sigma=0.5, threshold=8.0, min_area=3)
    arrays = [planes, *suppressed, *ops.candidates(SCORES, 0.1, 9), ops.nms(BOXES, SCORES[:, 0], 0.5)]
    arrays += [regions.map, regions.mask, regions.boxes, regions.areas, regions.peaks]
    return [placement, *(array.tolist() for array in arrays)]


def test_the_fastest_available_implementation_serves() -> None:
    assert ops.implementation() == ops.available()[0]
    assert ops.available()[-1] == "numpy reference"


def test_select_changes_who_computes_and_not_the_result() -> None:
    results = []
    for name in ops.available():
        ops.select(name)
        assert ops.implementation() == name
        results.append(_calls())
    assert all(result == results[0] for result in results)
    ops.select("auto")
    assert ops.implementation() == ops.available()[0]


def test_select_of_something_else_lists_what_is_possible() -> None:
    with pytest.raises(UsageError, match=r"'cuda'.*possible: auto, .*numpy reference"):
        ops.select("cuda")


def test_without_compiled_kernels_the_reference_serves_and_says_so_once(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "edgekd._native", None)  # as if it had not been compiled: the import fails
    for name, value in vars(native.Kernels()).items():
        monkeypatch.setattr(native.kernels, name, value)
    assert ops.implementation() == "numpy reference"
    assert ops.available() == ("numpy reference",)
    with caplog.at_level(logging.WARNING, logger="edgekd"):
        bare = _calls()
        _calls()
    assert len(caplog.records) == 1
    assert "reinstall edgekd" in caplog.text
    monkeypatch.undo()
    assert bare == _calls()


def test_import_computes_and_prints_nothing() -> None:
    code = "import edgekd.ops, sys; sys.exit('cv2' in sys.modules or 'PIL' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_letterbox_reads_a_reversed_view_without_a_copy() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    view, swap = _readable(image[:, :, ::-1], swap=False)
    assert swap is True
    assert view.base is image
    crop, _ = _readable(image[1:3, 1:3], swap=False)
    assert np.shares_memory(crop, image)
    grey = np.zeros((4, 8), np.uint8)[:, :4, None]  # a crop, whose last axis has whatever stride NumPy likes
    assert np.shares_memory(_readable(grey, swap=False)[0], grey)
    assert not np.shares_memory(_readable(image[:, ::2], swap=False)[0], image)


def test_letterbox_reads_a_crop_of_a_camera_frame_without_a_copy() -> None:
    nv12, yuyv = np.zeros((12, 8), np.uint8), np.zeros((8, 8, 2), np.uint8)
    for crop in (nv12[:, 2:6], nv12[::-1], yuyv[1:5, 2:6], yuyv[::-1]):
        assert _readable(crop, swap=True)[1] is True
        assert np.shares_memory(_readable(crop, swap=True)[0], crop)
    assert not np.shares_memory(_readable(nv12[:, ::2], swap=True)[0], nv12)
    assert not np.shares_memory(_readable(yuyv[:, :, ::-1], swap=True)[0], yuyv)


def test_kernels_share_nothing_between_threads() -> None:
    rng = np.random.default_rng(0)
    problems = []
    for n in (10, 300, 700, 1500):
        corner = rng.random((n, 2)) * 200
        boxes = np.concatenate([corner, corner + rng.random((n, 2)) * 40 + 1], axis=1).astype(np.float32)
        scores = rng.random((n, 3)).astype(np.float32)
        expected = geometry.suppress(boxes, scores, conf=0.2, iou=0.5, max_det=400, max_candidates=900)
        problems.append((boxes, scores, expected))
    wrong: list[int] = []

    def work(i: int) -> None:
        boxes, scores, expected = problems[i]
        for _ in range(50):
            found = ops.suppress(boxes, scores, conf=0.2, iou=0.5, max_det=400, max_candidates=900)
            wrong.extend(i for a, b in zip(found, expected, strict=True) if not np.array_equal(a, b))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1, 2, 3, 3, 2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_repeated_calls_reuse_the_workspace() -> None:
    if ops.implementation() == "numpy reference":
        pytest.skip("the reference has no workspace")
    _calls()
    memory = native.kernels.local.memory[0]
    for _ in range(5):
        _calls()
    assert native.kernels.local.memory[0] is memory
