"""The explanation page as one HTML file: no script, nothing from outside, readable in light and dark."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .._page import data_uri, document
from .._plot import class_color
from .explain_draw import heat_map, photograph, scale_colours
from .methods._correlation import SMALLEST_MAP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .explain_view import EntryView, ImageView, LevelView, MapView

MEANING = {
    "teacher attention": "Where the teacher's features are strong: the brighter a cell, the more it weighs.",
    "student attention": "The same of the student, in the same colours: training is to make the two alike.",
    "teacher energy": "Mean magnitude of the teacher's channels; the method weighs all cells alike.",
    "student energy": "The same of the student's features as the method compares them, in the same colours.",
    "foreground": "Weight of the cells that the method counts as objects.",
    "background": "Weight of the cells that it counts as background.",
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page says: `student` is a sentence about the state of the student; `classes` by label."""

    name: str
    student: str
    teacher: str
    size: tuple[int, int]  # height, width of the network's input, pixels
    classes: tuple[str, ...]
    images: tuple[ImageView, ...]


def render(page: Page) -> str:
    """Return the page; equal arguments give equal text."""
    lines = [*_head(page), *(line for view in page.images for line in _image(view, page.classes))]
    return document(f"What is distilled: {page.name}", lines)


def _head(page: Page) -> Iterator[str]:
    yield f"<p>{escape(page.student)} {escape(page.teacher)}</p>"
    count = len(page.images)
    yield (
        f"<p>{count} training image{'s' if count != 1 else ''}, spread over the set, letterboxed to {page.size[1]}×"
        f"{page.size[0]} pixels as in validation, without augmentation.</p>"
    )
    yield f"""<ul>
<li><b>Attention</b> and <b>energy</b> have mean 1 in each image: 3 is three times as much as an average cell. A high
maximum means that few cells decide.</li>
<li><b>On objects</b>: the mean over cells whose centre lies in a box, divided by the mean over all cells. Above 1, the
map favours objects.</li>
<li><b>r</b>: Pearson correlation of the student's aligned map with the teacher's over the cells of an image, averaged
over channels. 1 is the same pattern, 0 none in common. There is none where a map has fewer than {SMALLEST_MAP} cells,
where the teacher's does not vary, and where a method compares no maps of equal channels.</li>
<li>Heat maps show one block a cell; thin lines are the ground-truth boxes. Teacher and student of a level share their
colours.</li>
</ul>"""
    yield from _summary(page.images)


def _summary(images: Sequence[ImageView]) -> Iterator[str]:
    """Yield the table of correlations, a mean over the images."""
    found: dict[tuple[str, int], list[float]] = {}
    for image in images:
        for entry in image.entries:
            for level in entry.levels:
                values = found.setdefault((entry.name, level.level), [])
                values.extend([] if level.correlation is None else [level.correlation])
    yield "<table><thead><tr><th>method</th><th>level</th><th>r, mean over images</th></tr></thead><tbody>"
    for (name, number), values in found.items():
        mean = f"{sum(values) / len(values):.3f}" if values else "none"
        yield f"<tr><td>{escape(name)}</td><td>P{number}</td><td>{mean}</td></tr>"
    yield "</tbody></table>"


def _image(view: ImageView, classes: Sequence[str]) -> Iterator[str]:
    name = escape(view.name)
    yield f"<h2>{name}</h2>"
    objects = ", ".join(
        f'<span class="swatch" style="background:rgb{class_color(label)}"></span> {escape(classes[label])} ×{count}'
        for label, count in sorted(Counter(view.labels).items())
    )
    source = data_uri(photograph(view.pixels, view.boxes, view.labels))
    caption = f"<b>What the student sees</b>, with ground truth: {objects or 'no objects'}"
    alt = f"{name} with {len(view.labels)} ground-truth boxes"
    yield f'<figure class="photo"><img src="{source}" alt="{alt}"><figcaption>{caption}</figcaption></figure>'
    for entry in view.entries:
        yield from _entry(view, entry)


def _entry(view: ImageView, entry: EntryView) -> Iterator[str]:
    yield f'<h3>{escape(entry.name)}</h3>\n<div class="row levels">'
    for level in entry.levels:
        r = "no r" if level.correlation is None else f"r = {level.correlation:.3f}"
        down, across = level.cells
        yield f'<section><h4>P{level.level} <span class="soft">{across}×{down} cells, {r}</span></h4>'
        yield '<div class="row">'
        yield from (_map(view, entry, level, each) for each in level.maps)
        yield "</div></section>"
    yield "</div>"


def _map(view: ImageView, entry: EntryView, level: LevelView, shown: MapView) -> str:
    values, low, high = shown.values, shown.low, shown.high
    if shown.logarithmic:
        values, low, high = np.log(values), math.log(low), math.log(high)
    source = data_uri(heat_map(view.pixels, values, low, high, view.boxes))
    facts = f"Mean {shown.values.mean():.3g}, maximum {shown.values.max():.3g}"
    if shown.on_objects is not None:
        facts += f"; on objects {shown.on_objects:.2f} × the mean"
    alt = escape(f"Heat map: {shown.name} of {entry.name} on P{level.level}, {view.name}. {facts}.")
    colours = " Colours follow the logarithm." if shown.logarithmic else ""
    gradient = f"linear-gradient(90deg,{','.join(scale_colours())})"
    meaning = escape(MEANING.get(shown.name, ""))
    return f"""<figure><img src="{source}" alt="{alt}">
<div class="scale soft"><span>{shown.low:.3g}</span><span style="background:{gradient}"></span>\
<span>{shown.high:.3g}</span></div>
<figcaption><b>{escape(shown.name.capitalize())}</b>. {meaning} {facts}.{colours}</figcaption></figure>"""
