"""Tables of docs/results.md from the runs' JSON files."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

BEGIN, END = "<!-- distill: written by benchmarks/distill.py table -->", "<!-- /distill -->"
METRICS = ("AP", "AP50", "AP75")


def write_tables(runs: Path, page: Path) -> None:
    """Replace what stands between the two marks of `page` by one table a data set."""
    rows = [json.loads(file.read_text()) for file in sorted(runs.glob("*.json"))]
    tables = "\n\n".join(
        table(name, [row for row in rows if row["data"] == name]) for name in sorted({row["data"] for row in rows})
    )
    text = page.read_text()
    head, rest = text.split(BEGIN, 1)
    page.write_text(f"{head}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END, 1)[1]}")
    print(f"wrote {page}")


def table(name: str, rows: list[dict[str, Any]]) -> str:
    """Return one data set's Markdown table: teacher, baseline, methods; mean ± standard deviation over seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(
        rows,
        key=lambda row: ("teacher", "baseline").index(row["method"]) if row["method"] in ("teacher", "baseline") else 2,
    ):
        groups.setdefault(row["method"], []).append(row)
    lines = [
        f"### {name}: {rows[0]['note']}",
        "",
        "| network | seeds | steps | AP | AP50 | AP75 | gain in AP | training, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    baseline = {row["seed"]: row["metrics"]["AP"] for row in groups.get("baseline", [])}
    for method, members in groups.items():
        cells = [spread([100 * row["metrics"][metric] for row in members]) for metric in METRICS]
        paired = [100 * (row["metrics"]["AP"] - baseline[row["seed"]]) for row in members if row["seed"] in baseline]
        gain = spread(paired, sign=True) if method not in ("teacher", "baseline") else ""
        label = {"teacher": "teacher", "baseline": "student alone"}.get(method, f"student + {method.upper()}")
        seconds = statistics.mean(row["train_s"] for row in members)
        steps = members[0]["recipe"]["train"]["steps"]
        lines.append(f"| {label} | {len(members)} | {steps} | {' | '.join(cells)} | {gain} | {seconds:.0f} |")
    return "\n".join(lines)


def spread(values: list[float], *, sign: bool = False) -> str:
    """Return "mean ± std" to one decimal, or the one value."""
    plus = "+" if sign else ""
    if len(values) == 1:
        return f"{values[0]:{plus}.1f}"
    return f"{statistics.mean(values):{plus}.1f} ± {statistics.stdev(values):.1f}"
