"""The report as one HTML file: no script, nothing from outside, readable in light, in dark and on paper."""

from __future__ import annotations

import json
import math
from html import escape
from typing import TYPE_CHECKING, Any

from ..._page import data_uri, document
from ..._thresholds import calibrated
from ..explain_draw import scale_colours
from .pyramid import STRIDES
from .report import SHOWN
from .report_draw import ANOMALOUS, NORMAL, histogram, pictures

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .report import Case, Report

STYLE = """
.histogram { width: 100%; max-width: 50rem; height: auto } .histogram text { fill: currentColor; font-size: 12px }
.note { border-left: 4px solid #d9772b; padding: .2rem .8rem; background: var(--card) }
figure { width: 22.4rem; max-width: 100%; break-inside: avoid } .pair { display: flex; gap: .4rem }
.pair img { flex: 1; min-width: 0; object-fit: contain } pre { font-size: .8rem; white-space: pre-wrap }
th:first-child, td:first-child { text-align: left } td.text { text-align: left }
td:nth-child(2) { white-space: nowrap } table { margin: .5rem 0 1rem }
@media print { body { max-width: none; padding: 0; font-size: 11px }
  figure { width: 15.5rem; print-color-adjust: exact }
  h2 { margin-top: 1.2rem; break-after: avoid } .histogram, .scale span { print-color-adjust: exact }
  table { break-inside: avoid } }
"""

BY_HAND = "set by hand"
FIGURES = {
    "image_AUROC": (
        "images",
        "share of pairs of an anomalous and a normal image in which the anomalous one scores more",
    ),
    "image_AP": ("images", "average precision"),
    "image_F1_max": ("images", "at the threshold that suits the test set best: an oracle, not the deployed one"),
    "pixel_AUROC": ("pixels", "as above, of pixels at the size of the network's input"),
    "pixel_AP": ("pixels", "average precision"),
    "pixel_F1_max": ("pixels", "at the oracle's threshold"),
    "AUPRO": ("pixels", "overlap with each defect, all defects alike, up to a false-positive rate of 30 %"),
    "aupro_rd4ad": ("pixels", "what RD4AD's code calls AUPRO, image by image: to compare with its figures only"),
}


def render(report: Report) -> str:
    """Return the page; equal arguments give equal text.

    Raises:
        DataError: an image or mask cannot be decoded.
    """
    lines = [*_head(report), *_figures(report), *_kinds(report), *_galleries(report), *_origin(report)]
    return document(f"Anomaly report: {report.name}", lines, STYLE)


def _head(report: Report) -> Iterator[str]:
    normal, anomalous = report.of_kind(anomalous=False), report.of_kind(anomalous=True)
    yield (
        f"<p>{len(report.cases)} test images of <b>{escape(report.data)}</b>, {len(anomalous)} of them anomalous, "
        f"scored by {escape(report.engine)}.</p>"
    )
    yield from (f'<p class="note"><b>Note:</b> {escape(note)}.</p>' for note in report.notes)
    limits = report.thresholds
    alarms, found = (sum(case.alarm for case in cases) for cases in (normal, anomalous))
    promised = "nothing is promised: the threshold was set by hand"
    if limits.alpha is not None:
        share = f"{100 * limits.alpha:g} %"
        promised = f"at most {share} are expected of images like the {limits.images} that set the threshold"
    said = []
    if normal:
        said.append(f"<b>{alarms} of {len(normal)}</b> normal images raise a false alarm ({promised})")
    if anomalous:
        said.append(f"<b>{found} of {len(anomalous)}</b> anomalous images are found")
    yield f"<p>At the deployed threshold, {' and '.join(said)}.</p>"
    yield "<h2>Scores</h2>"
    yield histogram([case.score for case in normal], [case.score for case in anomalous], limits.image)
    yield (
        f'<p class="soft"><span class="swatch" style="background:{NORMAL}"></span> normal '
        f'<span class="swatch" style="background:{ANOMALOUS}"></span> anomalous. A score is the peak of an image\'s '
        f"blurred map: 1 − cosine between teacher and student, {_joined(report)} over three scales. It has no unit.</p>"
    )


def _joined(report: Report) -> str:
    """Return how the scales of a map come together; a recipe from elsewhere may be anything."""
    model = (report.recipe or {}).get("model")
    return "multiplied" if isinstance(model, dict) and model.get("method") == "stfpm" else "summed"


def _figures(report: Report) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    anomalous = len(report.of_kind(anomalous=True))
    masked = (case for case in report.cases if not case.sample.anomalous or case.sample.mask is not None)
    pixels = sum(case.map.size for case in masked)
    images = f"{anomalous} anomalous + {len(report.cases) - anomalous} normal images"
    counts = {"images": images, "pixels": f"{pixels:,} pixels"}
    rows = []
    for name, (unit, meaning) in FIGURES.items():
        value = report.metrics[name]
        shown = report.metrics["undefined"].get(name, "not defined") if math.isnan(value) else f"{100 * value:.1f} %"
        rows.append((name.replace("_", " "), shown, counts[unit], meaning))
    yield _table(("figure", "value", "n", ""), rows, text=3)


def _kinds(report: Report) -> Iterator[str]:
    yield "<h2>By kind</h2>"
    rows = [
        (
            kind.name,
            str(kind.images),
            f"{kind.alarms} ({100 * kind.alarms / kind.images:.0f} %)",
            _percent(kind.auroc),
            f"{kind.median:.4g}",
        )
        for kind in report.kinds()
    ]
    yield _table(("folder", "images", "above the threshold", "AUROC against normal images", "median score"), rows)


def _galleries(report: Report) -> Iterator[str]:
    normal, anomalous = report.of_kind(anomalous=False), report.of_kind(anomalous=True)
    alarms = [case for case in normal if case.alarm]
    misses = [case for case in reversed(anomalous) if not case.alarm]
    yield from _legend(report)
    if normal:
        yield f"<h2>{'Worst false alarms' if alarms else 'No false alarm; the normal images that come nearest'}</h2>"
        yield from _gallery(report, alarms or normal, len(alarms))
    if anomalous:
        yield f"<h2>{'Worst misses' if misses else 'No miss; the defects that are found most narrowly'}</h2>"
        yield from _gallery(report, misses or list(reversed(anomalous)), len(misses))
    examples = report.examples()
    if examples:
        yield "<h2>Found: of each kind the image of median score</h2>"
        yield '<div class="row">'
        yield from (_figure(report, case) for case in examples)
        yield "</div>"


def _gallery(report: Report, cases: Sequence[Case], count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f'<p class="soft">{SHOWN} of {count}.</p>'
    yield '<div class="row">'
    yield from (_figure(report, case) for case in cases[:SHOWN])
    yield "</div>"


def _legend(report: Report) -> Iterator[str]:
    gradient = f"linear-gradient(90deg,{','.join(scale_colours())})"
    limit = report.thresholds.pixel
    yield "<h2>Images</h2>"
    yield (
        "<p>Left the image, right its map. White: the defect as it was annotated. Pink: what the pixel threshold "
        f"({limit:.4g}, the middle of the colours) cuts out.</p>"
    )
    yield (
        f'<div class="scale soft" style="max-width:24rem"><span>0</span><span style="background:{gradient}"></span>'
        f"<span>{2 * limit:.3g} and more</span></div>"
    )


def _figure(report: Report, case: Case) -> str:
    image, heat = (data_uri(picture, "jpeg") for picture in pictures(case, report.thresholds.pixel))
    name = escape(case.name)
    said = "above" if case.alarm else "not above"
    lost = " No mask." if case.sample.anomalous and case.sample.mask is None else ""
    shown = f'<img src="{image}" alt="{name}"><img src="{heat}" alt="Anomaly map of {name}">'
    return (
        f'<figure><div class="pair">{shown}</div><figcaption><b>{name}</b>. Score {case.score:.4g}, {said} '
        f"{report.thresholds.image:.4g}; calibrated {calibrated(case.score, report.thresholds):.2f}.{lost}</figcaption>"
        "</figure>"
    )


def _origin(report: Report) -> Iterator[str]:
    limits = report.thresholds
    yield "<h2>Thresholds</h2>"
    alarms = BY_HAND if limits.alpha is None else f"false alarms: at most {100 * limits.alpha:g} % expected"
    lying = (
        BY_HAND if limits.pixel_alpha is None else f"{100 * limits.pixel_alpha:g} % of the normal pixels lie above it"
    )
    rows = [
        ("image threshold", f"{limits.image:.6g}", alarms),
        ("pixel threshold", f"{limits.pixel:.6g}", lying),
        ("shown as 0", f"{limits.low:.6g}", "score that a calibrated score shows as 0; the threshold is 0.5"),
        ("normal images", str(limits.images), "that decided; none was trained on, none is a test image"),
        ("blur", f"{limits.sigma:g} px", "of the map, before it is cut"),
    ]
    yield _table(("", "value", ""), rows, text=2)
    yield "<h2>Where it comes from</h2>"
    yield from _teachers(report.provenance.get("teachers"))
    network = report.provenance.get("network")
    if isinstance(network, dict) and isinstance(network.get("parameters"), int):
        state = escape(str(network.get("state_sha256")))
        yield f"<p>{network['parameters'] / 1e6:.2f} million parameters; SHA-256 of the state {state}.</p>"
    if report.recipe is not None:
        text = escape(json.dumps(report.recipe, indent=1))
        yield f"<details><summary>The recipe</summary><pre>{text}</pre></details>"


def _teachers(teachers: Any) -> Iterator[str]:
    """Yield the table of teachers; a bundle from elsewhere may say nothing, or something else."""
    listed = [each for each in teachers if isinstance(each, dict)] if isinstance(teachers, list) else []
    if not listed:
        yield "<p>The bundle does not say who its teachers are.</p>"
        return
    rows = []
    for each in listed:
        held, fitted, shares = each.get("pretrained"), each.get("calibrated"), each.get("mean_shares")
        known = isinstance(held, dict)
        weights = held if isinstance(held, dict) else {}
        rows.append(
            (
                str(each.get("backbone")),
                str(weights.get("file")) if known else "none: random weights, untrained",
                str(weights.get("sha256"))[:16] if known else "",
                f"fitted to {fitted} images" if fitted else "as in its file" if known else "not fitted",
                ", ".join(str(share) for share in shares) if isinstance(shares, list) else "",
            )
        )
    strides = ", ".join(str(stride) for stride in STRIDES)
    titles = ("teacher", "weights", "SHA-256 begins", "BatchNorm", f"energy of the mean at strides {strides}")
    yield _table(titles, rows, text=4)


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f} %"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], text: int | None = None) -> str:
    """Return a table; column `text` is set as text, others but the first as numbers."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="text soft">{escape(cell)}</td>' if place == text else f"<td>{escape(cell)}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
