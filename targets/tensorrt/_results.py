"""Where the suppression writes on the GPU, and how the host reads it: one block, so that one copy brings it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgekd._session import Found

from ._jobs import aligned, workspace_bytes
from ._shared import Shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekd._manifest import OutputSpec
    from edgekd._session import Request
    from edgekd.geometry import Placement

    from ._device import Device, Stream


class _Piece(NamedTuple):
    offset: int
    shape: tuple[int, ...]
    dtype: str


def _pieces(batch: int, max_det: int, columns: int) -> tuple[dict[str, _Piece], int]:
    """Return the arrays that come back, by their names in the job, and the bytes of all."""
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "out_count": ((batch,), "i4"), "out_boxes": ((batch, max_det, columns), "f4"),
        "out_scores": ((batch, max_det), "f4"), "out_labels": ((batch, max_det), "i4"),
    }  # fmt: skip
    found, offset = {}, 0
    for name, (shape, dtype) in shapes.items():
        found[name] = _Piece(offset, shape, dtype)
        offset += aligned(int(np.prod(shape)) * 4)
    return found, offset


class Results:
    """Room for the detections of a batch, and the suppression's workspace."""

    def __init__(self, device: Device, outputs: Sequence[OutputSpec], batch: int, request: Request) -> None:
        """Allocate for this request, and for every one that wants no more."""
        self._rows, self._columns = outputs[0].shape
        self._batch, self._max_det, self._max_candidates = batch, request.max_det, request.max_candidates
        self._workspace_bytes = workspace_bytes(batch, self._rows, self._columns, request.max_candidates)
        self._workspace = device.allocate(self._workspace_bytes)
        try:
            self._block = Shared(device, _pieces(batch, request.max_det, self._columns)[1])
        except BaseException:
            self._workspace.free()
            raise

    def fits(self, request: Request) -> bool:
        """Whether a request wants no more than there is."""
        return request.max_det <= self._max_det and request.max_candidates <= self._max_candidates

    def fields(self, request: Request) -> dict[str, Any]:
        """Return the fields of the job that say where to write."""
        pieces, _ = _pieces(self._batch, request.max_det, self._columns)
        there = {name: self._block.address + piece.offset for name, piece in pieces.items()}
        return {**there, "workspace": self._workspace.address, "workspace_bytes": self._workspace_bytes}

    def download(self, stream: Stream, request: Request) -> None:
        """Queue the copy back."""
        self._block.download(stream, _pieces(self._batch, request.max_det, self._columns)[1])

    def read(self, request: Request, placements: Sequence[Placement]) -> list[Found]:
        """Return copies of what was found in each image, in network pixels."""
        pieces, _ = _pieces(self._batch, request.max_det, self._columns)
        arrays = {}
        for name, piece in pieces.items():
            held = self._block.array[piece.offset : piece.offset + int(np.prod(piece.shape)) * 4]
            arrays[name] = held.view(piece.dtype).reshape(piece.shape)
        found = []
        for image, placement in enumerate(placements):
            count = int(arrays["out_count"][image])
            boxes, scores, labels = (arrays[f"out_{name}"][image, :count] for name in ("boxes", "scores", "labels"))
            found.append(Found(boxes.copy(), scores.copy(), labels.astype(np.int64), placement))
        return found

    def free(self) -> None:
        """Give it back; a second call does nothing."""
        self._workspace.free()
        self._block.free()
