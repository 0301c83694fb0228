"""How exact is the overlap of rotated boxes? Millions of random and nearly equal pairs against shapely and fractions.

    python benchmarks/rotated_accuracy.py            # 10 million pairs; results/rotated_accuracy.json
    python benchmarks/rotated_accuracy.py --table    # docs/exactness.md

Truth is shapely's (GEOS, float64). Where that differs from ours by more than 1e-5 the pair is clipped in exact
fractions, which decides: GEOS is not always right. OpenCV's intersection is measured on a part of the same pairs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from machine import RESULTS, conditions, write

from edgekd import ops

REGIMES = {  # coordinates up to, sides from, sides to, all in pixels
    "0..1024, sides 4..800": (1024, 4, 800),
    "0..20000, sides 4..800": (20000, 4, 800),
    "0..1, sides 0.004..0.8": (1, 0.004, 0.8),
    "0..1024, sides 1..2000": (1024, 1, 2000),
}
JITTERS = ("random", "near", 0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-2)
DISPUTED = 1e-5
MOST_FRACTIONS = 3000  # a regime
BLOCK = 40_000
PAGE = Path(__file__).resolve().parents[1] / "docs" / "exactness.md"
BEGIN, END = "<!-- accuracy: written by benchmarks/rotated_accuracy.py --table -->", "<!-- /accuracy -->"


def boxes(rng: np.random.Generator, count: int, span: float, low: float, high: float) -> np.ndarray:
    columns = [rng.uniform(0, span, (count, 2)), rng.uniform(low, high, (count, 2))]
    return np.concatenate([*columns, rng.uniform(-np.pi / 2, np.pi / 2, (count, 1))], axis=1).astype(np.float32)


def pairs(rng: np.random.Generator, count: int, regime: str, jitter: float | str) -> tuple[np.ndarray, np.ndarray]:
    """Return two `(count, 5)` sets: independent, close, or the second a copy with each number a little off."""
    a = boxes(rng, count, *REGIMES[regime])
    if jitter == "random":
        return a, boxes(rng, count, *REGIMES[regime])
    if jitter == "near":
        b = boxes(rng, count, *REGIMES[regime])
        b[:, :2] = a[:, :2] + rng.normal(0, 1, (count, 2)) * np.minimum(a[:, 2:4], b[:, 2:4])
        return a, b
    return a, (a * (1 + float(jitter) * rng.uniform(-1, 1, a.shape))).astype(np.float32)


def corners(a: np.ndarray) -> np.ndarray:
    """Return `(N, 4, 2)` float64."""
    x, y, w, h, angle = a.astype(np.float64).T
    c, s = np.cos(angle), np.sin(angle)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.stack(
        [np.stack([x + i * c * w / 2 - j * s * h / 2, y + i * s * w / 2 + j * c * h / 2], -1) for i, j in signs], 1
    )


def from_intersection(a: np.ndarray, b: np.ndarray, inter: np.ndarray) -> np.ndarray:
    areas = a[:, 2].astype(np.float64) * a[:, 3] + b[:, 2].astype(np.float64) * b[:, 3]
    return inter / (areas - inter)


def by_shapely(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    inter = shapely.area(shapely.intersection(shapely.polygons(corners(a)), shapely.polygons(corners(b))))
    return from_intersection(a, b, inter)


def by_fractions(a: np.ndarray, b: np.ndarray) -> float:
    """Return the IoU of one pair: Sutherland-Hodgman on the float64 corners, every number an exact fraction."""
    first, second = ([tuple(map(Fraction, point)) for point in corners(box[None])[0]] for box in (a, b))
    polygon = second
    for (x0, y0), (x1, y1) in itertools.pairwise([*first, first[0]]):
        sides = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in polygon]
        kept: list[Any] = []
        for i, (point, side) in enumerate(zip(polygon, sides, strict=True)):
            before, side_before = polygon[i - 1], sides[i - 1]
            if (side >= 0) != (side_before >= 0):
                t = side_before / (side_before - side)
                kept.append(tuple(p + t * (q - p) for p, q in zip(before, point, strict=True)))
            if side >= 0:
                kept.append(point)
        polygon = kept
        if not polygon:
            return 0.0
    inter = area(polygon)
    return float(inter / (area(first) + area(second) - inter))


def area(polygon: list[Any]) -> Fraction:
    ring = itertools.pairwise([*polygon, polygon[0]])
    return abs(sum((x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in ring), Fraction(0))) / 2


def by_opencv(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    inter = np.zeros(len(a))
    for i, (one, two) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        rectangles = [((x, y), (w, h), math.degrees(r)) for x, y, w, h, r in (one, two)]
        try:
            found, points = cv2.rotatedRectangleIntersection(*rectangles)
        except cv2.error:
            inter[i] = math.nan
            continue
        if found and points is not None and len(points) > 2:
            inter[i] = cv2.contourArea(cv2.convexHull(points))
    return from_intersection(a, b, inter)


def measure(regime: str, jitter: float | str, count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    worst, wide, outside, disputed, geos_wrong, geos_worst = 0.0, 0.0, 0, 0, 0, 0.0
    for begin in range(0, count, BLOCK):
        a, b = pairs(rng, min(BLOCK, count - begin), regime, jitter)
        ours, ours64 = diagonal(a, b, np.float32), diagonal(a, b, np.float64)
        truth = by_shapely(a, b)
        outside += int(((ours < 0) | (ours > 1)).sum())
        for i in np.flatnonzero(np.maximum(np.abs(ours - truth), np.abs(ours64 - truth)) > DISPUTED):
            if disputed < MOST_FRACTIONS:
                disputed += 1
                exact = by_fractions(a[i], b[i])
                geos_wrong += abs(truth[i] - exact) > DISPUTED
                geos_worst = max(geos_worst, abs(truth[i] - exact))
                truth[i] = exact
        worst = max(worst, float(np.abs(ours - truth).max()))
        wide = max(wide, float(np.abs(ours64 - truth).max()))
    part = min(count, 3000)
    a, b = pairs(np.random.default_rng(seed), part, regime, jitter)
    truth64, opencv = diagonal(a, b, np.float64), by_opencv(a, b)
    errors = np.abs(opencv - truth64)
    return {
        "regime": regime, "jitter": jitter, "pairs": count, "max_error_float32": worst, "max_error_float64": wide,
        "outside_0_1": outside, "decided_by_fractions": disputed, "shapely_wrong": int(geos_wrong),
        "shapely_max_error": geos_worst, "opencv_pairs": part, "opencv_failed": int(np.isnan(errors).sum()),
        "opencv_max_error": float(np.nanmax(errors)), "opencv_wrong_by_0.01": int((errors > 0.01).sum()),
    }  # fmt: skip


def diagonal(a: np.ndarray, b: np.ndarray, dtype: type) -> np.ndarray:
    """Return the overlap of each pair; small tables, of which only the diagonal is wanted."""
    side = 8
    tables = (ops.iou_rotated(a[i : i + side], b[i : i + side], dtype=dtype) for i in range(0, len(a), side))
    return np.concatenate([np.diagonal(table) for table in tables]).astype(np.float64)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the Markdown table of docs/exactness.md."""
    columns = ("coordinates, sides in px", "second box", "pairs", "edgekd float32, max error", "float64")
    columns = (*columns, "shapely wrong, of disputed", "OpenCV, max error²")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        kind = row["jitter"] if isinstance(row["jitter"], str) else f"jitter {row['jitter']:g}"
        wrong = f"{row['shapely_wrong']} of {row['decided_by_fractions']}" if row["decided_by_fractions"] else ""
        lines.append(
            f"| {row['regime']} | {kind} | {row['pairs']} | {row['max_error_float32']:.1e} | "
            f"{row['max_error_float64']:.0e} | {wrong} | {row['opencv_max_error']:.1e} |"
        )
    outside = sum(row["outside_0_1"] for row in rows)
    pairs_in_all, part = sum(row["pairs"] for row in rows), rows[0]["opencv_pairs"]
    lines.append(f"\n{pairs_in_all} pairs; {outside} overlaps outside [0, 1]. ² Of {part} of the pairs.")
    return "\n".join(lines)


def write_table() -> None:
    """Put the table of the last result between the marks of the page."""
    rows = json.loads((RESULTS / "rotated_accuracy.json").read_text())["rows"]
    head, rest = PAGE.read_text().split(BEGIN, 1)
    PAGE.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{rest.split(END, 1)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_240_000)
    parser.add_argument("--table", action="store_true", help="only write docs/exactness.md from the last result")
    args = parser.parse_args()
    if args.table:
        write_table()
        return
    cases = list(itertools.product(REGIMES, JITTERS))
    rows, start = [], time.perf_counter()
    for seed, (regime, jitter) in enumerate(cases):
        rows.append(measure(regime, jitter, args.pairs // len(cases), seed))
        row = rows[-1]
        print(
            f"{regime}, {jitter}: {row['max_error_float32']:.1e}, float64 {row['max_error_float64']:.1e}; "
            f"shapely wrong {row['shapely_wrong']} by {row['shapely_max_error']:.1e}; "
            f"OpenCV {row['opencv_max_error']:.1e}, {time.perf_counter() - start:.0f} s",
            file=sys.stderr,
        )
    result = {"implementation": ops.implementation(), "rows": rows, **conditions("opencv-python-headless", "shapely")}
    write("rotated_accuracy", result)


if __name__ == "__main__":
    main()
