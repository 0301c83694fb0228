"""By how much the boxes of two runs of one network differ, and what the difference is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class BoxDifference:
    """One row of one image; NaN where a number of the box is not finite.

    Attributes:
        px: see `edgekd.geometry.box_distances`; network pixels, as the others.
        image: of the golden set, from 0.
        row: of the network's output.
        centre_px: larger difference of the centre's x and y.
        sides_px: larger difference of a side and the side of the other box that comes nearest to its direction.
        angle_rad: between those directions, in [0, pi/4]; None for upright boxes.
    """

    px: float
    image: int
    row: int
    centre_px: float
    sides_px: float
    angle_rad: float | None

    def described(self) -> str:
        """Return where it is and what differs, for a sentence."""
        angle = "" if self.angle_rad is None else f", angle by {self.angle_rad:.3g} rad"
        parts = f"centre by {self.centre_px:.3g} px, sides by {self.sides_px:.3g} px{angle}"
        return f"image {self.image}, row {self.row}: {parts}"


def box_difference(
    reference: NDArray[np.float32], output: NDArray[np.float32], rows: NDArray[np.bool_], image: int
) -> BoxDifference | None:
    """Return the largest difference of any row that counts, or None if none does.

    Args:
        reference: `(N, 4)` xyxy or `(N, 5)` xywhr, network pixels and radians.
        output: likewise.
        rows: `(N,)`, which rows count.
        image: to be named in the result.
    """
    if not rows.any():
        return None
    distances = np.where(rows, geometry.box_distances(reference, output), -1.0)
    row = int(np.argmax(distances))  # a NaN is the largest
    parts = _upright_parts if reference.shape[1] == 4 else _oriented_parts
    with np.errstate(all="ignore"):
        centre, sides, angle = parts(reference[row].astype(np.float64), output[row].astype(np.float64))
    return BoxDifference(float(distances[row]), image, row, centre, sides, angle)


def worse(first: BoxDifference | None, second: BoxDifference | None) -> BoxDifference | None:
    """Return the larger of two differences; one that is not a number is the largest."""
    if first is None or second is None:
        return second if first is None else first
    return first if math.isnan(first.px) or second.px <= first.px else second


def _upright_parts(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, None]:
    centre = np.abs((b[:2] + b[2:]) - (a[:2] + a[2:])).max() / 2
    return float(centre), float(np.abs((b[2:] - b[:2]) - (a[2:] - a[:2])).max()), None


def _oriented_parts(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """Pair the sides by direction: the same rectangle may be written with w and h swapped, or turned by pi."""
    swapped = abs(_turn(b[4] + np.pi / 2 - a[4])) < abs(_turn(b[4] - a[4]))
    sides = b[[3, 2]] if swapped else b[2:4]
    angle = abs(_turn(b[4] - a[4] + (np.pi / 2 if swapped else 0.0)))
    return float(np.abs(b[:2] - a[:2]).max()), float(np.abs(sides - a[2:4]).max()), float(angle)


def _turn(angle: float) -> float:
    """Return an angle of a line in radians, in [-pi/2, pi/2)."""
    return (angle + np.pi / 2) % np.pi - np.pi / 2
