"""The page of `pick`: accuracy over latency, the Pareto front, the budget, every bundle."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from .._page import document
from .charts import Dot, scatter
from .page import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MORE = """
.front { fill: none; stroke: var(--bar); stroke-width: 1.5 } .over { fill: var(--soft) } .chosen { fill: var(--good) }
.picks td:first-child { overflow-wrap: anywhere } tr.chosen td { font-weight: 600 }
"""
FIGURES = ("p50", "p90", "p99", "max")


def render(report: Mapping[str, Any], limit_ms: float, figure: str) -> str:
    """Return the page of a `PickReport.to_dict()`; equal reports give equal text."""
    lines = [*_head(report), *_front(report, limit_ms, figure), *_table(report)]
    return document(f"Which model holds {report['budget']}", lines, STYLE + MORE)


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    where = "" if report["device"] == "local" else f" ({escape(report['device'])})"
    yield (
        f'<p class="soft">Latency of <code>predict</code> measured on {escape(report["machine"])}{where}; '
        f"{escape(report['metric'])} on {escape(report['split'])} (data {escape(report['data_sha256'][:16])}) as the "
        "bundles' receipts say.</p>"
    )
    if report["chosen"] is None:
        yield (
            f'<p class="verdict bad">None holds {escape(report["budget"])}: the fastest, '
            f"<b>{escape(report['closest'])}</b>, is {report['over_ms']:.2f} ms above it.</p>"
        )
    else:
        yield (
            f'<p class="verdict"><b>{escape(report["chosen"])}</b> is the most accurate that holds '
            f"{escape(report['budget'])}.{_doubt(report)}</p>"
        )


def _doubt(report: Mapping[str, Any]) -> str:
    chosen = next(row for row in report["candidates"] if row["path"] == report["chosen"])
    said = " Its run was disturbed: measure again before you believe it." if chosen["problems"] else ""
    if not chosen["surely"]:
        low, high = chosen["interval_ms"]
        said += f" Not surely: the 95 % interval of its figure is {low:.2f} to {high:.2f} ms. Measure more calls."
    return said


def _front(report: Mapping[str, Any], limit_ms: float, figure: str) -> Iterator[str]:
    measured = [row for row in report["candidates"] if row["latency_ms"]]
    dots = [
        Dot(
            row["latency_ms"][figure], 100 * row["accuracy"]["value"], _short(row["path"]),
            "chosen" if row["path"] == report["chosen"] else "bar" if row["holds"] else "over", front=row["front"],
        )
        for row in measured
    ]  # fmt: skip
    yield "<h2>Accuracy over latency</h2>"
    metric = f"{report['metric']}, %"
    yield scatter(dots, limit_ms, f"budget {report['budget']}", f"{figure} of predict, milliseconds", metric)
    yield (
        '<p class="soft">The line is the most accuracy that each latency buys. Left of the dashed line a bundle holds '
        "the budget.</p>"
    )


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    head = "".join(
        f"<th>{escape(name)}</th>" for name in ("bundle", f"{report['metric']}, %", *FIGURES, "MiB", "artifact", "")
    )
    yield f'<h2>Every bundle</h2><table class="picks"><thead><tr>{head}</tr></thead>'
    for row in report["candidates"]:
        times = [f"{row['latency_ms'][name]:.2f}" if row["latency_ms"] else "-" for name in FIGURES]
        sure = "holds" if row["surely"] else "may hold"
        said = "does not run" if not row["latency_ms"] else sure if row["holds"] else "over"
        cells = [escape(row["path"]), f"{100 * row['accuracy']['value']:.1f}", *times]
        ran = row["session"]
        artifact = f"{ran['target']} {ran['precision']}" if ran else "-"
        cells += [f"{row['size_bytes'] / 2**20:.2f}", escape(artifact), said + (", front" if row["front"] else "")]
        kind = ' class="chosen"' if row["path"] == report["chosen"] else ""
        yield f"<tr{kind}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table>"
    for row in report["candidates"]:
        for problem in row["problems"]:
            kind = "INVALID" if row["latency_ms"] else "not measured"
            yield f'<p class="verdict bad">{kind}: {escape(row["path"])}: {escape(problem)}.</p>'


def _short(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".bin") if path.count("/") < 2 else "/".join(path.split("/")[-2:])
