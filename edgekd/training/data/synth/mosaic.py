"""Mosaics of materials with blemishes: pictures in which every pixel knows its material and whether it is spoilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .material_zoo import material
from .outline import blob, curve, move, turn
from .textures import fbm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.float32]
    Mask = NDArray[np.float32]
    Blemish = Callable[[np.random.Generator, Pixels, "Mosaics"], tuple[Mask, Pixels]]

MARGIN = 1.5  # side of a stored square over that of a picture: room to turn and shift
MOST_REGIONS = 5
MOST_BLEMISHES = 4
SHRUNK, GROWN, TURNED = 0.8, 1.25, np.deg2rad(15)  # how a square is looked at


class Mosaics:
    """Draws pictures from stored squares of every material.

    Args:
        seed: of the zoo and of the squares.
        materials: how many there are.
        squares: of each material.
        size: side of a picture in pixels.
    """

    def __init__(self, seed: int, materials: int, squares: int, size: int) -> None:
        self.size, self.materials = size, materials
        side = int(MARGIN * size)
        self._squares = np.empty((materials, squares, side, side, 3), np.uint8)
        for index in range(materials):
            item, rng = material(seed, index), np.random.default_rng((seed, index, 1))
            for place in range(squares):
                self._squares[index, place] = np.round(255 * item.draw(rng, side))

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int64], Mask]:
        """Return a picture `(S, S, 3)` uint8, the material of each pixel `(S, S)` and how spoilt it is, in [0, 1].

        A blemish leaves the material's name as it is.
        """
        size = self.size
        pixels, ground = self._look(rng)
        names = np.full((size, size), ground, np.int64)
        for _ in range(int(rng.integers(0, MOST_REGIONS + 1))):
            over, name = self._look(rng)
            mask = _region(rng, size, rng.uniform(0.12, 0.45) * size)
            pixels += mask[..., None] * (over - pixels)
            names[mask > 0.5] = name
        spoilt = np.zeros((size, size), np.float32)
        for _ in range(int(rng.integers(0, MOST_BLEMISHES + 1))):
            pixels = self._spoil(rng, pixels, spoilt)
        return _photographed(rng, pixels), names, spoilt

    def _look(self, rng: np.random.Generator) -> tuple[Pixels, int]:
        """Return a material as it is seen, `(S, S, 3)` in [0, 1], and its number."""
        name = int(rng.integers(self.materials))
        square = self._squares[name, int(rng.integers(self._squares.shape[1]))]
        size, side = self.size, square.shape[0]
        matrix = turn(rng.uniform(-TURNED, TURNED)) * np.exp(rng.uniform(np.log(SHRUNK), np.log(GROWN)))
        centre = side / 2 + rng.uniform(-0.1, 0.1, 2) * side
        shift = centre - matrix @ np.full(2, size / 2)
        seen = cv2.warpAffine(
            square, np.column_stack((matrix, shift)), (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        pixels = seen.astype(np.float32) / 255
        mean = pixels.mean((0, 1))
        tint = rng.uniform(0.2, 0.8, 3).astype(np.float32)  # new colours each time, or the colour would be its name
        turned = (pixels - mean) @ _colours(rng) * np.float32(np.exp(rng.uniform(-0.7, 0.4)))
        return turned + mean + np.float32(rng.uniform(0, 1)) * (tint - mean), name

    def _spoil(self, rng: np.random.Generator, pixels: Pixels, spoilt: Mask) -> Pixels:
        """Return the picture with a blemish more, and raise `spoilt` where it changed."""
        kind = BLEMISHES[int(rng.integers(len(BLEMISHES)))]
        mask, changed = kind(rng, pixels, self)
        after: Pixels = pixels + mask[..., None] * (changed - pixels)
        seen = np.abs(after - pixels).max(-1) > 0.03
        np.maximum(spoilt, mask * seen, out=spoilt)
        return after


def scratch(rng: np.random.Generator, pixels: Pixels, mosaics: Mosaics) -> tuple[Mask, Pixels]:
    """Return a bent line, lighter or darker than what it crosses."""
    size = mosaics.size
    mask = np.zeros((size, size), np.float32)
    start, along = rng.uniform(0, size, 2), rng.normal(0, size / 8, (3, 2))
    path = curve(np.vstack((start, start + np.cumsum(along + along.mean(0), 0))))
    points, width = [np.round(path).astype(np.int32)], int(rng.integers(1, 4))
    cv2.polylines(mask, points, isClosed=False, color=1.0, thickness=width, lineType=cv2.LINE_AA)
    return mask, np.clip(pixels + _jump(rng), 0, 1)


def stain(rng: np.random.Generator, pixels: Pixels, mosaics: Mosaics) -> tuple[Mask, Pixels]:
    """Return a patch that is lighter, darker or of another colour, its edge hard or soft."""
    mask = _patch(rng, mosaics.size)
    if rng.random() < 0.5:
        mask = _blurred(mask, rng.uniform(0.8, 3))
    return mask, np.clip(pixels + _jump(rng) * rng.uniform(0.4, 1, 3).astype(np.float32), 0, 1)


def pasted(rng: np.random.Generator, pixels: Pixels, mosaics: Mosaics) -> tuple[Mask, Pixels]:
    """Return a patch of the picture in another place, turned (CutPaste)."""
    size = mosaics.size
    matrix = turn(rng.uniform(0, 2 * np.pi))
    shift = rng.uniform(0, size, 2) - matrix @ np.full(2, size / 2)
    moved = cv2.warpAffine(
        pixels, np.column_stack((matrix, shift)), (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    return _patch(rng, size), np.asarray(moved, np.float32)


def foreign(rng: np.random.Generator, pixels: Pixels, mosaics: Mosaics) -> tuple[Mask, Pixels]:
    """Return a patch of another material, in the colours of what it lies on half of the time."""
    over, _ = mosaics._look(rng)  # noqa: SLF001 (of this file)
    if rng.random() < 0.5:
        over = over - over.mean((0, 1)) + pixels.mean((0, 1))
    return _patch(rng, mosaics.size), over


def smeared(rng: np.random.Generator, pixels: Pixels, mosaics: Mosaics) -> tuple[Mask, Pixels]:
    """Return a patch without its fine features."""
    return _patch(rng, mosaics.size), _blurred(pixels, rng.uniform(1.5, 5))


def dented(rng: np.random.Generator, pixels: Pixels, mosaics: Mosaics) -> tuple[Mask, Pixels]:
    """Return a patch whose pixels are shifted along smooth random ways."""
    size = mosaics.size
    columns, rows = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    reach = np.float32(rng.uniform(2, 6))
    dx, dy = (reach * fbm(rng, size, size, cells=8, octaves=1) for _ in range(2))
    bent = cv2.remap(pixels, columns + dx, rows + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return _patch(rng, size), np.asarray(bent, np.float32)


BLEMISHES: tuple[Blemish, ...] = (scratch, stain, pasted, foreign, smeared, dented)


def _region(rng: np.random.Generator, size: int, radius: float) -> Mask:
    """Return the coverage of an outline around a random centre: a blob, or a box as machine parts have them."""
    mask = np.zeros((size, size), np.float32)
    outline = blob(rng, 1.0, 0.3) if rng.random() < 0.6 else np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    outline = outline * (rng.uniform(0.5, 1), 1.0)
    placed = move(outline, scale=radius, angle=rng.uniform(0, np.pi), shift=tuple(rng.uniform(0, size, 2)))
    cv2.fillPoly(mask, [np.round(placed * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    return mask


def _patch(rng: np.random.Generator, size: int) -> Mask:
    return _region(rng, size, float(np.exp(rng.uniform(np.log(0.015), np.log(0.12)))) * size)


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)


def _jump(rng: np.random.Generator) -> np.float32:
    """Return a change of brightness that can be seen."""
    return np.float32(rng.choice((-1, 1)) * rng.uniform(0.1, 0.6))


def _colours(rng: np.random.Generator) -> Pixels:
    """Return a random rotation of RGB; now and then nothing is left of it but grey."""
    if rng.random() < 0.3:
        return np.full((3, 3), 1 / 3, np.float32)
    basis, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(basis, np.float32)


def _photographed(rng: np.random.Generator, pixels: Pixels) -> NDArray[np.uint8]:
    """Return 8-bit pixels: uneven light, a lens a little out of focus, a sensor's noise; grey now and then."""
    size = pixels.shape[0]
    slope = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    (a, b), gain = rng.normal(0, 0.2, 2).astype(np.float32), np.float32(np.exp(rng.uniform(-0.35, 0.25)))
    lit = pixels * (gain * (1 + a * slope[:, None] + b * slope[None]))[..., None]
    if rng.random() < 0.3:
        lit = np.repeat(lit.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.5:
        lit = _blurred(lit, rng.uniform(0.4, 1.2))
    noisy = lit + np.float32(rng.uniform(0, 0.03)) * rng.standard_normal(lit.shape, dtype=np.float32)
    shown: NDArray[np.uint8] = np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
    return shown
