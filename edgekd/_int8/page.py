"""What int8 did, as one HTML file: gates, layers, shifts, accuracy by class, latencies."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from .._container import write_file
from .._page import document
from ..profiling.charts import histogram
from ..profiling.page import STYLE as CHARTS
from .race import median_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from .._manifest import Manifest

STYLE = """
body { max-width: 56rem } td { white-space: nowrap }
.yes { color: var(--good) } .no { color: var(--mark); font-weight: 600 }
.map { display: flex; height: 2.2rem; gap: 1px; margin: .5rem 0 } .map span { min-width: 2px; background: var(--bar) }
.map span.float { background: var(--mark) }
.bar8 { display: inline-block; height: .7rem; background: var(--bar); border-radius: 2px; vertical-align: -1px }
.bar8.float { background: var(--mark) } td.wide { width: 40%; text-align: left }
.key span { display: inline-block; width: .8em; height: .8em; background: var(--bar); border-radius: 2px }
.key span.float { background: var(--mark) }
"""
LAYERS_SHOWN = 40


def write_page(path: Path, manifest: Manifest, receipts: Sequence[Mapping[str, Any]]) -> None:
    """Write the page about what has been built so far, atomically.

    Raises:
        BundleError: it cannot be written.
    """
    write_file(path, [render(manifest, receipts).encode()])


def render(manifest: Manifest, receipts: Sequence[Mapping[str, Any]]) -> str:
    """Return the page; equal receipts give equal text."""
    lines = [*_head(manifest, receipts)]
    for receipt in receipts:
        lines += _target(manifest, receipt)
    return document(f"{manifest.name} in int8", lines, CHARTS + STYLE)


def _head(manifest: Manifest, receipts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    first = receipts[0]["quantization"]
    calibration, validation = first["calibration"], first["validation"]
    spec = manifest.input
    yield f'<p class="soft">{manifest.task}, {spec.width}x{spec.height} px, {escape(receipts[0]["date"])}</p>'
    yield (
        f"<p>Calibrated on {calibration['images']} of {calibration['of']} images of "
        f"<code>{escape(calibration['name'])}</code> ({_origin(calibration['origin'])}), chosen to show every class, "
        f"size and light; {calibration['near_copies']} near copies were left out. Judged on {validation['images']} "
        f"images of <code>{escape(validation['name'])}</code>. Ranges: {escape(first['ranges']['estimator'])}.</p>"
    )


def _origin(word: str) -> str:
    known = {
        "train": "the training set",
        "val": "the validation set",
        "test": "the test set",
        "other": "no set of the training run",
    }
    return known.get(word, "the bundle does not say what it was trained on")


def _target(manifest: Manifest, receipt: Mapping[str, Any]) -> Iterator[str]:
    said = receipt["quantization"]
    yield f"<h2>{escape(receipt['target'])}</h2>"
    yield from _verdict(receipt)
    yield from _gates(said)
    yield from _layers(said)
    yield "<h3>Shift of scores, int8 less float</h3>"
    if said["shifts"]:
        yield histogram(said["shifts"], {"none": 0.0}, "score", unit="", count="objects")
    yield from _accuracy(manifest, said)
    yield from _latency(said)
    yield from _alternatives(said)
    yield from _steps(said)


def _verdict(receipt: Mapping[str, Any]) -> Iterator[str]:
    said = receipt["quantization"]
    floating = [layer for layer in said["layers"] if not layer["int8"]]
    kept = (
        f"{len(floating)} of {len(said['layers'])} layers stay in floating point" if floating else "every layer is int8"
    )
    state = "Every gate holds" if said["passed"] else "A gate does not hold"
    yield f'<p class="verdict{"" if said["passed"] else " bad"}">{state}; {kept}.</p>'
    if said["emulated"]:
        yield (
            f"<p>{escape(receipt['target'])} cannot run on the machine that built this: ONNX Runtime's int8 kernels "
            "stood in for it. <code>edgekd verify</code> on the device compares.</p>"
        )


def _gates(said: Mapping[str, Any]) -> Iterator[str]:
    yield "<table><thead><tr><th>gate</th><th>measured</th><th>bound</th><th></th></tr></thead>"
    for gate in said["gates"]:
        word = _word(gate)
        sign = "at least" if gate["name"] == "decisions" else "at most"
        value = "nothing to measure" if gate["value"] is None else f"{gate['value']:.3g} {escape(gate['unit'])}"
        cells = f"<td>{value}</td><td>{sign} {gate['bound']:g}</td><td>{word}</td>"
        yield f"<tr><td>{escape(gate['name'])}</td>{cells}</tr>"
    yield "</table>"
    found, limit = said["decisions"], said["thresholds"]
    yield (
        f'<p class="soft">Of the decisions at the bundle\'s thresholds {found["same"]} are the same, '
        f"{found['borderline']} differ by no more than a score shift within its bound explains, {found['different']} "
        f"differ otherwise. int8 decides as often as the float network at {limit['refit']:.4g} instead of "
        f"{limit['shipped']:.4g}.</p>"
    )


def _layers(said: Mapping[str, Any]) -> Iterator[str]:
    layers = said["layers"]
    whole = max(sum(layer["work"] for layer in layers), 1)
    yield '<h3>Layers</h3><p class="key soft"><span></span> int8 <span class="float"></span> floating point; each as'
    yield 'wide as its share of the multiplications, from the image to the outputs</p><div class="map">'
    for layer in layers:
        title = escape(f"{layer['name']}: {100 * layer['work'] / whole:.1f} % of the work")
        kind = "" if layer["int8"] else ' class="float"'
        yield f'<span{kind} style="flex:{max(layer["work"], 1)}" title="{title}"></span>'
    yield "</div>"
    measured = [layer for layer in layers if layer["error"] is not None]
    if not measured:
        yield '<p class="soft">Every gate held with all layers in int8, so none was measured alone.</p>'
        return
    measured.sort(key=lambda layer: -layer["error"])
    most = max(measured[0]["error"], 1e-12)
    yield "<table><thead><tr><th>layer, alone in int8</th><th>error of the outputs</th><th></th></tr></thead>"
    for layer in measured[:LAYERS_SHOWN]:
        kind = "bar8" if layer["int8"] else "bar8 float"
        bar = f'<span class="{kind}" style="width:{100 * layer["error"] / most:.1f}%"></span>'
        yield f"<tr><td>{escape(layer['name'])}</td><td>{layer['error']:.2g}</td><td class='wide'>{bar}</td></tr>"
    yield "</table>"
    if len(measured) > LAYERS_SHOWN:
        yield f'<p class="soft">The {len(measured) - LAYERS_SHOWN} least sensitive layers are left out.</p>'


def _accuracy(manifest: Manifest, said: Mapping[str, Any]) -> Iterator[str]:
    before, after = said["figures"]["float"], said["figures"]["int8"]
    rows = [(name, before[name], after.get(name)) for name in before if isinstance(before[name], (int, float))]
    classes = before.get("per_class")
    if isinstance(classes, dict):
        rows += [(f"AP of {name}", value, after["per_class"].get(name)) for name, value in classes.items()]
    yield "<h3>Accuracy</h3><table><thead><tr><th></th><th>float</th><th>int8</th><th>difference</th></tr></thead>"
    for name, first, second in rows:
        if first is None or second is None:
            continue
        cells = f"<td>{100 * first:.2f} %</td><td>{100 * second:.2f} %</td><td>{100 * (second - first):+.2f}</td>"
        yield f"<tr><td>{escape(str(name))}</td>{cells}</tr>"
    yield "</table>"
    if manifest.task == "anomaly":
        yield '<p class="soft">Of the half of the test images that the search for layers has not seen.</p>'


def _latency(said: Mapping[str, Any]) -> Iterator[str]:
    race = said["race"]
    yield "<h3>Latency</h3>"
    if not race["times_ms"]:
        yield "<p>Not measured: the target cannot run on the machine that built this.</p>"
        return
    ours = median_ms(race["times_ms"]["int8"])
    yield "<table><thead><tr><th>precision</th><th>median</th><th>least</th><th>most</th><th>int8 is</th></tr></thead>"
    for name, samples in race["times_ms"].items():
        figures = f"<td>{median_ms(samples):.2f} ms</td><td>{min(samples):.2f} ms</td><td>{max(samples):.2f} ms</td>"
        ratio = "" if name == "int8" else f"{median_ms(samples) / ours:.2f} times as fast"
        yield f"<tr><td>{escape(name)}</td>{figures}<td>{ratio}</td></tr>"
    yield "</table>"
    yield (
        f'<p class="soft">Bare network, batch 1, {race["threads"]} thread of {race["cores"]} cores, '
        f"{escape(race['processor'])}, all precisions in turn.</p>"
    )


def _alternatives(said: Mapping[str, Any]) -> Iterator[str]:
    others = said.get("alternatives")
    if not others:
        return
    names = [gate["name"] for gate in next(iter(others.values()))["gates"]]
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    yield f"<h3>Instead of int8</h3><table><thead><tr><th>precision</th><th>size</th>{heads}<th></th></tr></thead>"
    for name, other in others.items():
        size = f"<td>{other['size_bytes'] / 2**20:.2f} MiB</td>"
        yield f"<tr><td>{escape(name)}</td>{size}{_cells(other)}<td>{_word(other)}</td></tr>"
    yield "</table>"


def _steps(said: Mapping[str, Any]) -> Iterator[str]:
    if len(said["steps"]) < 2:
        return
    names = [gate["name"] for gate in said["steps"][0]["gates"]]
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    yield "<h3>The search</h3><table><thead><tr><th>in floating point</th>"
    yield f"{heads}<th>latency</th><th></th></tr></thead>"
    for step in said["steps"]:
        time = "" if step["p50_ms"] is None else f"{step['p50_ms']:.2f} ms"
        cells = f"<td>{step['floating']} of {step['of']}</td>{_cells(step)}<td>{time}</td>"
        yield f"<tr>{cells}<td>{_word(step)}</td></tr>"
    yield "</table>"


def _cells(measured: Mapping[str, Any]) -> str:
    """Return a cell for each gate of what was measured."""
    return "".join(
        f"<td>{'–' if gate['value'] is None else format(gate['value'], '.3g')} {escape(gate['unit'])}</td>"
        for gate in measured["gates"]
    )


def _word(measured: Mapping[str, Any]) -> str:
    return '<span class="yes">holds</span>' if measured["passed"] else '<span class="no">fails</span>'
