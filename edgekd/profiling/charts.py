"""Charts as inline SVG: plain shapes and text, coloured by the page's style sheet. Equal data give equal text."""

from __future__ import annotations

import itertools
import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Series = NDArray[np.float64]

WIDTH, HEIGHT = 720, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 40  # margins for the axes
BINS = 48
POINTS = 1500  # most that a time line draws; of more, the largest of each span


def histogram(
    samples: Sequence[float], marks: Mapping[str, float], label: str, *, unit: str = "ms", count: str = "calls"
) -> str:
    """Return how often which value came, from the least to the greatest, with named values marked.

    Args:
        samples: at least one.
        marks: name -> value to point at.
        label: of the horizontal axis.
        unit: of the marks.
        count: what is counted.
    """
    values = np.asarray(samples, np.float64)
    low, high = _span(float(values.min()), float(values.max()))
    counts, edges = np.histogram(values, BINS, (low, high))
    peak = int(counts.max())
    bars = []
    for number, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if number:
            x, y = _x(start, low, high), _y(number, 0, peak)
            width, height = _x(end, low, high) - x - 0.5, HEIGHT - BOTTOM - y
            bars.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
    lines = []
    for row, (name, value) in enumerate(marks.items()):
        x = _x(value, low, high)
        side = "end" if x > WIDTH * 0.75 else "start"
        lines.append(f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        offset = -4 if side == "end" else 4
        text = escape(f"{name} {value:.2f} {unit}".rstrip())
        lines.append(
            f'<text class="mark" x="{x + offset:.1f}" y="{TOP + 12 + 13 * row}" text-anchor="{side}">{text}</text>'
        )
    return _figure([*_axes(low, high, 0, peak, label, count), *bars, *lines], f"Histogram of {label}")


def time_line(time_s: Sequence[float], values: Sequence[float], label: str, *, points: bool) -> str:
    """Return values over seconds, as points or as a line."""
    times, heights = _thinned(np.asarray(time_s, np.float64), np.asarray(values, np.float64))
    low, high = _span(0.0 if points else float(heights.min()), float(heights.max()))
    first, last = _span(float(times.min()), float(times.max()))
    places = [
        (_x(at, first, last), _y(value, low, high)) for at, value in zip(times.tolist(), heights.tolist(), strict=True)
    ]
    if points:
        drawn = [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="1.5"/>' for x, y in places]
    else:
        drawn = [f'<path class="line" d="M{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>']
    return _figure([*_axes(first, last, low, high, "seconds", label), *drawn], f"{label} over time")


def bars(parts: Mapping[str, float], unit: str, title: str = "Mean time of each stage", names: int = 110) -> str:
    """Return one line a part, as long as its value; `names`: room for what they are called."""
    most = max(*parts.values(), 0.0, 1e-9)
    room = WIDTH - names - 130
    rows = []
    for row, (name, value) in enumerate(parts.items()):
        y, x = 6 + 26 * row, names + 10
        rows.append(f'<text x="{names}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        rows.append(f'<rect class="bar" x="{x}" y="{y}" width="{max(1.0, room * value / most):.1f}" height="18"/>')
        end = x + 8 + room * max(value, 0) / most
        rows.append(f'<text x="{end:.1f}" y="{y + 14}">{value:.3f} {escape(unit)}</text>')
    return _figure(rows, title, 26 * len(parts) + 10)


class Dot(NamedTuple):
    """A named point of a scatter; `style`: class of the style sheet; `front`: whether the line goes through it."""

    x: float
    y: float
    name: str
    style: str
    front: bool = False


def scatter(dots: Sequence[Dot], limit: float, limit_name: str, below: str, beside: str) -> str:
    """Return at least one named point, steps through those of the front, and a limit of x."""
    x0, x1 = _span(0.0, 1.08 * max(limit, *(dot.x for dot in dots)))
    low, high = _span(min(dot.y for dot in dots), max(dot.y for dot in dots))
    y0, y1 = low - 0.12 * (high - low), high + 0.22 * (high - low)  # above: room for the name of the limit
    height = 340
    shapes = _axes(x0, x1, y0, y1, below, beside, height)
    at, side = _x(limit, x0, x1), "end" if limit > 0.6 * x1 else "start"
    shapes.append(f'<path class="mark" d="M{at:.1f} {TOP}V{height - BOTTOM}"/>')
    offset = -5 if side == "end" else 5
    text = escape(limit_name)
    shapes.append(f'<text class="mark" x="{at + offset:.1f}" y="{TOP + 12}" text-anchor="{side}">{text}</text>')
    places = {dot: (_x(dot.x, x0, x1), _y(dot.y, y0, y1, height)) for dot in dots}
    front = [places[dot] for dot in sorted(dots) if dot.front]
    if front:  # in steps: between two models there is none
        (x, y), *rest = front
        steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in rest)
        shapes.append(f'<path class="front" d="M{x:.1f},{y:.1f}{steps}H{WIDTH - RIGHT}"/>')
    for dot, (x, y) in places.items():
        shapes.append(f'<circle class="{dot.style}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        side, offset = ("end", -9) if x > 0.75 * WIDTH else ("start", 9)
        shapes.append(f'<text x="{x + offset:.1f}" y="{y - 7:.1f}" text-anchor="{side}">{escape(dot.name)}</text>')
    return _figure(shapes, f"{beside} over {below}", height)


def _axes(x0: float, x1: float, y0: float, y1: float, below: str, beside: str, height: int = HEIGHT) -> list[str]:
    found = [f'<path class="axis" d="M{LEFT} {TOP}V{height - BOTTOM}H{WIDTH - RIGHT}"/>']
    for value in _ticks(x0, x1):
        x = _x(value, x0, x1)
        found.append(f'<path class="grid" d="M{x:.1f} {TOP}V{height - BOTTOM}"/>')
        found.append(f'<text x="{x:.1f}" y="{height - BOTTOM + 15}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(y0, y1):
        y = _y(value, y0, y1, height)
        found.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        found.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    found.append(f'<text class="soft" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(below)}</text>')
    up = (TOP + height - BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {up})"'
    found.append(f'<text class="soft" x="14" y="{up}" text-anchor="middle" {turned}>{escape(beside)}</text>')
    return found


def _figure(shapes: Sequence[str], title: str, height: int = HEIGHT) -> str:
    inner = "\n".join(shapes)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>\n{inner}\n</svg>"
    )


def _x(value: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)


def _y(value: float, low: float, high: float, height: int = HEIGHT) -> float:
    return height - BOTTOM - (height - TOP - BOTTOM) * (value - low) / max(high - low, 1e-12)


def _span(low: float, high: float) -> tuple[float, float]:
    """Return borders that are apart."""
    return (low, high) if high - low > 1e-9 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers between two values."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _thinned(times: Series, values: Series) -> tuple[Series, Series]:
    """Return at most POINTS of each, the largest value of each span: what is slow stays visible."""
    if len(values) <= POINTS:
        return times, values
    edges = np.linspace(0, len(values), POINTS + 1).astype(int)
    rows = [start + int(values[start:end].argmax()) for start, end in itertools.pairwise(edges)]
    return times[rows], values[rows]
