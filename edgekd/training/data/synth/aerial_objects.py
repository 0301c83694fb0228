"""What the aerial scenes are asked about: vehicles, ships and buildings, seen straight from above.

Each draws itself at a position in pixels and notes its exact oriented box; sizes are in metres, x along the object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .outline import Points, curve, ellipse, points, rectangle, stroke

if TYPE_CHECKING:
    from .aerial_canvas import Canvas, Colour

PAINT: tuple[Colour, ...] = (
    (0.88, 0.88, 0.87),
    (0.80, 0.81, 0.82),
    (0.60, 0.61, 0.63),
    (0.36, 0.37, 0.39),
    (0.13, 0.13, 0.15),
    (0.16, 0.17, 0.17),
    (0.55, 0.13, 0.12),
    (0.16, 0.25, 0.45),
    (0.45, 0.44, 0.36),
    (0.22, 0.33, 0.26),
    (0.74, 0.68, 0.55),
)
GLASS: Colour = (0.10, 0.12, 0.14)
ROOFS: tuple[Colour, ...] = (
    (0.62, 0.34, 0.25),
    (0.55, 0.42, 0.34),
    (0.40, 0.38, 0.38),
    (0.52, 0.52, 0.53),
    (0.72, 0.71, 0.69),
    (0.82, 0.81, 0.78),
    (0.38, 0.45, 0.50),
    (0.45, 0.36, 0.30),
)
BOXES: tuple[Colour, ...] = (
    (0.62, 0.25, 0.17),
    (0.20, 0.36, 0.52),
    (0.25, 0.42, 0.32),
    (0.70, 0.70, 0.68),
    (0.75, 0.55, 0.22),
)


def tint(rng: np.random.Generator, colours: tuple[Colour, ...], spread: float = 0.03) -> Colour:
    """Return one of the colours, a little changed."""
    colour = np.asarray(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.9, 1.1) + rng.normal(0, spread, 3)
    r, g, b = (float(v) for v in np.clip(colour, 0.03, 0.97))
    return r, g, b


def lit(colour: Colour, factor: float) -> Colour:
    """Return the colour in stronger or weaker light."""
    r, g, b = (min(v * factor, 1.0) for v in colour)
    return r, g, b


def vehicle_size(rng: np.random.Generator) -> tuple[float, float]:
    """Return the (length, width) in metres of a car, a van or a lorry."""
    kind = rng.random()
    if kind < 0.74:
        return rng.uniform(3.7, 5.0), rng.uniform(1.7, 1.95)
    if kind < 0.87:
        return rng.uniform(5.0, 6.3), rng.uniform(1.95, 2.2)
    return rng.uniform(7.0, 14.0), rng.uniform(2.4, 2.6)


def vehicle(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    y: float,
    angle: float,
    size: tuple[float, float],
    *,
    on_road: bool = False,
) -> bool:
    """Draw a vehicle heading along `angle`; False if there is no room for it."""
    length, width = size
    if not canvas.room(x, y, length, width, angle, on_road=on_road):
        return False
    body = canvas.at(rectangle(0, 0, length, width, 0.0, 0.3), x, y, angle)
    canvas.shadow(body, 3.2 if length > 6.5 else 1.5)
    colour = tint(rng, PAINT)
    canvas.paint(body, colour)

    def panel(x0: float, x1: float, wide: float, fill: Colour) -> None:
        shape = rectangle((x0 + x1) / 2 * length, 0, (x1 - x0) * length, wide * width)
        canvas.paint(canvas.at(shape, x, y, angle), fill, alpha=0.9)

    if length > 6.5:  # a lorry: cab, gap, load
        panel(0.30, 0.34, 0.9, GLASS)
        panel(0.44, 0.48, 0.85, GLASS)
        panel(-0.5, 0.3, 1.0, tint(rng, PAINT if rng.random() < 0.6 else BOXES))
        for at in np.arange(-0.4, 0.25, 0.12 if rng.random() < 0.4 else 1.0):
            panel(at, at + 0.012, 1.0, lit(colour, 0.6))
    else:
        van = length > 5.0
        panel(0.14, 0.27 if not van else 0.36, 0.82, GLASS)
        panel(-0.40, -0.30, 0.78, GLASS)
        panel(-0.28, 0.12, 0.96, GLASS)
        panel(-0.29, 0.13, 0.76, lit(colour, 1.12))
    canvas.take(body)
    canvas.annotate("vehicle", (x, y, length * canvas.scale, width * canvas.scale, angle))
    return True


def ship_size(rng: np.random.Generator, longest: float) -> tuple[float, float]:
    """Return (length, beam) in metres, log-uniform in length from 6 m to `longest`."""
    length = float(np.exp(rng.uniform(np.log(6.0), np.log(max(longest, 7.0)))))
    return length, length / rng.uniform(2.6, 3.6 if length < 15 else 6.0)


def hull_outline(length: float, beam: float, bow: float, stern: float) -> Points:
    """Return a hull along x that touches all four sides of its length x beam rectangle."""
    side = curve([(-0.5, 0.5 * stern), (-0.3, 0.5), (0.5 - bow, 0.5), (0.5 - bow * 0.45, 0.34), (0.5, 0.0)], 24)
    side[:, 1] = np.clip(side[:, 1], 0, 0.5)
    side[:, 0] = np.clip(side[:, 0], -0.5, 0.5)
    return np.concatenate([side, side[::-1] * (1, -1)]) * (length, beam)


def ship(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, angle: float, size: tuple[float, float], *, wake: bool
) -> bool:
    """Draw a boat or a ship heading along `angle`; False if there is no room for it."""
    length, beam = size
    if not canvas.room(x, y, length, beam, angle, on_water=True):
        return False
    if wake:
        _wake(canvas, rng, x, y, angle, size)
    outline = canvas.at(hull_outline(length, beam, rng.uniform(0.15, 0.4), rng.uniform(0.6, 0.95)), x, y, angle)
    canvas.shadow(outline, min(length / 12, 6.0))
    colour = tint(rng, PAINT[:4] if length < 18 else (*BOXES, *PAINT[2:5]))
    canvas.paint(outline, lit(colour, 0.8))
    inner = canvas.at(hull_outline(length * 0.94, beam * 0.84, 0.3, 0.85), x, y, angle)
    canvas.paint(inner, tint(rng, PAINT[:3]) if length < 18 else colour, rough=0.05)
    (_boat_deck if length < 18 else _ship_deck)(canvas, rng, x, y, angle, size)
    canvas.take(outline)
    canvas.annotate("ship", (x, y, length * canvas.scale, beam * canvas.scale, angle))
    return True


def _wake(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, angle: float, size: tuple[float, float]
) -> None:
    length, beam = size
    trail = rng.uniform(1.0, 3.0) * length
    behind = points((-0.5 * length, 0), (-1.2 * trail, -0.28 * trail), (-1.2 * trail, 0.28 * trail))
    if not canvas.free(canvas.at(behind, x, y, angle), on_water=True):
        return
    foam: Colour = (0.72, 0.78, 0.78)
    for side in (-1, 1):
        arm = stroke(points((0.45 * length, 0), (-trail, side * trail * 0.28)), (0.1 * beam, 0.35 * beam))
        canvas.paint(canvas.at(arm, x, y, angle), foam, alpha=0.25, rough=0.5)
    path = curve([(-0.45 * length, 0), (-0.5 * trail, rng.normal(0, 0.05) * trail), (-1.2 * trail, 0)], 16)
    canvas.paint(canvas.at(stroke(path, (0.7 * beam, 0.5 * beam, 0.2 * beam)), x, y, angle), foam, alpha=0.4, rough=0.5)


def _boat_deck(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, angle: float, size: tuple[float, float]
) -> None:
    length, beam = size
    cabin = rectangle(
        rng.uniform(-0.1, 0.08) * length, 0, rng.uniform(0.25, 0.45) * length, 0.58 * beam, 0, 0.12 * beam
    )
    canvas.paint(canvas.at(cabin, x, y, angle), tint(rng, PAINT[:3]))
    glass = rectangle(0.14 * length, 0, 0.07 * length, 0.5 * beam)
    canvas.paint(canvas.at(glass, x, y, angle), GLASS)
    if rng.random() < 0.5:  # an open stern with a wooden floor
        floor = rectangle(-0.34 * length, 0, 0.18 * length, 0.6 * beam)
        canvas.paint(canvas.at(floor, x, y, angle), (0.55, 0.42, 0.30))


def _ship_deck(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, angle: float, size: tuple[float, float]
) -> None:
    length, beam = size
    bridge = canvas.at(rectangle(-0.36 * length, 0, 0.1 * length, 0.8 * beam), x, y, angle)
    cargo = rng.random()
    if cargo < 0.5:  # containers in rows
        columns, rows = max(int(0.6 * length / 6.5), 1), max(int(0.8 * beam / 2.7), 1)
        for i in range(columns):
            for j in range(rows):
                if rng.random() < 0.85:
                    at = (-0.26 * length + (i + 0.5) * 6.5, (j - (rows - 1) / 2) * 2.7)
                    box = rectangle(*at, 6.0, 2.4)
                    canvas.paint(canvas.at(box, x, y, angle), tint(rng, BOXES), alpha=0.95)
    else:  # hatches of a bulk carrier, or the pipes of a tanker
        for at in np.linspace(-0.2, 0.3, int(rng.integers(3, 7))):
            hatch = rectangle(at * length, 0, 0.07 * length, 0.6 * beam)
            canvas.paint(canvas.at(hatch, x, y, angle), tint(rng, PAINT[1:4]), alpha=0.8)
        pipe = rectangle(0.03 * length, 0, 0.6 * length, 0.05 * beam)
        canvas.paint(canvas.at(pipe, x, y, angle), (0.7, 0.7, 0.68), alpha=0.9)
    canvas.shadow(bridge, 5.0)
    canvas.paint(bridge, (0.86, 0.86, 0.84))
    canvas.paint(canvas.at(ellipse(-0.42 * length, 0, 0.02 * length, 0.1 * beam), x, y, angle), (0.2, 0.2, 0.22))


def building_size(rng: np.random.Generator) -> tuple[float, float]:
    """Return the (length, width) in metres of a house, a block or a hall."""
    width = float(np.exp(rng.uniform(np.log(7.0), np.log(24.0))))
    return width * rng.uniform(1.05, 2.6), width


def building(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, angle: float, size: tuple[float, float]
) -> bool:
    """Draw a building with a flat, gabled or hipped roof; False if there is no room for it."""
    length, width = size
    if not canvas.room(x, y, length, width, angle):
        return False
    outline = canvas.at(rectangle(0, 0, length, width), x, y, angle)
    flat = rng.random() < (0.75 if width > 14 else 0.3)
    canvas.shadow(outline, rng.uniform(6, 16) if flat else rng.uniform(4, 8))
    colour = tint(rng, ROOFS)
    canvas.paint(outline, colour, rough=0.16)
    if flat:
        _flat_roof(canvas, rng, x, y, angle, size, colour)
    else:
        _pitched_roof(canvas, rng, x, y, angle, size)
    canvas.take(outline)
    canvas.annotate("building", (x, y, length * canvas.scale, width * canvas.scale, angle))
    return True


def _pitched_roof(
    canvas: Canvas, rng: np.random.Generator, x: float, y: float, angle: float, size: tuple[float, float]
) -> None:
    """Shade the slopes by how they face the sun."""
    length, width = size
    hip = width / 2 if rng.random() < 0.5 else 0.0
    a, b, ridge = length / 2, width / 2, length / 2 - hip
    for side in (-1.0, 1.0):
        slope = points((-a, side * b), (a, side * b), (ridge, 0), (-ridge, 0))
        normal = side * (-np.sin(angle) * canvas.sun[0] + np.cos(angle) * canvas.sun[1])
        canvas.shade(canvas.at(slope, x, y, angle), 1 - 0.28 * float(np.clip(normal, -0.6, 1)))
        if hip:
            end = points((side * a, -b), (side * a, b), (side * ridge, 0))
            normal = side * (np.cos(angle) * canvas.sun[0] + np.sin(angle) * canvas.sun[1])
            canvas.shade(canvas.at(end, x, y, angle), 1 - 0.28 * float(np.clip(normal, -0.6, 1)))
    canvas.shade(canvas.at(stroke(points((-ridge, 0), (ridge + 0.01, 0)), 0.35), x, y, angle), 0.8)
    if rng.random() < 0.6:  # chimney
        flue = canvas.at(rectangle(rng.uniform(-0.3, 0.3) * length, 0.15 * width, 0.9, 0.9), x, y, angle)
        canvas.shadow(flue, 1.5)
        canvas.paint(flue, (0.45, 0.32, 0.28))


def _flat_roof(
    canvas: Canvas,
    rng: np.random.Generator,
    x: float,
    y: float,
    angle: float,
    size: tuple[float, float],
    colour: Colour,
) -> None:
    """Add a parapet and roof furniture, some of it of the size and colour of a car."""
    length, width = size
    rim = rectangle(0, 0, length - 0.6, width - 0.6)
    canvas.paint(canvas.at(stroke(np.concatenate([rim, rim[:1]]), 0.6), x, y, angle), lit(colour, 1.2), alpha=0.8)
    for _ in range(int(rng.integers(1, 3 + int(length * width / 60)))):
        long, wide = rng.uniform(0.8, 5.0), rng.uniform(0.8, 2.2)
        u, v = rng.uniform(-0.4, 0.4) * (length - long), rng.uniform(-0.4, 0.4) * (width - wide)
        turned = 0.0 if rng.random() < 0.8 else np.pi / 2
        if long > 0.6 * width:
            continue
        unit = canvas.at(rectangle(u, v, long, wide, turned), x, y, angle)
        canvas.shadow(unit, rng.uniform(0.5, 2.0))
        canvas.paint(unit, tint(rng, PAINT[:5]))
        if rng.random() < 0.4:  # a fan
            canvas.paint(canvas.at(ellipse(u, v, wide * 0.3, wide * 0.3), x, y, angle), (0.2, 0.2, 0.2))
