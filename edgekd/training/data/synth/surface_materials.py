"""Seven materials for surface inspection, each a function of texture coordinates, so that defects can bend them.

A material takes coordinate fields `u`, `v` `(H, W)` float32 (regular ones have period 1), the look of the data set's
specimen and the random lattices of one image, and returns albedo `(H, W, 3)` float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .textures import Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

LATTICE = 128  # side of the periodic random lattices
Albedo = "NDArray[np.float32]"


@dataclass(frozen=True, eq=False)
class Look:
    """What the images of one material of one data set share.

    Attributes:
        dark, light: `(3,)` float32 RGB ends of its colour range.
        period: pixels per texture unit at 512 pixels.
        relief: strength of the shading.
        fine: how many fine features there are per unit, relative to the material's own.
    """

    dark: NDArray[np.float32]
    light: NDArray[np.float32]
    period: float
    relief: float
    fine: float


@dataclass(frozen=True, eq=False)
class Lattices:
    """Random numbers of one image: `noise` normal, `cells` uniform in [0, 1), both `(3, LATTICE, LATTICE)` float32."""

    noise: NDArray[np.float32]
    cells: NDArray[np.float32]

    @staticmethod
    def draw(rng: np.random.Generator) -> Lattices:
        """Draw the lattices of one image."""
        shape = (3, LATTICE, LATTICE)
        return Lattices(rng.standard_normal(shape, dtype=np.float32), rng.random(shape, dtype=np.float32))

    def value(self, u: Field, v: Field, layer: int = 0) -> Field:
        """Return smooth noise at (u, v), one lattice point per unit, roughly N(0, 0.5)."""
        x, y = np.mod(u, LATTICE), np.mod(v, LATTICE)
        field = cv2.remap(self.noise[layer], x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
        return np.asarray(field, np.float32)

    def rough(self, u: Field, v: Field, octaves: int, gain: float = 0.55) -> Field:
        """Return fractional Brownian motion at (u, v)."""
        layers = (
            np.float32(gain**k) * self.value(u * np.float32(2**k) + 17 * k, v * np.float32(2**k) - 29 * k, k % 3)
            for k in range(octaves)
        )
        total: Field = np.sum(list(layers), axis=0, dtype=np.float32)
        return total

    def cell(self, column: Field, row: Field, layer: int = 0) -> Field:
        """Return the random number of an integer cell."""
        i, j = np.mod(row, LATTICE).astype(np.intp), np.mod(column, LATTICE).astype(np.intp)
        picked: Field = self.cells[layer][i, j]
        return picked


def shading(height: Field, strength: float) -> Field:
    """Return the light a relief gets from the upper left, around 1."""
    right, down = (cv2.Sobel(height, cv2.CV_32F, dx, 1 - dx, ksize=3) for dx in (1, 0))
    lit: Field = np.clip(1 + np.float32(strength) * np.add(right, down, dtype=np.float32), 0.4, 1.6)
    return lit


def ramp(look: Look, weight: Field, light: Field | float = 1.0) -> NDArray[np.float32]:
    """Mix the look's two colours by `weight`, then light them."""
    mixed = look.dark + np.clip(weight, 0, 1)[..., None] * (look.light - look.dark)
    albedo: NDArray[np.float32] = mixed * (light[..., None] if isinstance(light, np.ndarray) else np.float32(light))
    return albedo


def plaster(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return rough plaster: fractional Brownian motion, lit from the side."""
    height = random.rough(u, v, 6, 0.6)
    return ramp(look, 0.5 + 0.22 * height, shading(height, look.relief))


def wood(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return planed wood: year rings along u, wavering, with pores."""
    waver = random.rough(u * 0.12, v * 0.5, 3)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (v + 0.9 * waver))
    pores = random.value(u * 0.8, v * 22 * np.float32(look.fine), 1)
    fibre = random.value(u * 0.3, v * 9, 2)
    weight = 0.25 + 0.45 * rings**2 + 0.10 * fibre + 0.12 * pores
    return ramp(look, weight, 1 - np.float32(0.3) * np.clip(pores - 1.0, 0, 1))


def leather(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return leather grain: the ridges between Worley cells (distance to the second point minus to the first)."""
    column, row = np.floor(u), np.floor(v)
    first, second = np.full_like(u, 9), np.full_like(u, 9)
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            x, y = column + j, row + i
            distance = (x + random.cell(x, y, 0) - u) ** 2 + (y + random.cell(x, y, 1) - v) ** 2
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    edge = np.sqrt(second) - np.sqrt(first)
    height = np.minimum(edge * 2.6, 1) + 0.18 * random.rough(u * 2, v * 2, 3)
    return ramp(look, 0.25 + 0.5 * height, shading(height, look.relief))


def weave(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return plain-woven cloth: warp over weft and weft over warp in turn, threads uneven."""
    column, row = np.floor(u), np.floor(v)
    across, along = u - column - 0.5, v - row - 0.5
    over = np.mod(column + row, 2) == 0
    warp = np.maximum(np.cos(np.pi * across), 0) ** 0.6 * (0.72 + 0.28 * np.cos(np.pi * along))
    weft = np.maximum(np.cos(np.pi * along), 0) ** 0.6 * (0.72 + 0.28 * np.cos(np.pi * across))
    warp *= 1 + 0.10 * (random.cell(column, np.zeros_like(column)) - 0.5) * 2
    weft *= 1 + 0.10 * (random.cell(np.zeros_like(row), row, 1) - 0.5) * 2
    fibre = np.where(over, random.value(u * 9, v * 1.5), random.value(u * 1.5, v * 9, 1))
    weight = np.where(over, warp, weft * 0.86) + 0.07 * look.fine * fibre
    return ramp(look, weight.astype(np.float32) * 0.85)


def grid(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return a wire mesh over a dark, uneven ground."""
    background = 0.10 + 0.04 * random.rough(u * 0.8, v * 0.8, 3)
    weight = background
    half = np.float32(0.16)
    for k, (across, along) in enumerate(((u, v), (v, u))):
        distance = np.abs(across - np.round(across))
        wire = np.sqrt(np.maximum(1 - (distance / half) ** 2, 0))
        lift = 0.85 + 0.15 * np.cos(np.pi * (along + np.round(across) + k))
        steel = (0.35 + 0.55 * wire) * lift + 0.05 * random.value(across * 6, along * 2, k)
        weight = np.where((distance < half) & (steel > weight), steel, weight)
    return ramp(look, weight.astype(np.float32))


def bricks(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return brickwork in running bond, mortar between, every brick a shade of its own."""
    row = np.floor(v)
    shifted = u * 0.5 + 0.5 * np.mod(row, 2)
    column = np.floor(shifted)
    to_edge = np.minimum(0.5 - np.abs(v - row - 0.5), 2 * (0.5 - np.abs(shifted - column - 0.5)))
    to_edge += 0.012 * random.value(u * 7, v * 7)
    brick = np.clip((to_edge - 0.05) / 0.03, 0, 1)
    height = 0.7 * brick + 0.25 * random.rough(u * 5, v * 5, 3)
    shade = 0.25 + 0.5 * random.cell(column, row) + 0.16 * random.rough(u * 3, v * 3, 3)
    body = ramp(look, shade)
    mortar = np.array((0.62, 0.60, 0.56), np.float32) * (1 + 0.08 * random.value(u * 12, v * 12, 2))[..., None]
    lit = shading(height, look.relief)[..., None]
    albedo: NDArray[np.float32] = (mortar + brick[..., None] * (body - mortar)) * lit
    return albedo


HOLES = 6
HOLE_RADIUS = 0.68  # of the circle the holes lie on; the part's own radius is 1


def part(u: Field, v: Field, look: Look, random: Lattices) -> NDArray[np.float32]:
    """Return a turned flange: a disc with a bore, a keyway and six bolt holes, on a dark mat."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    sector = np.mod(angle + np.pi / HOLES, 2 * np.pi / HOLES) - np.pi / HOLES
    hole = np.hypot(radius * np.cos(sector) - HOLE_RADIUS, radius * np.sin(sector)) - 0.085
    keyway = np.maximum(np.abs(v) - 0.06, np.abs(u - 0.28) - 0.12)
    bore = np.minimum(np.minimum(radius - 0.28, keyway), hole)
    solid = np.minimum(1 - radius, bore)  # signed distance, positive inside the metal
    soft = np.float32(0.006)
    metal = np.clip(solid / soft + 0.5, 0, 1)
    chamfer = np.clip(1 - np.abs(solid - 0.018) / 0.018, 0, 1)
    step = np.clip((np.abs(radius - 0.46) - 0.01) / 0.008, 0, 1)
    turned = random.value(radius * 70 * np.float32(look.fine), np.zeros_like(radius)) + 0.4 * random.value(
        radius * 25, angle * 3, 1
    )
    weight = 0.52 + 0.07 * turned + 0.20 * chamfer * np.cos(angle + 2.3) + 0.10 * np.cos(2 * angle + 1.0)
    weight = weight * (0.75 + 0.25 * step)
    mat = np.array((0.09, 0.10, 0.11), np.float32) * (1 + 0.25 * random.rough(u * 9, v * 9, 3))[..., None]
    body = ramp(look, weight.astype(np.float32))
    albedo: NDArray[np.float32] = mat + metal[..., None] * (body - mat)
    return albedo


Material = Callable[[Field, Field, Look, Lattices], "NDArray[np.float32]"]
MATERIALS: dict[str, Material] = {
    "plaster": plaster,
    "wood": wood,
    "leather": leather,
    "weave": weave,
    "grid": grid,
    "bricks": bricks,
    "part": part,
}
_LOOKS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = {
    "plaster": ((0.42, 0.40, 0.36), (0.78, 0.75, 0.68), 90.0, 0.30),
    "wood": ((0.33, 0.20, 0.11), (0.78, 0.57, 0.36), 46.0, 0.0),
    "leather": ((0.16, 0.09, 0.06), (0.50, 0.31, 0.20), 17.0, 0.18),
    "weave": ((0.14, 0.15, 0.18), (0.72, 0.70, 0.63), 15.0, 0.0),
    "grid": ((0.05, 0.05, 0.06), (0.82, 0.82, 0.80), 38.0, 0.0),
    "bricks": ((0.34, 0.16, 0.12), (0.70, 0.40, 0.30), 34.0, 0.25),
    "part": ((0.10, 0.10, 0.12), (0.86, 0.86, 0.84), 205.0, 0.0),
}


def look_of(category: str, rng: np.random.Generator) -> Look:
    """Draw a data set's specimen of a material: colours, coarseness and relief around the material's own."""
    dark, light, period, relief = _LOOKS[category]
    hue = (rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    spread = 0.06 if category == "part" else 0.25
    return Look(
        np.clip(np.array(dark, np.float32) * hue, 0, 1),
        np.clip(np.array(light, np.float32) * hue, 0, 0.95),
        period * float(np.exp(rng.uniform(-spread, spread))),
        relief * float(rng.uniform(0.7, 1.3)),
        float(rng.uniform(0.7, 1.3)),
    )
