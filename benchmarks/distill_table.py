"""Tables of docs/results.md from the runs' JSON files."""

from __future__ import annotations

import json
import math
import statistics
from typing import TYPE_CHECKING, Any

from distill_settings import ABLATIONS
from tables import between, spread

if TYPE_CHECKING:
    from pathlib import Path

UPRIGHT = ("AP", "AP50", "AP small")
ORIENTED = ("AP", "AP50", "AP50 (VOC07)")
FIRST = ("teacher", "regress", "baseline", "longer")
LABELS = {
    "xfkd_features": "+ XFKD, features ten times the masks",
    "xfkd_none": "+ XFKD, teacher not mixed in",
    "xfkd_linear": "+ XFKD, teacher mixed in less and less",
    "teacher": "teacher",
    "regress": "student alone, angle regressed",
    "baseline": "student alone",
    "longer": "student alone, twice the steps",
    "nsd_pos": "+ NSD, positives too",
    "fad-lsfi": "+ FAD, LSFI alone",
    "fad-pcc": "+ FAD, correlation (PCC) alone",
    "fad-ssim": "+ FAD, structure (SSIM) alone",
    "fad-mdc": "+ FAD, MDC alone (PCC and SSIM)",
    "fad-lsfi_spatial": "+ FAD, LSFI alone, over positions",
    "fad-lsfi_channel": "+ FAD, LSFI alone, over channels",
    "fad-one_scale": "+ FAD, energy at one scale",
    "xfkd-sum": "+ XFKD, student and teacher added",
    "xfkd-none": "+ XFKD, teacher not mixed in",
    "crosskd": "+ CrossKD",
}
Row = dict[str, Any]


def write_tables(results: Path, page: Path) -> None:
    """Replace what stands between the marks of `page` by the tables of the evidence and of the ablations."""
    rows = [json.loads(file.read_text()) for file in sorted((results / "distill").glob("*.json"))]
    parts = {"distill": [row for row in rows if "-" not in row["method"]]}
    parts["tuning"] = [json.loads(file.read_text()) for file in sorted((results / "tuning").glob("*-tune-*.json"))]
    order = [*FIRST, *ABLATIONS]
    members = [row for row in rows if row["method"] in order]
    parts["ablation"] = sorted(members, key=lambda row: order.index(row["method"]))
    text = page.read_text()
    for name, members in parts.items():
        body = tuning(members) if name == "tuning" else tables(members, ablation=name == "ablation")
        text = between(text, name, "distill.py", body)
    page.write_text(text)
    print(f"wrote {page}")


def tables(rows: list[Row], *, ablation: bool) -> str:
    """Return one table for each pair and data set that has more than a teacher and a baseline to compare."""
    cells: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        cells.setdefault((row["size"], row.get("pair", "tiny"), row["data"]), []).append(row)
    wanted = [
        key for key, members in sorted(cells.items()) if not ablation or any("-" in row["method"] for row in members)
    ]
    return "\n\n".join(table(key, cells[key]) for key in wanted)


def table(key: tuple[str, str, str], rows: list[Row]) -> str:
    """Return one Markdown table: teacher, baseline, methods; mean ± standard deviation over seeds."""
    size, pair, data = key
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: FIRST.index(row["method"]) if row["method"] in FIRST else len(FIRST)):
        groups.setdefault(row["method"], []).append(row)
    baseline = {row["seed"]: row["metrics"]["AP"] for row in groups.get("baseline", [])}
    oriented = "voc07" in rows[0]["metrics"]
    recall = common_recall(rows) if oriented else None
    titles = ["network", "seeds", "steps", *(ORIENTED if oriented else UPRIGHT)]
    titles += [f"false positives per background tile at recall {recall}"] if recall else []
    titles += ["gain in AP", "in standard errors"]
    lines = [
        f"### {pair}, {data} (size {size}): {rows[0]['note']}",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
    ]
    for method, members in groups.items():
        found = [figures(row["metrics"], oriented=oriented) for row in members]
        values = [[100 * value for value in column if value is not None] for column in zip(*found, strict=True)]
        paired = [100 * (row["metrics"]["AP"] - baseline[row["seed"]]) for row in members if row["seed"] in baseline]
        gain = paired if method not in FIRST else []
        cells = [str(len(members)), str(members[0]["recipe"]["train"]["steps"]), *map(spread, values)]
        if recall:
            points = [row["metrics"]["at_recall"]["points"][recall] for row in members]
            cells.append(spread([point["background_false_positives"] for point in points], digits=2))
        cells += [spread(gain, sign=True), in_errors(gain)]
        lines.append(f"| {LABELS.get(method, '+ ' + method.upper())} | {' | '.join(cells)} |")
    return "\n".join(lines)


def figures(metrics: Row, *, oriented: bool) -> list[float | None]:
    """Return the columns of a run, in [0, 1]."""
    last = metrics["voc07"]["AP50"] if oriented else metrics["AP_small"]
    return [metrics["AP"], metrics["AP50"], last]


def common_recall(rows: list[Row]) -> str | None:
    """Return the highest recall that every run of a cell reaches."""
    reached = set.intersection(*(set(row["metrics"]["at_recall"]["points"]) for row in rows))
    return max(reached, key=float, default=None)


def tuning(rows: list[Row]) -> str:
    """Return AP on validation by method and factor of its weight, a table for each pair and data set."""
    sets: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for row in rows:
        name, factor = row["method"].removeprefix("tune-").rsplit("-x", 1)
        found = sets.setdefault((row["pair"], row["data"]), {})
        found.setdefault(name, {})[float(factor)] = 100 * row["metrics"]["AP"]
    lines = []
    for (pair, data), methods in sorted(sets.items()):
        factors = sorted({factor for found in methods.values() for factor in found})
        steps = next(r["recipe"]["train"]["steps"] for r in rows if (r["pair"], r["data"]) == (pair, data))
        lines += [
            f"| {pair}, {data}, {steps} steps: AP on validation at | {' | '.join(f'{f:g}×' for f in factors)} |",
            "|---" * (len(factors) + 1) + "|",
        ]
        for name, found in methods.items():
            cells = " | ".join(f"{found[f]:.1f}" if f in found else "" for f in factors)
            lines.append(f"| {LABELS.get(name, name.upper())} | {cells} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def in_errors(gains: list[float]) -> str:
    """Return the mean gain over its standard error, where there are at least three seeds."""
    if len(gains) < 3 or not statistics.stdev(gains):
        return ""
    return f"{statistics.mean(gains) / (statistics.stdev(gains) / math.sqrt(len(gains))):+.1f}"
