"""NumPy in, NumPy out: letterbox, candidates, NMS and suppress through the compiled kernels.

The semantics, to the bit, are those of `edgekd.geometry`, which also serves where the kernels were not compiled: then
one line on the "edgekd" logger says so at the first call. All functions may be called from any number of threads; the
compiled ones release the GIL, and take no memory in steady state but the arrays that they return.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from . import geometry
from .errors import UsageError
from .geometry import Placement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "IMPLEMENTATIONS",
    "Placement",
    "available",
    "candidates",
    "implementation",
    "letterbox",
    "nms",
    "select",
    "suppress",
]

IMPLEMENTATIONS = ("c++ avx2", "c++", "numpy reference")
"""What can compute, fastest first."""

INSTRUCTIONS = {"c++": 1, "c++ avx2": 2}  # enum edgekd_instructions
STATUS = {
    -1: "an argument is out of range",
    -2: "the workspace is too small",
    -3: "the processor lacks the instructions",
}
EMPTY = np.empty(1, np.float32)  # something to point at where an array has no element


class _Kernels:
    """The compiled library, if there is one, and which implementation serves."""

    def __init__(self) -> None:
        self.lib: Any = None
        self.ffi: Any = None
        self.local = threading.local()
        self.reason = ""
        try:
            from ._native import ffi, lib
        except ImportError as error:
            self.reason = f"the C++ kernels cannot be used ({error})"
        else:
            self.lib, self.ffi = lib, ffi
        self.serving = self.available()[0]
        self.told = False

    def available(self) -> tuple[str, ...]:
        if self.lib is None:
            return IMPLEMENTATIONS[2:]
        return (
            IMPLEMENTATIONS if self.lib.edgekd_best_instructions() == INSTRUCTIONS["c++ avx2"] else IMPLEMENTATIONS[1:]
        )

    def instructions(self) -> int:
        """Return the `instructions` argument of the kernels; 0: the reference serves."""
        if self.lib is None and not self.told:
            self.told = True
            logging.getLogger("edgekd").warning(
                "edgekd: %s; the NumPy reference serves, right but slow. To compile them: install a C++ compiler and "
                "reinstall edgekd",
                self.reason,
            )
        return INSTRUCTIONS.get(self.serving, 0)

    def pointer(self, array: NDArray[Any] | None, kind: str) -> Any:
        """Return a C pointer to the first element; the caller keeps the array alive."""
        if array is None:
            return self.ffi.NULL
        return self.ffi.from_buffer(kind, array if array.size else EMPTY)

    def workspace(self, needed: int) -> tuple[Any, int]:
        """Return this thread's scratch memory of at least `needed` bytes: it grows and is kept."""
        held = getattr(self.local, "memory", None)
        if held is None or len(held[0]) < needed:
            memory = np.empty(needed, np.uint8)
            held = self.local.memory = (memory, self.ffi.from_buffer("char[]", memory))
        return held[1], len(held[0])

    def check(self, status: int, name: str) -> None:
        if status != 0:
            raise UsageError(f"{name}: {STATUS.get(status, f'status {status}')}")


_kernels = _Kernels()


def implementation() -> str:
    """Say what computes: one of `IMPLEMENTATIONS`."""
    return _kernels.serving


def available() -> tuple[str, ...]:
    """Return what of `IMPLEMENTATIONS` can compute here, fastest first."""
    return _kernels.available()


def select(name: str) -> None:
    """Choose what computes, for the whole process: to compare implementations or to track a fault down.

    Args:
        name: "auto" (the fastest), or one of `IMPLEMENTATIONS`.

    Raises:
        UsageError: it is not available here; the message lists what is.
    """
    possible = _kernels.available()
    if name != "auto" and name not in possible:
        raise UsageError(f"no implementation {name!r} here; possible: auto, {', '.join(possible)}")
    _kernels.serving = possible[0] if name == "auto" else name


def letterbox(
    image: NDArray[np.uint8],
    height: int,
    width: int,
    *,
    swap: bool,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int = 114,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Placement]:
    """Resize, pad, reorder and normalise an image in one pass; see `edgekd.geometry.letterbox` for all but speed.

    Crops and flipped views are read where they lie; only an image whose rows are not runs of pixels is copied first.

    Args:
        image: `(H, W, 1|3|4)` uint8, any strides.
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        swap: reverse the order of the three channels.
        mean: 3 values in 0..255 units, in the order of the output channels.
        std: 3 positive values, likewise.
        pad: grey level of the border, 0..255.
        out: `(3, height, width)` float32, C-contiguous, to be filled; None: a new one.

    Returns:
        The float32 planes `(3, height, width)` and the placement.

    Raises:
        UsageError: a wrong shape, dtype or value.
    """
    instructions = _kernels.instructions()
    if not instructions:
        return geometry.letterbox(image, height, width, swap=swap, mean=mean, std=std, pad=pad, out=out)
    geometry.check_letterbox(image, mean, std, pad)
    placement, new_height, new_width = geometry.place(image.shape[0], image.shape[1], height, width)
    planes = geometry.canvas(height, width, out)
    image, swap = _readable(image, swap)
    rows, columns, channels = image.shape
    ffi, lib = _kernels.ffi, _kernels.lib
    workspace = _kernels.workspace(lib.edgekd_letterbox_workspace(new_width))
    status = lib.edgekd_letterbox(
        ffi.cast("uint8_t *", image.__array_interface__["data"][0]), rows, columns, channels, image.strides[0],
        _kernels.pointer(planes, "float[]"), height, width, new_height, new_width, placement.left, placement.top,
        swap, tuple(mean), tuple(std), pad, instructions, *workspace,
    )  # fmt: skip
    _kernels.check(status, "letterbox")
    return planes, placement


def _readable(image: NDArray[np.uint8], swap: bool) -> tuple[NDArray[np.uint8], bool]:
    """Return the image with adjacent pixels in each row, and `swap`: `image[:, :, ::-1]` is undone, not copied."""
    channels = image.shape[2]
    if channels == 3 and image.strides[2] == -1:
        image, swap = image[:, :, ::-1], not swap
    packed = channels == 1 or image.strides[2] == 1  # NumPy says anything about the stride of an axis of length 1
    if packed and (image.strides[1] == channels or image.shape[1] == 1):
        return image, swap
    return np.ascontiguousarray(image), swap


def candidates(
    scores: NDArray[np.float32], conf: float, limit: int, classes: Sequence[int] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Pick the rows whose best class scores more than `conf`, best first; see `edgekd.geometry.candidates`.

    Args:
        scores: `(N, C)` float32; values that are not finite are as if absent.
        conf: threshold; strict.
        limit: most rows, at least 1; those with the best scores stay.
        classes: only these columns compete; None: all.

    Returns:
        `(K,)` each: row int64, label int64 (the lowest on a tie), score float32; by score, ties by row.

    Raises:
        UsageError: a wrong shape, limit or class.
    """
    instructions = _kernels.instructions()
    if not instructions:
        return geometry.candidates(scores, conf, limit, classes)
    scores, allowed = geometry.check_candidates(scores, conf, limit, classes)
    most = min(limit, len(scores))
    rows, labels, best = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.float32)
    count = _kernels.ffi.new("int64_t *")
    pointer, lib = _kernels.pointer, _kernels.lib
    status = lib.edgekd_candidates(
        pointer(scores, "float[]"), *scores.shape, conf, limit, pointer(allowed, "uint8_t[]"),
        pointer(rows, "int64_t[]"), pointer(labels, "int64_t[]"), pointer(best, "float[]"), count,
        instructions, *_kernels.workspace(lib.edgekd_candidates_workspace(len(scores))),
    )  # fmt: skip
    _kernels.check(status, "candidates")
    return rows[: count[0]].copy(), labels[: count[0]].copy(), best[: count[0]].copy()


def nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float, labels: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Suppress greedily and exactly, by label, strict `>`, ties by index; see `edgekd.geometry.nms`.

    Args:
        boxes: `(N, 4)` float32 xyxy.
        scores: `(N,)` float32; higher is better.
        iou: threshold in [0, 1].
        labels: `(N,)` int64 in the range of int32; None: all of one.

    Returns:
        `(K,)` int64 indices of the kept boxes, best score first.

    Raises:
        UsageError: wrong shapes, or `iou` outside [0, 1].
    """
    instructions = _kernels.instructions()
    if not instructions:
        return geometry.nms(boxes, scores, iou, labels)
    boxes, scores, classes = geometry.check_nms(boxes, scores, iou, labels)
    keep = np.empty(len(boxes), np.int64)
    count = _kernels.ffi.new("int64_t *")
    pointer, lib = _kernels.pointer, _kernels.lib
    status = lib.edgekd_nms(
        pointer(boxes, "float[]"), pointer(scores, "float[]"), pointer(classes, "int64_t[]"), len(boxes), iou,
        max(len(boxes), 1), pointer(keep, "int64_t[]"), count,
        instructions, *_kernels.workspace(lib.edgekd_nms_workspace(len(boxes))),
    )  # fmt: skip
    _kernels.check(status, "nms")
    return keep[: count[0]].copy()


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    conf: float,
    iou: float,
    max_det: int,
    max_candidates: int,
    classes: Sequence[int] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Turn a network's raw output into detections in one call; see `edgekd.geometry.suppress`.

    Args:
        boxes: `(N, 4)` float32 xyxy.
        scores: `(N, C)` float32.
        conf: see `candidates`.
        iou: see `nms`.
        max_det: most detections, at least 1.
        max_candidates: most rows that reach the suppression, at least 1.
        classes: only these; None: all.

    Returns:
        boxes `(K, 4)` float32, scores `(K,)` float32, labels `(K,)` int64; best score first.

    Raises:
        UsageError: wrong shapes or values.
    """
    instructions = _kernels.instructions()
    if not instructions:
        return geometry.suppress(
            boxes, scores, conf=conf, iou=iou, max_det=max_det, max_candidates=max_candidates, classes=classes
        )
    geometry.check_suppress(boxes, scores, iou, max_det)
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores, allowed = geometry.check_candidates(scores, conf, max_candidates, classes)
    most = min(max_det, len(scores))
    kept, best, labels = np.empty((most, 4), np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    count = _kernels.ffi.new("int64_t *")
    pointer, lib = _kernels.pointer, _kernels.lib
    status = lib.edgekd_suppress(
        pointer(boxes, "float[]"), pointer(scores, "float[]"), *scores.shape, conf, iou, max_candidates, max_det,
        pointer(allowed, "uint8_t[]"), pointer(kept, "float[]"), pointer(best, "float[]"), pointer(labels, "int64_t[]"),
        count, instructions, *_kernels.workspace(lib.edgekd_suppress_workspace(len(scores), max_candidates)),
    )  # fmt: skip
    _kernels.check(status, "suppress")
    return kept[: count[0]].copy(), best[: count[0]].copy(), labels[: count[0]].copy()
