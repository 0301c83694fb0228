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
VALID = 5.0  # AP that a teacher has to be above the student alone
T95 = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # seeds -> |t| that chance exceeds once in twenty, both sides
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
    check_alike(rows)
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
    return "\n".join([*lines, *margin(groups)])


def margin(groups: dict[str, list[Row]]) -> list[str]:
    """Return a line on how far the teacher is above the student alone, at its best budget: what a comparison needs."""
    alone = [
        statistics.mean(r["metrics"]["AP"] for r in groups[each]) for each in ("baseline", "longer") if each in groups
    ]
    if "teacher" not in groups or not alone:
        return []
    above = 100 * (groups["teacher"][0]["metrics"]["AP"] - max(alone))
    with_longer = ", with twice the steps" if "longer" in groups else "; with more steps it was not tried"
    verdict = "" if above >= VALID else f": less than {VALID:g}, so this table says little"
    return ["", f"The teacher is {above:.1f} AP above the student alone{with_longer}{verdict}."]


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


def check_alike(rows: list[Row]) -> None:
    """Refuse rows that only look as if they belonged together: seeds of a method, or students of another teacher."""
    for method in {row["method"] for row in rows}:
        made = {json.dumps(trained(row)) for row in rows if row["method"] == method}
        if len(made) > 1:
            raise SystemExit(f"{rows[0]['pair']}, {rows[0]['data']}: {method} was trained in unlike ways: {made}")
    teachers = {row["recipe"]["teacher"]["sha256"] for row in rows if row["recipe"].get("teacher")}
    if len(teachers) > 1:
        raise SystemExit(f"{rows[0]['pair']}, {rows[0]['data']}: students of several teachers: {teachers}")


def trained(row: Row) -> list[Any]:
    """Return what the seeds of a method have to have in common."""
    train = row["recipe"]["train"]
    return [row["recipe"]["distill"], *(train[key] for key in ("steps", "lr", "batch", "amp"))]


def in_errors(gains: list[float]) -> str:
    """Return the mean gain over its standard error, where there are three seeds; marked where chance is below 5 %."""
    if len(gains) < 3 or not statistics.stdev(gains):
        return ""
    found = statistics.mean(gains) / (statistics.stdev(gains) / math.sqrt(len(gains)))
    return f"{found:+.1f}{' *' if abs(found) > T95[min(len(gains), max(T95))] else ''}"
