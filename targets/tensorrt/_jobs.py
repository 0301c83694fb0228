"""The jobs and launches that kernels/edgekd_cuda.h tables, in NumPy: for those who launch the kernels by name.

`tests/targets/test_tensorrt_jobs.py` compares every layout, size and launch with the compiled header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgekd._manifest import InputSpec
    from edgekd.geometry import Placement

FRAME = np.dtype(
    [("data", "u8"), ("chroma", "u8"), ("row_stride", "i8"), ("chroma_stride", "i8"), ("height", "i8"), ("width", "i8"),
     ("pixels", "i4")],
    align=True,
)  # fmt: skip
CANVAS = np.dtype(
    [("data", "u8"), ("height", "i8"), ("width", "i8"), ("new_height", "i8"), ("new_width", "i8"), ("left", "i8"),
     ("top", "i8"), ("values", "i4"), ("layout", "i4"), ("swap", "i4"), ("pad", "i4"), ("mean", "f4", 3),
     ("std", "f4", 3), ("scale", "f4"), ("zero_point", "i4")],
    align=True,
)  # fmt: skip
LETTERBOX = np.dtype([("frame", FRAME), ("canvas", CANVAS)], align=True)
SUPPRESS = np.dtype(
    [("boxes", "u8"), ("scores", "u8"), ("allowed", "u8"), ("out_count", "u8"), ("out_boxes", "u8"),
     ("out_scores", "u8"), ("out_labels", "u8"), ("workspace", "u8"), ("workspace_bytes", "i8"), ("batch", "i4"),
     ("rows", "i4"), ("columns", "i4"), ("classes", "i4"), ("half_scores", "i4"), ("every_class", "i4"),
     ("metric", "i4"), ("max_candidates", "i4"), ("max_det", "i4"), ("conf", "f4"), ("iou", "f4")],
    align=True,
)  # fmt: skip
PIXELS = {1: 0, 3: 1, 4: 2}  # enum edgekd_pixels, by channels
MAX_CANDIDATES = 4096
SHAPE_BYTES = {4: 20, 5: 40}  # struct Upright and struct Rotated, by columns
KEY_BYTES, LABEL_BYTES, WORD_BYTES = 8, 4, 8
ALIGNMENT = 64


class Launch(NamedTuple):
    """One kernel to queue."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    job: np.void


def aligned(size: int) -> int:
    """Return a size in bytes rounded up, so that what follows is aligned."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def letterbox(
    address: int,
    shape: tuple[int, int, int],
    place: tuple[Placement, int, int],
    spec: InputSpec,
    to: int,
    *,
    swap: bool,
) -> Launch:
    """Return the launch that fills one image of the network's input, float32 planes.

    Args:
        address: of the frame's first byte; its rows have no gaps.
        shape: `(height, width, channels)` of the frame.
        place: what `edgekd.geometry.place` returned.
        spec: of the network's input.
        to: address of the image's planes.
        swap: whether to reverse the order of the channels.
    """
    height, width, channels = shape
    placement, new_height, new_width = place
    job: Any = np.zeros((), LETTERBOX)
    job["frame"] = (address, 0, width * channels, 0, height, width, PIXELS[channels])
    job["canvas"] = (
        to, spec.height, spec.width, new_height, new_width, placement.left, placement.top, 0, 0, swap, spec.pad,
        spec.mean, spec.std, 1.0, 0,
    )  # fmt: skip
    return Launch("edgekd_letterbox_packed", (-(-spec.width // 64), -(-spec.height // 16), 1), 256, job[()])


def _limits(rows: int, max_candidates: int) -> tuple[int, int]:
    """Return the most boxes that reach the suppression, and the mask words of each."""
    limit = max(1, min(rows, max_candidates))
    return limit, -(-limit // 64)


def workspace_bytes(batch: int, rows: int, columns: int, max_candidates: int) -> int:
    """Return the bytes that `suppress` needs, for the best class of each row."""
    limit, words = _limits(rows, max_candidates)
    pieces = (LABEL_BYTES, LABEL_BYTES, rows * KEY_BYTES, limit * KEY_BYTES, limit * LABEL_BYTES,
              limit * SHAPE_BYTES[columns], limit * words * WORD_BYTES)  # fmt: skip
    return sum(aligned(batch * piece) for piece in pieces)


def suppress(fields: Mapping[str, Any]) -> list[Launch]:
    """Return the launches of one suppression of float32 scores, each row by its best class.

    Args:
        fields: of `edgekd_suppress_job`; those left out are 0.
    """
    job: Any = np.zeros((), SUPPRESS)
    for name, value in fields.items():
        job[name] = value
    batch, rows, columns, classes = (int(job[name]) for name in ("batch", "rows", "columns", "classes"))
    lanes = 1
    while lanes < 32 and lanes * 8 <= classes:
        lanes *= 2
    _, words = _limits(rows, int(job["max_candidates"]))
    layout = {4: "xyxy", 5: "xywhr"}[columns]
    return [
        Launch("edgekd_suppress_clear", (-(-batch // 256), 1, 1), 256, job[()]),
        Launch("edgekd_candidates_filter_f32", (max(1, -(-rows // (256 // lanes))), batch, 1), 256, job[()]),
        Launch("edgekd_candidates_select", (batch, 1, 1), 512, job[()]),
        Launch(f"edgekd_nms_shapes_{layout}", (words, batch, 1), 64, job[()]),
        Launch(f"edgekd_nms_mask_{layout}", (words + 1, -(-words // 2), batch), 256, job[()]),
        Launch("edgekd_nms_scan", (batch, 1, 1), 512, job[()]),
    ]
