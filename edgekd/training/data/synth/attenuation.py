"""Radiography: parts of known material and thickness, their dual-energy attenuation, and a baggage scanner's colours.

Beer-Lambert: the transmission through a stack of parts is `exp(-sum(mu * thickness))`, so attenuations add where
objects overlap and transmissions multiply. The ratio of the attenuations at the two energies tells the material
(the effective atomic number), the way a baggage scanner colours it: organic orange, inorganic green, metal blue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .outline import Points, turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Linear attenuation coefficients in 1/cm at a low and a high tube energy; only their order and ratio matter here.
COEFFICIENTS = {
    "organic": (0.225, 0.19),
    "inorganic": (0.85, 0.57),
    "metal": (5.6, 2.8),
}
# Extinction of red, green and blue per unit of high-energy attenuation, for the three ratios above.
RATIOS = np.array([low / high for low, high in COEFFICIENTS.values()])
EXTINCTION = np.array([[0.16, 0.62, 1.75], [1.25, 0.38, 1.15], [1.75, 1.15, 0.42]])
# Where the three hues sit between the organic (0) and the metal ratio (1): steel under cloth still has to look blue.
STOPS = (0.0, 0.3, 0.72)
SUBPIXEL = 4  # fractional bits of polygon coordinates
FINE = 4  # samples along a pixel's side
VISIBLE = 0.02  # high-energy attenuation from which on a pixel belongs to an object: 2 % of the light


@dataclass(frozen=True, eq=False)
class Part:
    """One polygon of an object.

    Attributes:
        outline: closed polygon `(N, 2)`, object units until placed, then pixels.
        material: a key of `COEFFICIENTS`.
        thickness: at its thickest, in cm.
        profile: "plate" (constant), "round" (a rod or ball lying flat) or "shell" (hollow: dark rim, light inside).
        cut: removes the parts listed before it instead of adding to them (a hole).
    """

    outline: Points
    material: str = "metal"
    thickness: float = 0.3
    profile: str = "plate"
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Shadow:
    """What one placed object adds to the scene.

    Attributes:
        attenuation: `(2, h, w)` float32, low and high energy.
        footprint: `(h, w)` bool, pixels where the object takes 2 % of the light or more.
        top, left: where the window lies in the image.
    """

    attenuation: NDArray[np.float32]
    footprint: NDArray[np.bool_]
    top: int
    left: int

    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of the image that the shadow falls on."""
        height, width = self.footprint.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def place(
    parts: Sequence[Part], *, scale: float, angle: float, tilt: tuple[float, float], mirror: bool, shift: Points
) -> list[Part]:
    """Bring an object from its own units to pixels.

    Args:
        parts: the object around its origin.
        scale: pixels per unit.
        angle: rotation in radians, clockwise on the image.
        tilt: (axis in radians, foreshortening factor across it): the object leaning out of the image plane.
        mirror: turned over.
        shift: (x, y) of the origin in pixels.
    """
    axis = turn(tilt[0])
    matrix = axis @ np.diag([1.0, tilt[1]]) @ axis.T @ turn(angle) @ np.diag([1.0, -1.0 if mirror else 1.0]) * scale
    return [replace(part, outline=part.outline @ matrix.T + shift) for part in parts]


def extent(parts: Sequence[Part]) -> tuple[float, float, float, float]:
    """Return the xyxy box of the outlines."""
    everything = np.concatenate([part.outline for part in parts if not part.cut])
    (left, top), (right, bottom) = everything.min(0), everything.max(0)
    return float(left), float(top), float(right), float(bottom)


def cast_shadow(parts: Sequence[Part], height: int, width: int) -> Shadow | None:
    """Rasterise a placed object; None when it lies outside the image."""
    x0, y0, x1, y1 = extent(parts)
    left, top = max(int(np.floor(x0)) - 1, 0), max(int(np.floor(y0)) - 1, 0)
    right, bottom = min(int(np.ceil(x1)) + 2, width), min(int(np.ceil(y1)) + 2, height)
    if right <= left or bottom <= top:
        return None
    attenuation = np.zeros((2, bottom - top, right - left), np.float32)
    for part in parts:
        spot = window(part.outline - (left, top), *attenuation.shape[1:])
        if spot is None:
            continue
        rows, columns, mask = spot
        if part.cut:
            attenuation[:, rows, columns] *= 1 - mask
            continue
        depth = np.float32(part.thickness) * _profile(mask, part.profile)
        for energy, coefficient in enumerate(COEFFICIENTS[part.material]):
            attenuation[energy, rows, columns] += np.float32(coefficient) * depth
    np.maximum(attenuation, 0, out=attenuation)
    return Shadow(attenuation, attenuation[1] >= VISIBLE, top, left)


def window(outline: Points, height: int, width: int) -> tuple[slice, slice, NDArray[np.float32]] | None:
    """Return the rows and columns that the polygon touches and its `coverage` there; None outside the image."""
    left, top = np.maximum(np.floor(outline.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(outline.max(0)).astype(int) + 2, (width, height))
    if right <= left or bottom <= top:
        return None
    return slice(top, bottom), slice(left, right), coverage(outline - (left, top), bottom - top, right - left)


def coverage(outline: Points, height: int, width: int) -> NDArray[np.float32]:
    """Return how much of each pixel the polygon covers, `(height, width)` float32 in [0, 1].

    Counts of `FINE` x `FINE` samples a pixel: OpenCV's own antialiasing would widen the polygon by half a pixel.
    """
    mask = np.zeros((height * FINE, width * FINE), np.uint8)
    # OpenCV puts integer coordinates on pixel centres; ours lie on pixel corners.
    fixed = np.round((outline * FINE - 0.5) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, SUBPIXEL)
    share: NDArray[np.float32] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return share / np.float32(255)


def _profile(mask: NDArray[np.float32], profile: str) -> NDArray[np.float32]:
    if profile == "plate":
        return mask
    # A border of zeros, so that an object cut by the image edge is not taken for one that ends inside.
    inside = np.pad((mask > 0.5).astype(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    radius = max(float(distance.max()), 1.0)
    depth = np.minimum(distance / radius, 1.0)
    chord = np.sqrt(np.maximum(1 - (1 - depth) ** 2, 0.0))
    if profile == "shell":
        # Chord through a tube minus the chord through its bore (inner radius 0.86 of the outer).
        bore = np.sqrt(np.maximum(0.74 - (1 - depth) ** 2, 0.0))
        chord = 1.6 * (chord - bore)
    depths: NDArray[np.float32] = (mask * chord).astype(np.float32)
    return depths


def colours(attenuation: NDArray[np.float32], extinction: NDArray[np.float64], gain: float) -> NDArray[np.uint8]:
    """Colour a dual-energy image `(2, H, W)` the way baggage scanners do; returns `(H, W, 3)` uint8 RGB.

    The hue follows the ratio low / high (material), the darkness the high-energy attenuation (mass). Where almost
    nothing is in the beam the ratio is noise, so it is pulled towards the organic end.
    """
    high = np.maximum(attenuation[1], 0)
    ratio = (np.maximum(attenuation[0], 0) + 0.05 * RATIOS[0]) / (high + 0.05)
    ratio = cv2.GaussianBlur(ratio.astype(np.float32), (0, 0), 0.8)
    mass = np.float32(gain) * (high + 0.06 * high**2)
    index = np.clip((ratio - RATIOS[0]) / (RATIOS[-1] - RATIOS[0]), 0, 1)
    # Where the low energy is spent (the detector sees noise) the ratio falls back to 1: dense matter counts as metal.
    spent = cv2.GaussianBlur(attenuation[0], (0, 0), 1.0)
    index = np.maximum(index, np.clip((spent - 3.2) / 1.2, 0, 1))
    # 256 steps of hue are more than the eye or 8 bits can tell; a table is faster than three interpolations.
    table = np.stack([np.interp(np.linspace(0, 1, 256), STOPS, extinction[:, channel]) for channel in range(3)], 1)
    hue = table.astype(np.float32)[(index * 255).astype(np.uint8)]
    rgb: NDArray[np.uint8] = np.round(255 * np.exp(-hue * mass[..., None])).astype(np.uint8)
    return rgb
