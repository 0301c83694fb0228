"""Baggage scans: overlapping translucent objects in dual-energy pseudo-colour, five classes hidden among clutter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .annotations import Annotations, generator
from .attenuation import COEFFICIENTS, EXTINCTION, Part, Shadow, cast_shadow, colours, coverage, extent, place
from .outline import blob, hull, move, rectangle, stroke
from .textures import fbm
from .xray_clutter import COVERS, FILLING, LOOKALIKES
from .xray_threats import THREATS, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = tuple(THREATS)
DEFAULT_SIZE = 256
COUNTS = (0.3, 0.35, 0.25, 0.1)  # how often one, two, three and four threats are tried
LENGTHS = (0.3, 0.55)  # of a threat, in short sides of the image
ATTEMPTS = 16  # at a place where the next threat can be seen
ASPECTS = (1.0, 1.0, 1.0, 0.875, 0.8125)
EASY = 2.0  # above 1: more sparse bags than crowded ones
HIDDEN = 0.12  # an object behind which less light than this arrives could not be found by anyone


@dataclass(frozen=True, eq=False)
class _Threat:
    shadow: Shadow
    label: int


def draw_size(rng: np.random.Generator, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width): `size` as it is when a pair; else the long side, with a mildly varying aspect."""
    if isinstance(size, tuple):
        return size
    long = size or DEFAULT_SIZE
    short = int(round(long * float(rng.choice(ASPECTS)) / 2) * 2)
    return (short, long) if rng.random() < 0.65 else (long, short)


def scene(
    seed: int, index: int, *, split: str = "train", size: int | tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], Annotations]:
    """Draw one baggage scan.

    Args:
        seed: of the data set.
        index: of the image in its split.
        split: "train", "val" or "test": different images for the same index.
        size: long side in pixels (the aspect then varies), or (height, width); None: 256.

    Returns:
        The image `(H, W, 3)` uint8 RGB and its annotations with xyxy boxes.
    """
    rng = generator(seed, split, index)
    height, width = draw_size(rng, size)
    attenuation = _bag(rng, height, width)
    crowding = rng.uniform(0, 1) ** EASY
    for shadow in _clutter(rng, height, width, crowding):
        attenuation[(slice(None), *shadow.window())] += shadow.attenuation
    threats = _threats(rng, attenuation, crowding)
    image = _expose(rng, attenuation)
    return image, _annotate(threats, attenuation)


def _bag(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return the attenuation of the bag itself and its soft filling, `(2, height, width)`."""
    u = rng.uniform
    attenuation = np.zeros((2, height, width), np.float32)
    side = min(height, width)
    low, high = COEFFICIENTS["organic"]
    centre, turned = (width / 2, height / 2), u(-0.06, 0.06)
    outer = rectangle(*centre, width * u(0.92, 1.02), height * u(0.92, 1.02), turned, side * u(0.03, 0.16))
    rim = stroke(np.concatenate([outer, outer[:1]]), side * u(0.015, 0.04))
    depth = u(0.4, 1.5) * coverage(outer, height, width) + u(0.5, 2.0) * coverage(rim, height, width)
    for _ in range(int(rng.integers(2, 7))):  # clothes: folded, so their thickness is rough at many scales
        outline = move(blob(rng, side * u(0.2, 0.45), 0.35), shift=(u(0, width), u(0, height)))
        cloth = cv2.GaussianBlur(coverage(outline, height, width), (0, 0), side * u(0.004, 0.03))
        depth = depth + u(0.4, 2.2) * cloth * np.maximum(1 + u(0.15, 0.5) * fbm(rng, height, width, cells=u(3, 9)), 0)
    attenuation += np.stack([low * depth, high * depth]).astype(np.float32)
    frame: list[Part] = []
    if rng.random() < 0.4:  # the rails and screws of a trolley
        wide = u(0.015, 0.035)
        rails = [
            rectangle(width * x, height / 2, side * wide, height * 1.2, turned) for x in (u(0.2, 0.4), u(0.6, 0.8))
        ]
        frame += [Part(rail, "metal", u(0.04, 0.16)) for rail in rails]
    if rng.random() < 0.6:  # zip
        y, step = height * float(rng.choice([u(0.04, 0.2), u(0.8, 0.96)])), side * 0.02
        frame += [Part(rectangle(x, y, step * 0.5, step, turned), "metal", 0.12) for x in np.arange(0, width, step)]
    shadow = cast_shadow(frame, height, width) if frame else None
    if shadow is not None:
        attenuation[(slice(None), *shadow.window())] += shadow.attenuation
    return attenuation


def _cast(
    rng: np.random.Generator, shape: Shape, scale: float, height: int, width: int, margin: float
) -> Shadow | None:
    """Place one object at random: margin 1 keeps all of it inside the image, 0 only its origin."""
    tilt = (rng.uniform(0, np.pi), rng.uniform(0.6, 1.0) if rng.random() < 0.5 else 1.0)
    turned, mirror = rng.uniform(0, 2 * np.pi), rng.random() < 0.5
    parts = place(shape(rng), scale=scale, angle=turned, tilt=tilt, mirror=mirror, shift=np.zeros(2))
    x0, y0, x1, y1 = extent(parts)
    low = np.array([-x0, -y0]) * margin
    high = np.maximum(np.array([width, height]) - np.array([x1, y1]) * margin, low)
    shift = rng.uniform(low, high)
    return cast_shadow(
        [Part(p.outline + shift, p.material, p.thickness, p.profile, p.cut) for p in parts], height, width
    )


def _clutter(rng: np.random.Generator, height: int, width: int, crowding: float) -> list[Shadow]:
    """Fill the bag: every bag with something soft, a crowded one with look-alikes and dense things too."""
    side = min(height, width)
    drawn: list[Shadow | None] = []
    for family, most, low, high in ((FILLING, 4.0, 0.3, 0.65), (COVERS, 3.0, 0.3, 0.65), (LOOKALIKES, 5.0, 0.18, 0.5)):
        for _ in range(int(rng.uniform(0.2, 1.0) * crowding * most + rng.random())):
            shape = family[str(rng.choice(list(family)))]
            drawn.append(_cast(rng, shape, side * rng.uniform(low, high), height, width, 0.5))
    return [shadow for shadow in drawn if shadow is not None]


def _threats(rng: np.random.Generator, attenuation: NDArray[np.float32], crowding: float) -> list[_Threat]:
    """Draw one to four threats and add them to `attenuation` in place; some get a dense object over them."""
    height, width = attenuation.shape[1:]
    side = min(height, width)
    threats: list[_Threat] = []
    for _ in range(int(rng.choice(4, p=COUNTS)) + 1):
        label = int(rng.integers(len(CLASSES)))
        shape, scale = THREATS[CLASSES[label]], side * rng.uniform(*LENGTHS)
        entangled = rng.random() < 0.5 * crowding
        best: Shadow | None = None
        for _ in range(ATTEMPTS):
            shadow = _cast(rng, shape, scale, height, width, 1.0)
            if shadow is None or shadow.footprint.sum() < 12:
                continue
            if _light(attenuation, shadow) > HIDDEN and (entangled or _apart(shadow, threats)):
                best = shadow
                break
            if not threats and (best is None or _light(attenuation, shadow) > _light(attenuation, best)):
                best = shadow  # the first threat is drawn wherever there is most light
        if best is None:
            continue
        threats.append(_Threat(best, label))
        attenuation[(slice(None), *best.window())] += best.attenuation
        if rng.random() < 0.4 * crowding:
            _cover(rng, attenuation, threats)
    return threats


def _apart(shadow: Shadow, threats: list[_Threat]) -> bool:
    """Tell whether at most a fifth of the object's window lies over the window of an earlier threat."""
    rows, columns = shadow.window()
    for threat in threats:
        other_rows, other_columns = threat.shadow.window()
        high = min(rows.stop, other_rows.stop) - max(rows.start, other_rows.start)
        wide = min(columns.stop, other_columns.stop) - max(columns.start, other_columns.start)
        if max(high, 0) * max(wide, 0) > 0.2 * shadow.footprint.size:
            return False
    return True


def _light(attenuation: NDArray[np.float32], shadow: Shadow) -> float:
    """Return the mean high-energy transmission of `attenuation` over the object's pixels."""
    return float(np.exp(-attenuation[1][shadow.window()][shadow.footprint]).mean())


def _cover(rng: np.random.Generator, attenuation: NDArray[np.float32], threats: list[_Threat]) -> None:
    """Lay a dense object over the last threat, unless that would hide any of them altogether."""
    height, width = attenuation.shape[1:]
    rows, columns = threats[-1].shadow.window()
    shape = COVERS[str(rng.choice(list(COVERS)))]
    shadow = _cast(rng, shape, min(height, width) * rng.uniform(0.3, 0.6), height, width, 0.3)
    if shadow is None:
        return
    middle = np.array([(rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2])
    middle += rng.normal(0, 0.15 * min(height, width), 2) - np.array(shadow.footprint.shape) / 2
    top, left = np.round(middle).astype(int)
    added = np.zeros_like(attenuation)
    h, w = shadow.footprint.shape
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, height), min(left + w, width)
    if y1 <= y0 or x1 <= x0:
        return
    added[:, y0:y1, x0:x1] = shadow.attenuation[:, y0 - top : y1 - top, x0 - left : x1 - left]
    covered = attenuation + added
    if all(_light(covered - _alone(t, covered), t.shadow) > HIDDEN for t in threats):
        attenuation += added


def _alone(threat: _Threat, like: NDArray[np.float32]) -> NDArray[np.float32]:
    alone = np.zeros_like(like)
    alone[(slice(None), *threat.shadow.window())] = threat.shadow.attenuation
    return alone


def _expose(rng: np.random.Generator, attenuation: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Photograph the scene: point spread, photon noise at both energies, one scanner's palette."""
    u = rng.uniform
    transmission = np.exp(-attenuation)
    sharp = u(0.3, 0.9)
    photons = float(np.exp(u(np.log(1500), np.log(20000))))
    for energy in range(2):
        blurred = cv2.GaussianBlur(transmission[energy], (0, 0), sharp)
        noise = rng.standard_normal(blurred.shape, dtype=np.float32)
        # Poisson counts at this flux are normal to within a fraction of a grey level; 4 counts are electronic noise.
        transmission[energy] = blurred + noise * np.sqrt(blurred / photons + (4 / photons) ** 2)
    measured = -np.log(np.clip(transmission, 1e-3, 1.0))
    palette = EXTINCTION * rng.uniform(0.85, 1.15, EXTINCTION.shape)
    return colours(measured, palette, u(0.75, 1.25))


def _annotate(threats: list[_Threat], attenuation: NDArray[np.float32]) -> Annotations:
    boxes, labels, visibility = [], [], []
    for threat in threats:
        box = hull(threat.shadow.footprint)
        if box is None:
            continue
        left, top = threat.shadow.left, threat.shadow.top
        boxes.append([box[0] + left, box[1] + top, box[2] + left, box[3] + top])
        labels.append(threat.label)
        visibility.append(_light(attenuation - _alone(threat, attenuation), threat.shadow))
    return Annotations(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(visibility, np.float32)
    )
