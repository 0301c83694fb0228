"""Rows of a network that picks them itself (TopK in the graph): the same object may stand in another row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import ops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._session import Outputs

SAME_CLASS = 1.0  # worth more than any overlap: boxes of two classes may coincide


def aligned(reference: Outputs, other: Outputs) -> Outputs:
    """Return another run's rows in the order of the reference's.

    Rows of the same best class whose boxes overlap most belong together, best pair first; then those of other classes.
    What overlaps nothing fills the places that are left, in its own order, and differs there.

    Args:
        reference: boxes `(1, N, 4 | 5)` and scores `(1, N, C)`.
        other: the same of the other run.
    """
    order = _order((reference[0][0], reference[1][0]), (other[0][0], other[1][0]))
    return tuple(np.ascontiguousarray(item[:, order]) for item in other)


def _order(
    reference: tuple[NDArray[np.float32], NDArray[np.float32]], other: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.int64]:
    overlap = ops.iou_rotated if reference[0].shape[1] == 5 else ops.iou
    worth = np.asarray(overlap(reference[0], other[0]), np.float64)
    touching = worth > 0
    worth += SAME_CLASS * (reference[1].argmax(axis=1)[:, None] == other[1].argmax(axis=1)[None])
    count = len(worth)
    found = np.full(count, -1, np.int64)
    taken = np.zeros(count, bool)
    pairs = np.argwhere(touching)
    for row, column in pairs[np.argsort(-worth[touching], kind="stable")]:
        if found[row] < 0 and not taken[column]:
            found[row], taken[column] = column, True
    found[found < 0] = np.flatnonzero(~taken)
    return found
