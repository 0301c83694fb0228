"""Tables of docs/results.md from the JSON files of benchmarks/anomaly.py, and published figures beside them."""

from __future__ import annotations

import json
import math
import statistics
from typing import TYPE_CHECKING, Any

from tables import between, spread

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = "A"
FIGURES = {
    "image_AUROC": "image AUROC",
    "image_F1_max": "image F1-max",
    "pixel_AUROC": "pixel AUROC",
    "pixel_AP": "pixel AP",
    "AUPRO": "AUPRO",
    "aupro_rd4ad": "AUPRO of RD4AD's code",
    "found": "found",
    "false_alarms": "false alarms",
}
ORDER = (
    "patchcore", "A", "B", "add", "iaff", "both", "mirror", "rd++", "stfpm", "local", "textures", "random", "quality",
)  # fmt: skip
Row = dict[str, Any]

PUBLISHED = """| published, at full size | MVTec AD image AUROC | pixel AUROC | transistor image / pixel |
|---|---|---|---|
| two teachers (Pei et al., abstract) | 99.43 | 97.87 | |
| RD4AD, WideResNet-50 | 98.5 | 97.8 | 96.2 / 92.3 (a rerun) |
| RD in anomalib | 98.5 | 96.9 | 97.0 / 89.3 |
| RD++ | 99.44 | 98.25 | 98.8 / – (a rerun) |
| PatchCore, WideResNet-50, 10 % | 99.2 | 98.1 | 99.9 / 96.3 (a rerun) |
| STFPM, ResNet-18, in anomalib | 89.3 | 95.1 | |

In %. Means over the 15 categories, from the papers and repositories; several are of the epoch that did best on the test
images. Other networks, thousands of steps: they say where the field is, not what these budgets should reach."""


def write_tables(results: Path, page: Path) -> None:
    """Replace what stands between the marks of `page`."""
    rows = [json.loads(file.read_text()) for file in sorted(results.glob("*.json"))]
    parts = [table(data, [row for row in rows if row["data"] == data]) for data in sorted({r["data"] for r in rows})]
    body = "\n\n".join([*(parts or ["No run has been made yet."]), PUBLISHED])
    page.write_text(between(page.read_text(), "anomaly", "anomaly.py", body))
    print(f"wrote {page}")


def table(data: str, rows: list[Row]) -> str:
    """Return one Markdown table: methods in order, mean ± standard deviation over seeds, in %."""
    reference = {row["seed"]: row["metrics"]["image_AUROC"] for row in rows if row["method"] == REFERENCE}
    titles = ["method", "seeds", *FIGURES.values(), f"image AUROC over {REFERENCE}", "bundle, MB"]
    lines = [f"### {data}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for method in ORDER:
        members = [row for row in rows if row["method"] == method]
        if not members:
            continue
        # A figure that came later is missing in older rows.
        columns = [[100 * row["metrics"].get(figure, math.nan) for row in members] for figure in FIGURES]
        gains = [
            100 * (row["metrics"]["image_AUROC"] - reference[row["seed"]])
            for row in members
            if row["seed"] in reference and method != REFERENCE
        ]
        sizes = [row["bundle_bytes"] / 1e6 for row in members if "bundle_bytes" in row]
        cells = [str(len(members)), *map(spread, columns), spread(gains, sign=True)]
        cells += [f"{statistics.mean(sizes):.1f}" if sizes else ""]
        lines.append(f"| {members[0]['note']} | {' | '.join(cells)} |")
    return "\n".join(lines)
