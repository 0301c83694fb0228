"""Which tiles an annotated image is cut into, and which objects each of them holds; pixels are not needed.

Windows are those of `edgekd.geometry.windows`, which the runtime uses too. All lie in the image, so DOTA's rule that
drops windows of too little image has nothing to drop: every pixel is in a tile. At a rate r windows are 1 / r as large
in pixels of the image, and pixels stay as they are: the network's letterbox does the scaling, once. So a tile's
coordinates are the image's less the window's left and top, whatever the rate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import UsageError
from ...geometry import windows
from ...geometry.rotated import prepare, shared_area
from .polygon import as_xywhr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .sample import Sample

WHOLE = 0.9999  # share of an object above which a tile shows all of it; annotations are rounded to 0.01 px or so
_NAME = re.compile(r"(?P<stem>.+)__(?P<size>\d+)__(?P<left>\d+)___(?P<top>\d+)")


class TileName(NamedTuple):
    """Where a tile lies, as its file is named (DOTA's way): `<stem>__<size>__<left>___<top>`, pixels of the image."""

    stem: str
    size: int
    left: int
    top: int

    def __str__(self) -> str:
        return f"{self.stem}__{self.size}__{self.left}___{self.top}"

    @classmethod
    def parse(cls, text: str) -> TileName:
        """Read a name without its suffix.

        Raises:
            UsageError: it is no tile's name.
        """
        found = _NAME.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is no tile's name: expected <stem>__<size>__<left>___<top>")
        return cls(found["stem"], *(int(found[key]) for key in ("size", "left", "top")))


@dataclass(frozen=True, eq=False)
class Tile:
    """One window of an image.

    Attributes:
        name: where it lies.
        window: left, top, right, bottom in pixels of the image.
        objects: `(n,)` int64, rows of the image's objects that it holds.
        boxes: `(n, 4)` xyxy or `(n, 5)` xywhr float64 in pixels of the tile, whole: they may reach over its border.
        cut: `(n,)` bool, whether the window shows only a part of the object.
    """

    name: TileName
    window: tuple[int, int, int, int]
    objects: NDArray[np.int64]
    boxes: NDArray[np.float64]
    cut: NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """How to cut.

    Attributes:
        size: side of a window, in pixels at rate 1.
        overlap: of neighbouring windows, likewise.
        rates: scales to cut at; windows are `size / rate` pixels of the image.
        keep: least share of an object's area in the image that must lie in a window for the tile to hold it.
    """

    size: int
    overlap: int
    rates: tuple[float, ...]
    keep: float

    def __post_init__(self) -> None:
        sizes = [int(self.size / rate) for rate in self.rates if rate > 0]
        if len(sizes) < len(self.rates) or len(set(sizes)) < len(sizes) or not sizes:
            raise UsageError(f"rates should be positive and differ, at least one of them, got {list(self.rates)}")
        if not 0 < self.keep <= 1:
            raise UsageError(f"keep should be above 0 and at most 1, got {self.keep}")
        if not 0 <= self.overlap < self.size or min(sizes) < 1:
            small = f"; for example overlap {self.size // 5}" if self.size > 0 and min(sizes) > 0 else ""
            raise UsageError(f"expected 0 <= overlap < size, got size {self.size} and overlap {self.overlap}{small}")


def cut(sample: Sample, height: int, width: int, grid: Grid, stem: str | None = None) -> list[Tile]:
    """Return the tiles of an image of `height` x `width` pixels, rate by rate, row by row.

    A tile holds an object if at least `grid.keep` of what the image shows of it lies in the window, by exact clipping
    of the rectangle. What a rate smaller than another would cut a second time (an image smaller than both windows) is
    left out. Their names begin with `stem`; None: with the file's.
    """
    tiles, seen = [], set()
    for rate in grid.rates:
        size = int(grid.size / rate)
        for left, top, right, bottom in windows(height, width, size, int(grid.overlap / rate)).tolist():
            window = left, top, right, bottom
            if window not in seen:
                seen.add(window)
                share = shares(sample.boxes, (0, 0, width, height), window)
                rows = np.flatnonzero(share >= grid.keep)
                boxes = _moved(sample.boxes[rows], left, top)
                name = TileName(stem or sample.path.stem, size, left, top)
                tiles.append(Tile(name, window, rows, boxes, share[rows] < WHOLE))
    return tiles


def shares(boxes: NDArray[np.float32], image: Sequence[int], window: Sequence[int]) -> NDArray[np.float64]:
    """Return how much of what `image` shows of each box `window` shows too, `(N,)` in [0, 1]; 0 for a box outside.

    Args:
        boxes: `(N, 4)` xyxy or `(N, 5)` xywhr.
        image: left, top, right, bottom in pixels.
        window: likewise, inside the image.
    """
    frames = prepare(as_xywhr(np.array([image, window], np.float64)), np.float64)
    objects = prepare(as_xywhr(boxes), np.float64)
    near = np.abs(objects.x - frames.x[1]) < frames.half_w[1] + objects.extent_x
    near &= np.abs(objects.y - frames.y[1]) < frames.half_h[1] + objects.extent_y
    rows = np.flatnonzero(near)  # a large image has many windows, and most objects lie far from most of them
    both = shared_area(frames.pick(np.s_[:, None]), objects.pick(rows))  # (2, n): in the image, in the window
    share = np.zeros(len(boxes))
    share[rows] = np.divide(both[1], both[0], out=np.zeros(len(rows)), where=both[0] > 0)
    return np.minimum(share, 1.0)


def _moved(boxes: NDArray[np.float32], left: int, top: int) -> NDArray[np.float64]:
    """Return boxes in the coordinates of a tile, in float64: what is subtracted is whole, so no digit is lost."""
    moved = boxes.astype(np.float64)
    moved[:, :2] -= left, top
    if moved.shape[1] == 4:
        moved[:, 2:] -= left, top
    return moved
