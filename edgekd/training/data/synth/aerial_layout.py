"""Where things stand in an aerial scene: parked rows, traffic, streets of houses, moorings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .aerial_ground import ASPHALT, MARKING, containers, court, offset, pontoon, road, rock, tree
from .aerial_objects import building, building_size, lit, ship, ship_size, vehicle, vehicle_size
from .outline import Points, curve, points, rectangle, stroke, turn

if TYPE_CHECKING:
    from .aerial_canvas import Canvas


def crossing_path(canvas: Canvas, rng: np.random.Generator, heading: float, bend: float) -> Points:
    """Return a path in pixels across the whole image, roughly along `heading`."""
    middle = rng.uniform(0.2, 0.8, 2) * (canvas.width, canvas.height)
    reach = 0.8 * float(np.hypot(canvas.width, canvas.height))
    along = np.linspace(-reach, reach, 5)
    side = rng.normal(0, bend * reach, 5)
    return middle + curve(np.stack([along, side], 1) @ turn(heading).T, 60)


def streets(canvas: Canvas, rng: np.random.Generator, heading: float) -> None:
    """Draw one to three roads that cross, then the traffic on them."""
    plans = []
    for k in range(int(rng.integers(1, 4))):
        lanes = int(rng.choice([1, 2, 2, 2, 4]))
        plans.append((crossing_path(canvas, rng, heading + k * np.pi / 2, rng.uniform(0, 0.06)), lanes))
    for path, lanes in plans:
        road(canvas, rng, path, lanes)
    for path, lanes in plans:
        _traffic(canvas, rng, path, lanes)


def _traffic(canvas: Canvas, rng: np.random.Generator, path: Points, lanes: int) -> None:
    """Drive on the right (or the left) in every lane, jammed or sparse."""
    steps = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    gap, right = float(np.exp(rng.uniform(np.log(3.0), np.log(60.0)))), 1.0 if rng.random() < 0.5 else -1.0
    for lane in range(lanes):
        side = (lane - (lanes - 1) / 2) * 3.3
        track = offset(path, side * canvas.scale)
        at = rng.uniform(0, 30) * canvas.scale
        while at < steps[-1]:
            size = vehicle_size(rng)
            at += size[0] / 2 * canvas.scale
            x, y = (float(np.interp(at, steps, track[:, k])) for k in (0, 1))
            ahead = [float(np.interp(at + 3, steps, track[:, k])) for k in (0, 1)]
            heading = float(np.arctan2(ahead[1] - y, ahead[0] - x)) + (np.pi if side * right < 0 else 0.0)
            vehicle(canvas, rng, x, y, heading + rng.normal(0, 0.02), size, on_road=True)
            at += (size[0] / 2 + rng.exponential(gap) + 1.0) * canvas.scale


def parking(canvas: Canvas, rng: np.random.Generator, heading: float) -> None:
    """Lay out a lot with dense rows of parked vehicles, some slots empty."""
    rows, slots = int(rng.integers(1, 6)), int(rng.integers(5, 22))
    pitch, deep = rng.uniform(2.4, 2.8), rng.uniform(5.0, 5.6)
    centres = [row * deep + (row + 1) // 2 * 6.0 for row in range(rows)]
    high, wide = centres[-1] + deep + 5, slots * pitch + 5
    x, y = canvas.spot(rng)
    angle = heading + float(rng.choice([0.0, np.pi / 2]))
    lot = canvas.at(rectangle(0, 0, wide, high), x, y, angle)
    if not canvas.free(lot):
        return
    canvas.paint(lot, lit(ASPHALT, rng.uniform(0.8, 1.3)), rough=0.12)
    slant, full = float(rng.choice([0.0, 0.0, rng.uniform(-0.5, 0.5)])), rng.uniform(0.3, 0.97)
    line = max(0.12, 0.6 / canvas.scale)
    for centre in centres:
        v = centre - centres[-1] / 2
        for slot in range(slots + 1):
            u = (slot - slots / 2) * pitch
            lean = np.tan(slant) * deep / 2
            mark = stroke(points((u - lean, v - deep / 2), (u + lean, v + deep / 2)), line)
            canvas.paint(canvas.at(mark, x, y, angle), MARKING, alpha=0.75)
            if slot < slots and rng.random() < full:
                _park(canvas, rng, (u + pitch / 2, v), (x, y, angle), slant)
    canvas.take(lot)


def _park(
    canvas: Canvas, rng: np.random.Generator, slot: tuple[float, float], lot: tuple[float, float, float], slant: float
) -> None:
    x, y, angle = lot
    at = np.asarray(slot) + rng.normal(0, 0.12, 2)
    px, py = at @ turn(angle).T * canvas.scale + (x, y)
    size = (rng.uniform(3.7, 5.0), rng.uniform(1.68, 1.95))
    heading = angle + np.pi / 2 - slant + rng.normal(0, 0.03) + (np.pi if rng.random() < 0.5 else 0.0)
    vehicle(canvas, rng, float(px), float(py), heading, size)


def houses(canvas: Canvas, rng: np.random.Generator, heading: float, count: int) -> None:
    """Build up to `count` buildings, most along the streets' heading."""
    for _ in range(count):
        x, y = canvas.spot(rng)
        angle = heading + float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.03)
        if rng.random() < 0.2:
            angle = rng.uniform(0, np.pi)
        building(canvas, rng, x, y, angle, building_size(rng))


def moorings(canvas: Canvas, rng: np.random.Generator) -> None:
    """Build a jetty in the water with boats moored on both sides, close together."""
    if not canvas.water.any():
        return
    rows, columns = np.nonzero(canvas.water[::8, ::8])
    k = int(rng.integers(len(rows)))
    x, y, angle = float(columns[k] * 8), float(rows[k] * 8), rng.uniform(0, 2 * np.pi)
    longest, beam = rng.uniform(7, 16), rng.uniform(2.6, 4.4)
    reach = int(rng.integers(4, 14)) * (beam + 0.8)
    deck = canvas.at(rectangle(0, 0, reach, 2.0), x, y, angle)
    if not canvas.free(deck, on_water=True):
        return
    canvas.shadow(deck, 1.0)
    canvas.paint(deck, (0.58, 0.52, 0.44), rough=0.15)
    canvas.take(deck)
    for side in (-1.0, 1.0):
        for u in np.arange(-reach / 2 + beam / 2, reach / 2, beam + 0.8):
            if rng.random() < 0.8:
                size = (longest * rng.uniform(0.6, 1.0), beam * rng.uniform(0.75, 0.9))
                v = side * (size[0] / 2 + 2.2)
                px, py = np.array([u, v]) @ turn(angle).T * canvas.scale + (x, y)
                bow = angle + side * np.pi / 2 + (np.pi if rng.random() < 0.3 else 0.0) + rng.normal(0, 0.03)
                ship(canvas, rng, float(px), float(py), bow, size, wake=False)


def shipping(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    """Put up to `count` ships on the water, some under way."""
    longest = 0.55 * min(canvas.height, canvas.width) / canvas.scale
    for _ in range(count):
        x, y = canvas.spot(rng)
        ship(canvas, rng, x, y, rng.uniform(0, 2 * np.pi), ship_size(rng, longest), wake=rng.random() < 0.4)


def strays(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    """Leave up to `count` vehicles anywhere, at any angle."""
    for _ in range(count):
        x, y = canvas.spot(rng)
        vehicle(canvas, rng, x, y, rng.uniform(0, 2 * np.pi), vehicle_size(rng))


def lookalikes(canvas: Canvas, rng: np.random.Generator) -> None:
    """Scatter what only looks like an object, and trees."""
    for _ in range(int(rng.integers(0, 4))):
        containers(canvas, rng)
    for _ in range(int(rng.integers(0, 4))):
        court(canvas, rng)
    for _ in range(int(rng.integers(2, 16))):
        rock(canvas, rng, on_water=False)
    if canvas.water.any():
        for _ in range(int(rng.integers(4, 24))):
            rock(canvas, rng, on_water=True)
        for _ in range(int(rng.integers(0, 5))):
            pontoon(canvas, rng)
    for _ in range(int(rng.integers(5, 70))):
        tree(canvas, rng)
