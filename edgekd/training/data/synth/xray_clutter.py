"""What else is in a bag: things that look like the classes, things that hide them, and soft filling.

Objects are about one unit long around the origin, as in `xray_threats`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .attenuation import Part
from .outline import arc, blob, curve, ellipse, move, points, rectangle, stroke

if TYPE_CHECKING:
    from .xray_threats import Shape


def pen(rng: np.random.Generator) -> list[Part]:
    """Return a pen: a thin tube with a metal clip and tip (looks like a knife)."""
    u = rng.uniform
    width = u(0.05, 0.09)
    body = "metal" if rng.random() < 0.3 else "inorganic"
    return [
        Part(
            rectangle(-0.02, 0, 0.9, width, 0, 0.02), body, u(0.06, 0.15) if body == "metal" else u(0.2, 0.6), "shell"
        ),
        Part(points((0.42, -width / 2), (0.5, 0), (0.42, width / 2)), "metal", u(0.15, 0.4)),
        Part(rectangle(-0.3, -width * 0.6, 0.26, 0.02), "metal", u(0.1, 0.3)),
    ]


def spoon(rng: np.random.Generator) -> list[Part]:
    """Return a spoon, a fork or a table knife without an edge (looks like a knife)."""
    u = rng.uniform
    thick = u(0.1, 0.25)
    neck = curve([(-0.5, 0), (-0.1, u(-0.02, 0.02)), (0.25, 0)], 14)
    parts = [Part(stroke(neck, (u(0.07, 0.12), 0.05, 0.03)), "metal", thick)]
    if rng.random() < 0.5:
        return [*parts, Part(ellipse(0.36, 0, 0.15, u(0.07, 0.1)), "metal", thick * 0.8)]
    parts.append(Part(rectangle(0.29, 0, 0.14, 0.15, 0, 0.03), "metal", thick))
    return parts + [Part(rectangle(0.42, y, 0.18, 0.022), "metal", thick) for y in (-0.06, -0.02, 0.02, 0.06)]


def hair_dryer(rng: np.random.Generator) -> list[Part]:
    """Return a hair dryer: an L of plastic with a motor and a coil (looks like a gun)."""
    u = rng.uniform
    lean, wall = u(-0.15, 0.25), "organic" if rng.random() < 0.5 else "inorganic"
    handle = curve([(-0.12, 0), (-0.14 - lean / 3, 0.2), (-0.14 - lean, 0.55)], 12)
    parts = [
        Part(rectangle(0.05, -0.08, u(0.7, 0.85), u(0.24, 0.32), 0, 0.08), wall, u(0.7, 1.6), "shell"),
        Part(stroke(handle, (0.16, 0.13, 0.12)), wall, u(0.7, 1.6), "shell"),
        Part(ellipse(-0.16, -0.08, 0.11, 0.1), "metal", u(0.25, 0.6), "round"),
        Part(rectangle(-0.13 - lean / 3, 0.24, 0.06, 0.12), "metal", u(0.1, 0.4)),
    ]
    return parts + [Part(rectangle(x, -0.08, 0.02, 0.18), "metal", 0.15) for x in np.arange(0.05, 0.36, 0.07)]


def bracket(rng: np.random.Generator) -> list[Part]:
    """Return an L of sheet metal or a drill-like tool body (looks like a gun)."""
    u = rng.uniform
    thick, wide = u(0.15, 0.5), u(0.12, 0.22)
    material = str(rng.choice(["metal", "inorganic"], p=[0.65, 0.35]))
    depth = thick if material == "metal" else 2.5 * thick
    return [
        Part(rectangle(0, -0.3, u(0.7, 1.0), wide, 0, 0.02), material, depth),
        Part(rectangle(-0.3, 0.05, wide, u(0.5, 0.7), u(-0.2, 0.2), 0.02), material, depth),
        Part(ellipse(u(0.0, 0.3), -0.3, 0.04, 0.04), cut=True),
        Part(ellipse(-0.3, u(0.05, 0.25), 0.04, 0.04), cut=True),
    ]


def bolt(rng: np.random.Generator) -> list[Part]:
    """Return a bolt, a rod or a screwdriver (looks like a wrench)."""
    u = rng.uniform
    thick, width = u(0.25, 0.7), u(0.05, 0.11)
    parts = [Part(rectangle(0, 0, 0.9, width), "metal", thick, "round")]
    kind = rng.integers(3)
    if kind == 0:
        parts.append(Part(ellipse(-0.42, 0, 0.1, width * u(1.0, 1.6), count=6), "metal", thick))
        parts.append(Part(ellipse(u(0.1, 0.35), 0, 0.08, width * 1.2, count=6), "metal", thick))
    elif kind == 1:
        parts.append(Part(rectangle(-0.28, 0, 0.42, width * u(1.8, 2.6), 0, 0.05), "organic", u(1.2, 2.5), "round"))
    return parts


def tube_ring(rng: np.random.Generator) -> list[Part]:
    """Return a rod that ends in one or two washers (looks like a wrench)."""
    u = rng.uniform
    thick = u(0.15, 0.45)
    radius = u(0.07, 0.13)
    parts = [Part(rectangle(0, 0, 0.74, u(0.03, 0.06)), "metal", thick)]
    for x in (-0.4, 0.4)[: int(rng.integers(1, 3))]:
        ring = stroke(arc(x, 0, radius, 0, 2 * np.pi, 20), u(0.03, 0.06))
        parts.append(Part(ring, "metal", thick))
    return parts


def glasses(rng: np.random.Generator) -> list[Part]:
    """Return spectacles with folded arms (two rings, like scissors)."""
    u = rng.uniform
    frame = str(rng.choice(["metal", "inorganic"]))
    thick = u(0.1, 0.25) if frame == "metal" else u(0.4, 0.9)
    rx, ry, pen_width = u(0.17, 0.22), u(0.12, 0.2), u(0.02, 0.04)
    parts: list[Part] = []
    for side in (-1, 1):
        circle = ellipse(side * 0.26, 0, rx, ry, count=24)
        loop = np.concatenate([circle, circle[:1]])
        parts.append(Part(circle, "inorganic", u(0.1, 0.25)))
        parts.append(Part(stroke(loop, pen_width), frame, thick))
        arm = curve([(side * 0.48, -0.05), (-side * 0.1, u(0.0, 0.12)), (-side * 0.4, u(0.1, 0.25))], 10)
        parts.append(Part(stroke(arm, pen_width), frame, thick))
    return [*parts, Part(rectangle(0, -0.03, 0.1, pen_width), frame, thick)]


def tweezers(rng: np.random.Generator) -> list[Part]:
    """Return tweezers or a pair of compasses (a V of metal, like scissors or pliers)."""
    u = rng.uniform
    opening, thick, width = u(0.06, 0.5), u(0.1, 0.35), u(0.04, 0.08)
    legs = [
        stroke(curve([(-0.5, 0), (0, s * opening / 3), (0.5, s * opening / 3)], 10), (width, width, 0.02))
        for s in (-1, 1)
    ]
    parts = [Part(leg, "metal", thick) for leg in legs]
    if rng.random() < 0.4:
        parts.append(Part(ellipse(-0.47, 0, 0.07, 0.07), "inorganic", 0.8, "round"))
    return parts


def keys(rng: np.random.Generator) -> list[Part]:
    """Return a ring with two to five keys."""
    u = rng.uniform
    parts = [Part(stroke(arc(0, 0, 0.13, 0, 2 * np.pi, 20), 0.025), "metal", 0.2)]
    for angle in rng.uniform(0, 2 * np.pi, int(rng.integers(2, 6))):
        length, thick = u(0.3, 0.4), u(0.12, 0.25)
        key = [
            Part(ellipse(0.2, 0, 0.09, 0.09), "metal", thick),
            Part(ellipse(0.16, 0, 0.025, 0.025), "metal", -thick),
            Part(rectangle(0.28 + length / 2, 0, length, 0.05), "metal", thick),
        ]
        key += [
            Part(rectangle(x, 0.035, 0.025, u(0.01, 0.05)), "metal", thick) for x in np.arange(0.4, 0.28 + length, 0.05)
        ]
        parts += [Part(move(p.outline, angle=angle), p.material, p.thickness) for p in key]
    return parts


def cable(rng: np.random.Generator) -> list[Part]:
    """Return a coiled or wandering cable with a plug: copper in plastic."""
    u = rng.uniform
    if rng.random() < 0.5:
        turns = np.linspace(0, 2 * np.pi * u(2, 4), 70)
        radius = 0.3 + 0.05 * np.sin(turns * u(0.2, 0.9)) + turns * 0.008
        path = np.stack([radius * np.cos(turns), u(0.5, 1.0) * radius * np.sin(turns)], 1)
    else:
        path = curve(rng.uniform(-0.5, 0.5, (int(rng.integers(4, 7)), 2)), 60)
    (x, y), turned = path[-1], u(0, 3)
    return [
        Part(stroke(path, u(0.035, 0.05)), "inorganic", u(0.2, 0.5)),
        Part(stroke(path, 0.018), "metal", u(0.08, 0.2)),
        Part(rectangle(x, y, 0.14, 0.08, turned, 0.01), "inorganic", 1.0),
        Part(rectangle(x, y, 0.07, 0.05, turned), "metal", 0.3),
    ]


def bottle(rng: np.random.Generator) -> list[Part]:
    """Return a bottle or an aerosol can, lying, partly filled."""
    u = rng.uniform
    wide, neck = u(0.26, 0.36), u(0.08, 0.12)
    wall = str(rng.choice(["organic", "inorganic", "metal"], p=[0.5, 0.3, 0.2]))
    thick = {"organic": u(0.8, 1.8), "inorganic": u(0.5, 1.2), "metal": u(0.05, 0.12)}[wall]
    half = wide / 2
    body = points(
        (-0.5, -half), (0.2, -half), (0.34, -neck), (0.46, -neck), (0.46, neck), (0.34, neck), (0.2, half), (-0.5, half)
    )
    level = u(-0.2, 0.25)
    liquid = points((-0.47, -half * 0.92), (level, -half * 0.92), (level, half * 0.92), (-0.47, half * 0.92))
    return [
        Part(body, wall, thick, "shell"),
        Part(liquid, "organic", u(2.0, 6.0), "round"),
        Part(rectangle(0.45, 0, 0.09, neck * 2.2), "organic" if rng.random() < 0.6 else "metal", u(0.3, 0.8)),
    ]


def laptop(rng: np.random.Generator) -> list[Part]:
    """Return a laptop or tablet: a case over a circuit board with chips, a battery and a keyboard grid."""
    u = rng.uniform
    high = u(0.6, 0.75)
    parts = [
        Part(rectangle(0, 0, 1.0, high, 0, 0.03), "inorganic", u(0.3, 0.9)),
        Part(rectangle(0, 0, 0.94, high * 0.9), "metal", u(0.02, 0.07)),
        Part(rectangle(0, high * 0.33, 0.8, high * 0.2), "inorganic", u(0.3, 1.0)),
    ]
    for _ in range(int(rng.integers(10, 22))):
        x, y = u(-0.42, 0.42), u(-high * 0.42, high * 0.2)
        chip = rectangle(x, y, u(0.02, 0.14), u(0.02, 0.12))
        parts.append(Part(chip, str(rng.choice(["metal", "inorganic"])), u(0.05, 0.35)))
    for _ in range(6):
        x, y = u(-0.4, 0.4), u(-high * 0.4, high * 0.2)
        trace = points((x, y), (x + u(-0.2, 0.2), y), (x + u(-0.2, 0.2), y + u(-0.2, 0.2)))
        parts.append(Part(stroke(trace, 0.014), "metal", u(0.05, 0.2)))
    hinges = [Part(rectangle(x, -high * 0.47, 0.12, 0.03), "metal", u(0.3, 0.8)) for x in (-0.4, 0.4)]
    return parts + hinges


def phone(rng: np.random.Generator) -> list[Part]:
    """Return a phone, a power bank or a charger: a case with dense cells inside."""
    u = rng.uniform
    wide = u(0.4, 0.65)
    parts = [
        Part(rectangle(0, 0, 1.0, wide, 0, 0.08), "inorganic", u(0.4, 1.0)),
        Part(
            rectangle(u(-0.1, 0.1), 0, u(0.4, 0.6), wide * 0.75), str(rng.choice(["metal", "inorganic"])), u(0.1, 0.5)
        ),
        Part(rectangle(0.42, 0, 0.06, 0.1), "metal", 0.2),
    ]
    chips = [rectangle(u(-0.4, 0.4), u(-0.15, 0.15), u(0.04, 0.15), u(0.04, 0.12)) for _ in range(rng.integers(2, 6))]
    return parts + [Part(chip, "metal", u(0.1, 0.3)) for chip in chips]


def umbrella(rng: np.random.Generator) -> list[Part]:
    """Return a folded umbrella: a long shaft, ribs and a handle."""
    u = rng.uniform
    spread = u(0.03, 0.07)
    parts = [
        Part(rectangle(0, 0, 1.0, 0.025), "metal", u(0.2, 0.45)),
        Part(stroke(points((-0.3, 0), (0.45, 0)), (spread * 2.4, spread)), "organic", u(0.8, 2.0)),
        Part(stroke(curve([(-0.5, 0), (-0.58, 0.03), (-0.58, 0.12), (-0.5, 0.14)], 10), 0.05), "organic", 1.6, "round"),
    ]
    ribs = [stroke(points((-0.28, y), (0.42, y * 0.3)), 0.012) for y in np.linspace(-spread, spread, 5)]
    return parts + [Part(rib, "metal", u(0.1, 0.2)) for rib in ribs]


def shoe(rng: np.random.Generator) -> list[Part]:
    """Return a shoe from above or the side: a thick sole, a heel, eyelets."""
    u = rng.uniform
    sole = stroke(curve([(-0.5, 0), (-0.2, u(-0.04, 0.0)), (0.2, 0.02), (0.5, 0.0)], 18), (0.24, 0.26, 0.22, 0.34, 0.2))
    parts = [
        Part(sole, "organic", u(1.5, 4.0), "round"),
        Part(rectangle(-0.36, 0, 0.24, 0.24, 0, 0.06), "organic", u(1.0, 3.0)),
    ]
    if rng.random() < 0.5:
        parts.append(Part(rectangle(-0.05, 0, 0.3, 0.06), "metal", u(0.05, 0.15)))  # shank
    return parts + [
        Part(ellipse(x, y, 0.012, 0.012, count=8), "metal", 0.2)
        for x in np.arange(0, 0.25, 0.06)
        for y in (-0.05, 0.05)
    ]


def belt(rng: np.random.Generator) -> list[Part]:
    """Return a rolled belt with its buckle."""
    u = rng.uniform
    turns = np.linspace(0, 2 * np.pi * u(1.5, 3), 60)
    radius = 0.14 + 0.035 * turns / 2
    path = np.stack([radius * np.cos(turns), radius * np.sin(turns)], 1)
    x, y = path[-1]
    buckle = rectangle(x, y, 0.24, 0.18, u(0, 3), 0.03)
    return [
        Part(stroke(path, 0.035), "organic", u(1.5, 3.5)),
        Part(stroke(np.concatenate([buckle, buckle[:1]]), 0.04), "metal", u(0.3, 0.6)),
    ]


def coins(rng: np.random.Generator) -> list[Part]:
    """Return a handful of coins, batteries or beads."""
    parts = []
    for _ in range(int(rng.integers(3, 9))):
        x, y = rng.normal(0, 0.22, 2)
        radius = rng.uniform(0.07, 0.13)
        parts.append(
            Part(ellipse(x, y, radius, radius * rng.uniform(0.3, 1), rng.uniform(0, 3)), "metal", rng.uniform(0.1, 0.4))
        )
    return parts


def plate(rng: np.random.Generator) -> list[Part]:
    """Return a dense slab: an adapter, a tin, a tool box lid, a pan (hides whatever lies under it)."""
    u = rng.uniform
    high = u(0.4, 0.9)
    material = str(rng.choice(["metal", "inorganic"], p=[0.55, 0.45]))
    depth = u(0.12, 0.3) if material == "metal" else u(0.8, 1.8)
    outline = rectangle(0, 0, 1.0, high, 0, u(0.02, 0.3))
    rim = np.concatenate([outline, outline[:1]])
    parts = [Part(outline, material, depth), Part(stroke(rim, 0.04), material, depth * u(0.3, 1.0))]
    panels = [rectangle(u(-0.3, 0.3), u(-0.15, 0.15), u(0.1, 0.4), u(0.02, 0.2)) for _ in range(rng.integers(0, 5))]
    return parts + [Part(panel, material, depth * u(-0.5, 0.8)) for panel in panels]


def book(rng: np.random.Generator) -> list[Part]:
    """Return a book, a box of food or a soap bar: a block of organic matter."""
    u = rng.uniform
    outline = rectangle(0, 0, 1.0, u(0.5, 0.8), 0, 0.02) if rng.random() < 0.7 else blob(rng, 0.45, 0.1)
    return [Part(outline, "organic", u(1.5, 5.0), "plate" if rng.random() < 0.6 else "round")]


LOOKALIKES: dict[str, Shape] = {
    "pen": pen,
    "spoon": spoon,
    "hair_dryer": hair_dryer,
    "bracket": bracket,
    "bolt": bolt,
    "tube_ring": tube_ring,
    "glasses": glasses,
    "tweezers": tweezers,
    "keys": keys,
}
COVERS: dict[str, Shape] = {"laptop": laptop, "plate": plate, "phone": phone, "cable": cable}
FILLING: dict[str, Shape] = {
    "bottle": bottle,
    "umbrella": umbrella,
    "shoe": shoe,
    "belt": belt,
    "coins": coins,
    "book": book,
}
