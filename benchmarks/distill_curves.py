"""Validation AP while teachers and students learn: is the teacher strong enough, and the student near its plateau?

python benchmarks/distill_curves.py     # docs/pictures/distill-curves.png from results/distill/*.json
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from distill_settings import ROOT
from machine import RESULTS

mpl.use("Agg")
COLUMNS = 3
COLOURS = {
    "teacher": "black", "longer": "tab:gray", "baseline": "tab:blue", "xfkd": "tab:red", "xfkd-none": "tab:pink",
    "xfkd_none": "tab:pink", "fad": "tab:orange",
    "nsd": "tab:purple", "nsd_pos": "tab:green",
}  # fmt: skip
NAMES = {
    "longer": "student alone, twice the steps", "baseline": "student alone", "xfkd": "XFKD", "fad": "FAD",
    "xfkd-none": "XFKD, teacher not mixed in", "xfkd_none": "XFKD, teacher not mixed in",
    "nsd": "NSD", "nsd_pos": "NSD, positives too",
}  # fmt: skip


def main() -> None:
    rows = [json.loads(file.read_text()) for file in sorted((RESULTS / "distill").glob("*.json"))]
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["method"] in COLOURS and "pair" in row:
            cells.setdefault((row["pair"], row["data"]), []).append(row)
    rows_of_cells = -(-len(cells) // COLUMNS)
    size = (5 * COLUMNS, 3.6 * rows_of_cells)
    figure, axes = plt.subplots(rows_of_cells, COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for axis, cell in itertools.zip_longest(axes.flat, sorted(cells.items())):
        if cell is None:
            axis.axis("off")
            continue
        draw(axis, cell[1])
        axis.set_title(", ".join(cell[0]))
    for axis in axes[:, 0]:
        axis.set_ylabel("AP on validation, %")
    path = ROOT / "docs" / "pictures" / "distill-curves.png"
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def draw(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Draw one cell: a thin line a seed."""
    said: set[str] = set()
    for row in sorted(rows, key=lambda row: list(COLOURS).index(row["method"])):
        method = row["method"]
        curve = row["validation_curve"]
        label = None if method in said else NAMES.get(method, method)
        said.add(method)
        steps, values = [point["step"] for point in curve], [100 * point["AP"] for point in curve]
        axis.plot(steps, values, color=COLOURS[method], lw=1.2, marker=".", label=label)
    axis.set_xlabel("optimiser steps")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


if __name__ == "__main__":
    main()
