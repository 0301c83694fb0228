"""Six kinds of defect on a rendered surface; each changes albedo inside a region drawn beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .attenuation import coverage
from .outline import blob, curve, move, stroke, turn
from .surface_materials import HOLE_RADIUS, HOLES, MATERIALS, look_of
from .textures import Field, fbm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .surface_materials import Lattices, Look

DEFECTS = ("scratch", "stain", "paste", "blur", "shifted", "foreign")
SMALLEST, LARGEST = 0.0002, 0.05  # share of the image a defect covers
SCRATCH_LARGEST = 0.004


@dataclass(frozen=True, eq=False)
class Rendering:
    """A flawless surface and all that is needed to draw it again, bent.

    Attributes:
        category: its material.
        u, v: `(H, W)` float32 texture coordinates of the pixels.
        look: the specimen.
        random: the image's lattices.
        albedo: `(H, W, 3)` float32.
        sigma: standard deviation of its luminance.
        support: `(H, W)` bool, where defects may lie.
    """

    category: str
    u: Field
    v: Field
    look: Look
    random: Lattices
    albedo: NDArray[np.float32]
    sigma: float
    support: NDArray[np.bool_]


def luminance(albedo: NDArray[np.float32]) -> Field:
    """Return the Rec. 601 luma."""
    luma: Field = albedo @ np.array((0.299, 0.587, 0.114), np.float32)
    return luma


def spoil(rng: np.random.Generator, surface: Rendering, defect: str) -> NDArray[np.float32]:
    """Return the albedo with one to four components of a defect, its total area log-uniform."""
    height, width = surface.u.shape
    largest = SCRATCH_LARGEST if defect == "scratch" else LARGEST
    share = float(np.exp(rng.uniform(np.log(SMALLEST * 1.3), np.log(largest * 0.9))))
    components = int(rng.integers(2, 5)) if rng.random() < 0.3 else 1
    albedo = surface.albedo
    amplitude = rng.uniform(0.6, 4.0) * (1 if rng.random() < 0.5 else -1)
    for part_share in share * rng.dirichlet(np.full(components, 6.0)):
        area = max(part_share * height * width, 8.0)
        centre = _centre(rng, surface, defect)
        if defect == "scratch":
            albedo = _scratch(rng, surface, albedo, centre, area, amplitude)
            continue
        mask = _region(rng, (height, width), centre, area)
        albedo = _EFFECTS[defect](rng, surface, albedo, mask, amplitude)
    return albedo


def _centre(rng: np.random.Generator, surface: Rendering, defect: str) -> tuple[float, float]:
    """Return (x, y) in pixels on the support; a shifted element of the part is one of its holes."""
    if surface.category == "part" and defect == "shifted":
        angle = 2 * np.pi * int(rng.integers(HOLES)) / HOLES
        goal = np.hypot(surface.u - HOLE_RADIUS * np.cos(angle), surface.v - HOLE_RADIUS * np.sin(angle))
        y, x = np.unravel_index(int(goal.argmin()), goal.shape)
        return float(x), float(y)
    inner = surface.support[16:-16:4, 16:-16:4]
    rows, columns = np.nonzero(inner)
    k = int(rng.integers(len(rows)))
    return float(columns[k] * 4 + 16), float(rows[k] * 4 + 16)


def _region(
    rng: np.random.Generator, size: tuple[int, int], centre: tuple[float, float], area: float
) -> NDArray[np.float32]:
    """Return the coverage of a random outline of the given area in pixels."""
    outline = blob(rng, 1.0, 0.35, 48) * (rng.uniform(1.0, 2.2), 1.0)
    x, y = outline.T
    unit = 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
    placed = move(outline, scale=float(np.sqrt(area / unit)), angle=rng.uniform(0, np.pi), shift=centre)
    return coverage(placed, *size)


def _scratch(
    rng: np.random.Generator,
    surface: Rendering,
    albedo: NDArray[np.float32],
    centre: tuple[float, float],
    area: float,
    amplitude: float,
) -> NDArray[np.float32]:
    """Scratch a line 1 to 3 pixels wide, brighter or darker."""
    width = rng.uniform(1.0, 3.0)
    length = area / width
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 0.12, 4)
    path = np.stack([np.linspace(-0.5, 0.5, 4), bend * (1, 0.5, 0.5, 1)], 1) * length
    mask = coverage(stroke(move(curve(path, 40), angle=angle, shift=centre), width), *surface.u.shape)
    mask = mask * surface.support
    return albedo + mask[..., None] * np.float32(amplitude * surface.sigma)


def _stain(
    rng: np.random.Generator,
    surface: Rendering,
    albedo: NDArray[np.float32],
    mask: NDArray[np.float32],
    amplitude: float,
) -> NDArray[np.float32]:
    """Soak a region: faintly darker or lighter, tinted, cloudy, soft at its edge."""
    inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    soft = np.clip(inside / max(0.35 * float(inside.max()), 1.0), 0, 1) * surface.support
    cloud = 1 + 0.3 * fbm(rng, *mask.shape, cells=20, octaves=3)
    tint = 1 + rng.normal(0, 0.15, 3).astype(np.float32)
    # In proportion to the colour underneath: a stain filters light, it does not add grey.
    brightness = max(float(luminance(albedo)[surface.support].mean()), 0.05)
    strength = np.float32(0.35 * amplitude * surface.sigma / brightness)
    stained: NDArray[np.float32] = (albedo * (1 + (soft * cloud)[..., None] * strength * tint)).astype(np.float32)
    return stained


def _paste(
    rng: np.random.Generator,
    surface: Rendering,
    albedo: NDArray[np.float32],
    mask: NDArray[np.float32],
    amplitude: float,
) -> NDArray[np.float32]:
    """Cut a piece of the same surface out elsewhere and paste it here, turned."""
    del amplitude
    rows, columns = np.nonzero(surface.support)
    there = np.array([columns.mean(), rows.mean()]) + rng.uniform(-0.25, 0.25, 2) * mask.shape[::-1]
    here = np.array([float(i.mean()) for i in np.nonzero(mask > 0)[::-1]])
    angle = rng.uniform(0.35, 2 * np.pi - 0.35)
    matrix = np.column_stack([turn(angle), there - turn(angle) @ here])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    piece = cv2.warpAffine(surface.albedo, matrix, mask.shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT)
    return _over(albedo, piece, mask * surface.support)


def _blur(
    rng: np.random.Generator,
    surface: Rendering,
    albedo: NDArray[np.float32],
    mask: NDArray[np.float32],
    amplitude: float,
) -> NDArray[np.float32]:
    """Smear a region."""
    del amplitude
    smeared = cv2.GaussianBlur(albedo, (0, 0), rng.uniform(2.0, 5.0))
    return _over(albedo, smeared, mask * surface.support)


def _shifted(
    rng: np.random.Generator,
    surface: Rendering,
    albedo: NDArray[np.float32],
    mask: NDArray[np.float32],
    amplitude: float,
) -> NDArray[np.float32]:
    """Break the structure and keep the histogram: elements out of step, grain of another direction or size."""
    del amplitude
    u, v = surface.u, surface.v
    if surface.category == "part":  # a hole out of its place; at half the pitch it is missing altogether
        matrix = turn(float(rng.choice([rng.uniform(0.04, 0.12), np.pi / HOLES]))).astype(np.float32)
        u, v = matrix[0, 0] * u + matrix[0, 1] * v, matrix[1, 0] * u + matrix[1, 1] * v
        near = np.hypot(*(np.nonzero(mask > 0.5)[k] - np.mean(np.nonzero(mask > 0.5)[k]) for k in (0, 1)))
        reach = max(float(near.max(initial=0)), 0.2 * surface.look.period * mask.shape[0] / 512)
        y, x = (float(np.mean(i)) for i in np.nonzero(mask > 0.5))
        rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
        mask = ((columns - x) ** 2 + (rows - y) ** 2 < reach**2).astype(np.float32)
    elif surface.category in ("grid", "bricks", "weave"):
        step = 0.5 if surface.category == "grid" else 1.0
        u, v = (u + step, v) if rng.random() < 0.5 else (u + step * rng.uniform(0.4, 0.6), v + step)
    elif surface.category == "wood":
        u, v = v * 1.0 + 31.0, -u + 7.0
    else:
        factor = np.float32(rng.choice([0.55, 1.8]))
        u, v = u * factor + 31.0, v * factor + 7.0
    moved = MATERIALS[surface.category](u, v, surface.look, surface.random)
    return _over(albedo, moved, mask)


def _foreign(
    rng: np.random.Generator,
    surface: Rendering,
    albedo: NDArray[np.float32],
    mask: NDArray[np.float32],
    amplitude: float,
) -> NDArray[np.float32]:
    """Blend in another material, brought to the mean and spread of this one."""
    del amplitude
    others = [name for name in MATERIALS if name not in (surface.category, "part")]
    other = str(rng.choice(others))
    look = look_of(other, rng)
    zoom = np.float32(surface.look.period / look.period)
    texture = luminance(MATERIALS[other](surface.u * zoom, surface.v * zoom, look, surface.random))
    inside = (mask > 0.5) & surface.support
    if not inside.any():
        return albedo
    texture = (texture - texture[inside].mean()) / max(float(texture[inside].std()), 1e-3)
    mean = albedo[inside].mean(0)
    body = mean + texture[..., None] * np.float32(surface.sigma) * (mean / max(float(luminance(mean)), 1e-3))
    return _over(albedo, body.astype(np.float32), mask * surface.support * np.float32(rng.uniform(0.35, 0.9)))


def _over(below: NDArray[np.float32], above: NDArray[Any], mask: Field) -> NDArray[np.float32]:
    blended: NDArray[np.float32] = below + mask[..., None] * (above - below).astype(np.float32)
    return blended


_EFFECTS = {"stain": _stain, "paste": _paste, "blur": _blur, "shifted": _shifted, "foreign": _foreign}
