"""The five classes of the xray scenes, about one unit long around the origin, every proportion drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .attenuation import Part
from .outline import Points, arc, curve, ellipse, move, points, rectangle, stroke

Shape = Callable[[np.random.Generator], list[Part]]


def gun(rng: np.random.Generator) -> list[Part]:
    """Return a pistol or a revolver."""
    return _pistol(rng) if rng.random() < 0.6 else _revolver(rng)


def _pistol(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    top, deep = -0.32, u(0.13, 0.19)
    slant, grip, length = u(0.02, 0.16), u(0.17, 0.24), u(0.42, 0.62)
    back = u(-0.42, -0.34)
    muzzle = back + u(0.72, 0.95)
    polymer = rng.random() < 0.45
    low = top + deep
    frame = "inorganic" if polymer else "metal"
    heel = low + length
    body = points((back, low), (back + grip + 0.04, low), (back + grip - slant, heel), (back - slant, heel))
    core = points(
        (back + 0.04, low),
        (back + grip, low),
        (back + grip - slant - 0.04, heel - 0.02),
        (back - slant + 0.05, heel - 0.02),
    )
    guard = arc(back + grip + 0.11, low + 0.02, u(0.09, 0.12), 0.0, np.pi * u(0.75, 0.95), 10)
    parts = [
        Part(rectangle((back + muzzle) / 2, top + deep / 2, muzzle - back, deep, 0.0, 0.02), "metal", u(0.35, 0.7)),
        Part(rectangle((back + muzzle) / 2 + 0.1, top + deep * 0.45, (muzzle - back) * 0.6, deep * 0.4), "metal", 0.5),
        Part(
            rectangle((back + muzzle) / 2 - 0.02, low + 0.03, (muzzle - back) * u(0.7, 0.95), 0.07), frame, u(0.4, 0.9)
        ),
        Part(body, frame, u(0.7, 1.3) if polymer else u(0.25, 0.5)),
        Part(stroke(guard, 0.035), frame, u(0.4, 0.8)),
        Part(stroke(curve([(back + grip + 0.1, low + 0.02), (back + grip + 0.08, low + 0.12)], 5), 0.03), "metal", 0.4),
    ]
    if rng.random() < 0.75:  # a magazine, full or not
        parts.append(Part(core, "metal", u(0.1, 0.22)))
        rounds = int(rng.integers(0, 7))
        step = (heel - low) / 8
        for k in range(rounds):
            lean = -slant * (k + 1) / 8
            parts.append(
                Part(rectangle(back + grip / 2 + lean, low + (k + 1) * step, grip * 0.7, step * 0.6), "metal", 0.45)
            )
    return parts


def _revolver(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    barrel, bore = u(0.3, 0.55), u(0.06, 0.1)
    drum = u(0.17, 0.23)
    y = -0.22
    front = 0.06 + drum / 2
    handle = curve([(-0.16, y + 0.02), (-0.26, 0.02), (-0.33 - u(0, 0.06), 0.2), (-0.36 - u(0, 0.1), 0.36)], 16)
    guard = arc(0.0, y + 0.17, u(0.09, 0.12), -0.1, np.pi * 1.05, 12)
    wood = "organic" if rng.random() < 0.6 else "inorganic"
    parts = [
        Part(rectangle(front + barrel / 2, y - 0.05, barrel, bore), "metal", u(0.35, 0.7)),
        Part(rectangle(-0.03, y - drum * 0.55, 0.36, 0.05), "metal", 0.4),
        Part(rectangle(-0.03, y + drum * 0.55, 0.34, 0.06), "metal", 0.4),
        Part(rectangle(-0.16, y, 0.08, drum * 1.1), "metal", 0.5),
        Part(rectangle(0.02, y, u(0.19, 0.25), drum, 0.0, 0.03), "metal", u(0.5, 0.8)),
        Part(stroke(handle, (0.12, 0.13, u(0.15, 0.2), u(0.14, 0.2))), wood, u(1.0, 2.2), "round"),
        Part(stroke(handle, 0.06), "metal", u(0.2, 0.4)),
        Part(stroke(guard, 0.03), "metal", 0.4),
        Part(stroke(curve([(0.0, y + 0.12), (-0.02, y + 0.22)], 4), 0.03), "metal", 0.3),
        Part(stroke(curve([(-0.18, y - 0.06), (-0.25, y - 0.16)], 4), 0.04), "metal", 0.4),
    ]
    chambers = [rectangle(0.02, y + k * drum * 0.31, 0.2, drum * 0.2) for k in (-1, 0, 1)]
    return parts + [Part(chamber, "metal", u(0.05, 0.3)) for chamber in chambers]


def _blade(rng: np.random.Generator, length: float, width: float) -> Points:
    """Return a blade from x = 0 to `length`, edge down: straight, drop point, clip point or tanto."""
    half = width / 2
    back = points((0, -half), (length * rng.uniform(0.55, 0.8), -half))
    tip = {
        "straight": points((length * 0.9, -half), (length, half * 0.4)),
        "drop": points((length * 0.85, -half * 0.6), (length, rng.uniform(-0.2, 0.3) * half)),
        "clip": points((length * 0.78, -half * 0.1), (length, -half * 0.2)),
        "tanto": points((length, -half * 0.8), (length * 0.84, half)),
    }[str(rng.choice(["straight", "drop", "clip", "tanto"]))]
    belly = points((length * 0.86, half * 0.85), (length * 0.7, half), (0, half))
    return np.concatenate([back, tip, belly])


def knife(rng: np.random.Generator) -> list[Part]:
    """Return a fixed knife or a folding one, open or half open."""
    u = rng.uniform
    folding = rng.random() < 0.45
    length = u(0.4, 0.5) if folding else u(0.48, 0.68)
    width = u(0.06, 0.15)
    handle = u(0.48, 0.55) if folding else 1 - length
    wide = width * u(0.9, 1.3)
    x0 = -0.5
    joint = x0 + handle
    steel = u(0.1, 0.28)
    angle = float(rng.choice([0.0, u(-2.2, -0.3), -u(2.6, 2.95)], p=[0.5, 0.35, 0.15])) if folding else 0.0
    blade = move(_blade(rng, length, width), angle=angle, shift=(joint, 0.0))
    grip = str(rng.choice(["organic", "inorganic", "metal"], p=[0.45, 0.35, 0.2]))
    thick = {"organic": u(0.8, 1.8), "inorganic": u(0.4, 1.0), "metal": u(0.15, 0.35)}[grip]
    bend = u(-0.04, 0.04)
    spine = curve([(x0, bend), (x0 + handle / 2, -bend), (joint, 0.0)], 12)
    parts = [
        Part(blade, "metal", steel),
        Part(stroke(spine, (wide * u(0.9, 1.2), wide, wide * 1.1, wide)), grip, thick, "round"),
    ]
    if not folding:
        parts.append(Part(stroke(spine, width * u(0.3, 0.8)), "metal", steel))  # tang
        if rng.random() < 0.4:
            parts.append(Part(rectangle(joint, 0, 0.03, wide * u(1.3, 2.0)), "metal", u(0.2, 0.5)))
    rivets = [ellipse(x, 0.0, 0.016, 0.016, count=10) for x in np.linspace(x0 + 0.06, joint - 0.03, rng.integers(2, 4))]
    return parts + [Part(rivet, "metal", 0.5) for rivet in rivets]


def wrench(rng: np.random.Generator) -> list[Part]:
    """Return an open-end, box-end, combination or adjustable wrench."""
    u = rng.uniform
    thick = u(0.25, 0.6)
    shaft, head = u(0.06, 0.11), u(0.11, 0.17)
    kind = str(rng.choice(["open", "box", "combination", "adjustable"]))
    parts = [
        Part(rectangle(0, 0, 0.8, shaft, 0.0, 0.01), "metal", thick),
        Part(rectangle(0, 0, 0.6, shaft * 0.45), "metal", -thick * u(0.1, 0.5)),  # the forged recess
    ]
    for side in (-1.0, 1.0):
        ring = kind == "box" or (kind == "combination" and side < 0)
        size = head * u(0.75, 1.15)
        if kind == "adjustable":
            if side < 0:
                parts.append(Part(ellipse(-0.44, 0, 0.018, 0.018), cut=True))
                continue
            size = head * 1.3
        x = side * 0.4
        parts.append(Part(ellipse(x, 0, size, size * u(0.85, 1.0)), "metal", thick))
        if ring:
            parts.append(Part(ellipse(x, 0, size * 0.62, size * 0.62, count=6 if rng.random() < 0.5 else 12), cut=True))
        else:
            lean = side * u(-0.4, 0.4)
            gap = size * u(0.65, 0.95)
            mouth = rectangle(size * 0.75, 0, size * 1.6, gap)
            parts.append(Part(move(mouth, angle=lean + (0 if side > 0 else np.pi), shift=(x, 0)), cut=True))
        if kind == "adjustable":
            parts.append(Part(rectangle(x - size * 0.3, size * 0.35, size * 0.5, size * 0.3), "metal", thick))
    return parts


def pliers(rng: np.random.Generator) -> list[Part]:
    """Return pliers: combination or needle nose, closed to wide open."""
    u = rng.uniform
    needle = rng.random() < 0.45
    opening = u(0.02, 0.32)
    jaw = u(0.3, 0.45) if needle else u(0.18, 0.28)
    base = u(0.07, 0.1)
    tip = 0.03 if needle else u(0.07, 0.1)
    bow, steel = u(0.08, 0.16), u(0.3, 0.6)
    sleeve = str(rng.choice(["organic", "inorganic"]))
    rubber = u(0.8, 1.8) if sleeve == "organic" else u(0.4, 0.9)
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        nose = stroke(curve([(0, 0), (jaw * 0.5, side * 0.035), (jaw, side * tip * 0.5)], 8), (base, base, tip))
        leg = curve([(0, 0), (-0.16, -side * bow * 0.8), (-0.38, -side * bow), (-0.62, -side * bow * u(0.6, 1.0))], 18)
        parts.append(Part(move(nose, angle=side * opening / 2), "metal", steel))
        parts.append(Part(move(stroke(leg, (base, 0.06, 0.05)), angle=side * opening / 2), "metal", steel * 0.8))
        if rng.random() < 0.85:
            grip = stroke(leg[6:], u(0.075, 0.11))
            parts.append(Part(move(grip, angle=side * opening / 2), sleeve, rubber, "round"))
    parts.append(Part(ellipse(0, 0, base * 0.8, base * 0.8), "metal", steel))
    return [Part(move(p.outline, shift=(0.12, 0)), p.material, p.thickness, p.profile) for p in parts]


def scissors(rng: np.random.Generator) -> list[Part]:
    """Return scissors, closed to wide open, with rings of steel or plastic."""
    u = rng.uniform
    opening = u(0.0, 1.1) if rng.random() < 0.6 else u(0.0, 0.15)
    blade, width = u(0.42, 0.58), u(0.06, 0.1)
    steel = u(0.1, 0.3)
    handle = str(rng.choice(["organic", "inorganic", "metal"], p=[0.35, 0.35, 0.3]))
    thick = {"organic": u(1.0, 2.0), "inorganic": u(0.4, 1.0), "metal": u(0.2, 0.4)}[handle]
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        rx, ry, ring = u(0.1, 0.15), u(0.07, 0.1), u(0.025, 0.05)
        reach = 1 - blade - rx
        cutter = points((0, side * width / 2), (0, -side * width / 2), (blade, 0), (blade * 0.96, side * width * 0.2))
        shank = stroke(
            curve([(0.03, 0), (-0.1, -side * 0.02), (-reach + rx, -side * ry * 0.7)], 8), (width, 0.05, ring)
        )
        loop = arc(-reach, -side * ry * 1.0, 1.0, 0.0, 2 * np.pi, 24)
        loop = (loop - (-reach, -side * ry)) * (rx, ry) + (-reach, -side * ry * 1.05)
        turned = side * opening / 2
        parts.append(Part(move(cutter, angle=turned), "metal", steel))
        parts.append(Part(move(shank, angle=turned), "metal", steel))
        parts.append(Part(move(stroke(loop, ring), angle=turned), handle, thick, "round"))
    parts.append(Part(ellipse(0, 0, 0.025, 0.025, count=12), "metal", 0.5))
    return [Part(move(p.outline, shift=(0.0, 0)), p.material, p.thickness, p.profile) for p in parts]


THREATS: dict[str, Shape] = {"gun": gun, "knife": knife, "wrench": wrench, "pliers": pliers, "scissors": scissors}
