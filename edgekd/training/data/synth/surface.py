"""Surface inspection: seven materials, flawless or with one of six kinds of defect, each with its exact mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from .annotations import SPLITS, Annotations, generator
from .outline import turn
from .surface_defects import DEFECTS, LARGEST, SMALLEST, Rendering, luminance, spoil
from .surface_materials import MATERIALS, Lattices, look_of
from .textures import Field, fbm

if TYPE_CHECKING:
    from numpy.typing import NDArray

CATEGORIES = tuple(MATERIALS)
DEFAULT_SIZE = 512
LOOK = len(SPLITS)  # stands where the split does in the seed of a category's look
ATTEMPTS = 12


def scene(
    seed: int,
    index: int,
    *,
    split: str = "train",
    size: int | tuple[int, int] | None = None,
    shift: float = 0.0,
) -> tuple[NDArray[np.uint8], Annotations]:
    """Draw one surface.

    Images of all splits share the seed's specimens. Index k shows category `CATEGORIES[k % 7]`. Images of "train" and
    "val" are flawless; of each category's five consecutive test images two are flawless, three defective.

    Args:
        seed: of the data set.
        index: of the image in its split.
        split: "train", "val" or "test".
        size: side of a square in pixels, or (height, width); None: 512. The texture's size follows the image's.
        shift: by how many times the light, pose and focus of a test image vary beyond the training images'.

    Returns:
        The image `(H, W, 3)` uint8 RGB and its annotations: mask, category, defect ("good" for flawless), contrast.
        Outside the mask the image equals its flawless self.
    """
    rng = generator(seed, split, index)
    category = CATEGORIES[index % len(CATEGORIES)]
    height, width = size if isinstance(size, tuple) else (size or DEFAULT_SIZE,) * 2
    extra = shift if split == "test" else 0.0
    flawless = _render(rng, seed, category, (height, width), extra)
    light, noise = _camera(rng, height, width, extra)
    defect = defect_of(index) if split == "test" else "good"
    albedo, mask = flawless.albedo, np.zeros((height, width), np.bool_)
    if defect != "good":
        albedo, mask = _damage(rng, flawless, defect)
    exposed = np.clip(albedo * light + noise, 0, 1)
    contrast = None
    if mask.any():
        change = luminance(albedo) - luminance(flawless.albedo)
        contrast = abs(float(change[mask].mean())) / flawless.sigma
    nothing = np.zeros(0, np.float32)
    found = Annotations(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), nothing, mask, category, defect, contrast)
    pixels: NDArray[np.uint8] = np.round(exposed * 255).astype(np.uint8)
    return pixels, found


def defect_of(index: int) -> str:
    """Return the defect that test image `index` gets, "good" for none."""
    round_, place = divmod(index // len(CATEGORIES), 5)
    if place % 2:
        return "good"
    # Three defective images a round: two rounds go through all six kinds; each category starts at another.
    return DEFECTS[(3 * round_ + place // 2 + index % len(CATEGORIES)) % len(DEFECTS)]


def _render(rng: np.random.Generator, seed: int, category: str, size: tuple[int, int], extra: float) -> Rendering:
    """Draw a flawless surface in its own phase, pose, scale and warp."""
    look = look_of(category, np.random.default_rng((seed, LOOK, CATEGORIES.index(category))))
    random = Lattices.draw(rng)
    height, width = size
    period = look.period * min(size) / DEFAULT_SIZE * float(np.exp(rng.uniform(-0.05, 0.05) * (1 + extra)))
    rigid = category == "part"
    matrix = turn(rng.normal(0, np.deg2rad(3.0 + 5.0 * rigid)) * (1 + extra)) / period
    origin = rng.normal(0, 0.02, 2) * (1 + extra) if rigid else rng.uniform(0, 100, 2)
    columns, rows = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
    warp = 0.0 if rigid else 0.12 * (1 + extra)
    u, v = (
        (matrix[k, 0] * columns + matrix[k, 1] * rows + origin[k] + warp * fbm(rng, *size, cells=3, octaves=2)).astype(
            np.float32
        )
        for k in (0, 1)
    )
    albedo = np.clip(MATERIALS[category](u, v, look, random), 0, 1)
    support = np.hypot(u, v) < 0.95 if rigid else np.ones(size, np.bool_)
    if rigid:
        support &= np.hypot(u, v) > 0.34
    sigma = max(float(luminance(albedo)[support].std()), 0.02)
    return Rendering(category, u, v, look, random, albedo, sigma, support)


def _camera(
    rng: np.random.Generator, height: int, width: int, extra: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the light that falls on each pixel, `(H, W, 1)`, and the sensor's noise `(H, W, 3)`."""
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.16) * (1 + extra)
    columns, rows = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    gain = 1 + rng.uniform(-0.09, 0.09) * (1 + extra)
    white = 1 + rng.normal(0, 0.012, 3) * (1 + extra)
    light = gain * (1 + slope * (columns * np.cos(angle) + rows * np.sin(angle)) / 2)
    noise = rng.uniform(0.006, 0.014) * rng.standard_normal((height, width, 3), dtype=np.float32)
    return (light[..., None] * white).astype(np.float32), noise.astype(np.float32)


def _damage(
    rng: np.random.Generator, flawless: Rendering, defect: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the damaged albedo and its mask: where it differs by a grey level or more, small gaps closed."""
    total = flawless.u.size
    best: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None
    for _ in range(ATTEMPTS):
        albedo = np.clip(spoil(rng, flawless, defect), 0, 1)
        changed = (np.abs(albedo - flawless.albedo) >= 1 / 255).any(-1).astype(np.uint8)
        mask = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(np.bool_)
        share = float(mask.sum()) / total
        if SMALLEST <= share <= LARGEST:
            return _keep(albedo, flawless.albedo, mask), mask
        if best is None or abs(np.log(max(share, 1e-9) / SMALLEST)) < abs(np.log(max(best[1].mean(), 1e-9) / SMALLEST)):
            best = albedo, mask
    assert best is not None
    return _keep(best[0], flawless.albedo, best[1]), best[1]


def _keep(albedo: NDArray[np.float32], flawless: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    kept: NDArray[np.float32] = np.where(mask[..., None], albedo, flawless)
    return kept


__all__ = ["CATEGORIES", "DEFAULT_SIZE", "DEFECTS", "Field", "defect_of", "scene"]
