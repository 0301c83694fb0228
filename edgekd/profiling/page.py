"""A profile as one HTML file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .._page import document
from .charts import bars, histogram, time_line
from .record import TOTAL
from .sensors import UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .record import Profile

STYLE = """
:root { --bar: #3b7dd8; --mark: #c4432b; --good: #1a7f37 }
@media (prefers-color-scheme: dark) { :root { --bar: #6ea8fe; --mark: #ff8b73; --good: #57d27c } }
body { max-width: 50rem } td { vertical-align: top; font-variant-numeric: tabular-nums }
.layers td:nth-child(-n+3), .layers th:nth-child(-n+3) { text-align: left; overflow-wrap: anywhere }
.layers { font-size: .8rem; width: 100% } .layers td:nth-child(3) { white-space: nowrap }
.machine td + td { text-align: left; overflow-wrap: anywhere }
.verdict { padding: .6rem 1rem; border-left: 4px solid var(--good); background: var(--card) }
.verdict.bad { border-color: var(--mark) }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif }
svg text { fill: var(--ink) } svg text.soft { fill: var(--soft) } svg text.mark { fill: var(--mark) }
.bar, .dot { fill: var(--bar) } .line { fill: none; stroke: var(--bar); stroke-width: 1.5 }
.axis { fill: none; stroke: var(--soft) } .grid { stroke: var(--line); stroke-width: .5 }
path.mark { stroke: var(--mark); stroke-dasharray: 4 3 }
@media print { h2 { break-after: avoid } svg, table { break-inside: avoid; print-color-adjust: exact } }
"""
PARTS = 20  # of a network that have a bar
SHOWN = ("clock", "temperature", "power", "throttle")


def render(profile: Profile) -> str:
    """Return the page; equal profiles give equal text."""
    parts = (_head, _latency, _stages, _layers, _conditions, _machine)
    lines = [line for part in parts for line in part(profile)]
    return document(f"Latency of {profile.name}", lines, STYLE)


def _head(profile: Profile) -> Iterator[str]:
    session = profile.session
    total = profile.summary[TOTAL]
    yield (
        f'<p class="soft">{escape(session["target"])} {escape(session["precision"])}, computes in '
        f"{escape(session['compute'])} on {escape(session['device'])}, {escape(session['runtime'])}; "
        f"{escape(str(profile.machine.get('board') or profile.machine['processor']))}{_where(profile)}; "
        f"{escape(str(profile.machine['date']))}</p>"
    )
    pace = f"{profile.fps:g} calls a second" if profile.fps else "one call after the other"
    yield (
        f"<p>Half of the calls of <code>predict</code> took at most <b>{total.p50:.2f} ms</b>, 99 of 100 at most "
        f"<b>{total.p99:.2f} ms</b>, the slowest {total.max:.2f} ms. {len(profile.start_s)} calls, {pace}, "
        f"{escape(profile.images)}. Loading took {profile.load_ms:.0f} ms, the first call {profile.first_ms:.1f} ms, "
        f"memory at most {profile.peak_memory_bytes / 2**20:.0f} MiB.</p>"
    )
    if profile.valid:
        yield '<p class="verdict">Valid: as far as this machine tells, clocks held, nothing throttled, no load.</p>'
    for problem in profile.problems:
        yield f'<p class="verdict bad">INVALID: {escape(problem)}.</p>'


def _where(profile: Profile) -> str:
    return "" if profile.device == "local" else f" ({escape(profile.device)})"


def _latency(profile: Profile) -> Iterator[str]:
    samples, total = profile.stages_ms[TOTAL], profile.summary[TOTAL]
    yield "<h2>Latency of predict</h2>"
    yield histogram(samples, {"p50": total.p50, "p90": total.p90, "p99": total.p99}, "milliseconds")
    yield time_line(profile.start_s, samples, "ms", points=True)


def _stages(profile: Profile) -> Iterator[str]:
    yield "<h2>Where the time goes</h2>"
    yield bars({name: item.mean for name, item in profile.summary.items()}, "ms")
    yield "<table><thead><tr><th>ms</th>"
    names = ("mean", "p50", "p90", "p99", "max", "mad", "jitter")
    yield "".join(f"<th>{name}</th>" for name in names) + "</tr></thead>"
    for stage, item in profile.summary.items():
        cells = "".join(f"<td>{getattr(item, name):.3f}</td>" for name in names)
        yield f"<tr><td>{escape(stage)}</td>{cells}</tr>"
    yield "</table>"
    yield (
        '<p class="soft">mad: median distance from the median. jitter: mean change from one call to the next. other: '
        "what of a call no stage accounts for.</p>"
    )
    yield from (f"<p>{escape(line)}</p>" for line in advice(profile))


def _layers(profile: Profile) -> Iterator[str]:
    yield "<h2>Time by layer</h2>"
    if not profile.layers:
        yield f"<p>None: {escape(profile.layers_missing)}.</p>"
        return
    parts = profile.modules_ms()
    total = sum(parts.values())
    yield (
        f"<p>Measured apart from the calls above, by the runtime's own clocks, which cost time themselves: "
        f"{total:.3f} ms in {len(profile.layers)} layers. Where a runtime fuses layers, the first of them counts.</p>"
    )
    yield bars(dict(list(parts.items())[:PARTS]), "ms", "Mean time of each part of the network", 250)
    head = "".join(f"<th>{name}</th>" for name in ("layer", "module", "kind", "ms", "%"))
    yield f'<table class="layers"><thead><tr>{head}</tr></thead>'
    for layer in sorted(profile.layers, key=lambda item: -float(item["ms"])):
        cells = "".join(f"<td>{escape(str(layer[key]))}</td>" for key in ("name", "module", "kind"))
        yield f"<tr>{cells}<td>{layer['ms']:.4f}</td><td>{100 * layer['ms'] / total:.1f}</td></tr>"
    yield "</table>"


def advice(profile: Profile) -> list[str]:
    """Return what to change, from the figures alone."""
    mean = {name: item.mean for name, item in profile.summary.items()}
    total, found = profile.summary[TOTAL], []
    around = sum(value for name, value in mean.items() if name not in ("infer", TOTAL))
    if mean.get("decode", 0) > 0.25 * mean[TOTAL]:
        found.append("Decoding images takes more than a quarter: give arrays, as a camera does, or smaller files.")
    elif around > 0.5 * mean[TOTAL]:
        found.append(
            "More than half of a call is spent around the network: smaller pictures make the letterbox cheaper."
        )
    if total.p99 > 1.5 * total.p50:
        found.append(
            "One call in a hundred takes one and a half times as long as usual, or longer: look for other processes "
            "and moving clocks, and give the process cores of its own (taskset)."
        )
    if profile.first_ms > 3 * total.p50:
        found.append("The first call is slow: call warmup() after load.")
    return found


def _conditions(profile: Profile) -> Iterator[str]:
    shown = [name for name in profile.conditions if name.partition(" ")[0] in SHOWN]
    yield "<h2>The machine meanwhile</h2>"
    if not shown:
        yield "<p>This machine shows neither clocks nor temperatures nor power; only other load was looked at.</p>"
    for name in shown:
        kind, _, of = name.partition(" ")
        unit = UNITS[kind] or "count"
        yield f"<h3>{escape(of)}: {kind}</h3>"
        yield time_line(profile.conditions["time_s"], profile.conditions[name], unit, points=False)
    energy = profile.energy_mj()
    if energy:
        listed = ", ".join(f"{escape(rail)} {value:.1f} mJ" for rail, value in energy.items())
        yield f"<p>Energy of one call, idling and everything else on the rail included: {listed}.</p>"


def _machine(profile: Profile) -> Iterator[str]:
    yield '<h2>What ran</h2><table class="machine">'
    rows = {**profile.machine, "bundle": profile.digest}
    for name, value in rows.items():
        text = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
        yield f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>"
    yield "</table>"
