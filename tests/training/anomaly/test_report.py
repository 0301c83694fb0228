"""The report: which images it shows, what it counts, that it is one sound page whatever the figures are."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd._anomaly import Scored
from edgekd._manifest import InputSpec, Manifest, Thresholds
from edgekd.training.anomaly.measure import figures
from edgekd.training.anomaly.report import Report, write_report
from edgekd.training.anomaly.report_draw import CUT, histogram, pictures
from edgekd.training.anomaly.report_page import render
from edgekd.training.data.read import read

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.training.data.sample import Dataset

SPEC = InputSpec(height=64, width=64)
LIMITS = Thresholds(image=1.0, pixel=0.5, low=0.2, alpha=0.1, pixel_alpha=0.01, images=9, sigma=1.0)
SCORES = [0.3, 1.2, 0.5, 1.5, 3.0, 0.9, 2.0, 0.4, 5.0]  # four good, five with a spot
TEACHERS = [
    {"backbone": "resnet18", "pretrained": {"file": "<r18>.npz", "sha256": "ab" * 32}, "calibrated": 0},
    {"backbone": "mobilenetv2", "pretrained": None, "calibrated": 24, "mean_shares": [0.1, 0.2, 0.3]},
]
PROVENANCE = {
    "notes": ["untrained & <random>"],
    "teachers": TEACHERS,
    "network": {"parameters": 1_250_000, "state_sha256": "cd"},
}


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(dataset: Dataset, scores: list[float] = SCORES, **changes: Any) -> Report:
    found = [Scored(score, np.full((64, 64), score / 4, np.float32)) for score in scores]
    metrics = figures(found, dataset, SPEC, LIMITS)
    manifest = Manifest(
        name="a <name> & more", task="anomaly", classes=("defect",), input=SPEC, outputs=(), thresholds=LIMITS,
        provenance=PROVENANCE,
        recipe={"name": "</pre><script>"},
    )  # fmt: skip
    made = Report.of(manifest, dataset, found, metrics, engine="some engine")
    return made if not changes else Report(**{**made.__dict__, **changes})


def read_page(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def test_set(category: Path) -> Dataset:
    return read(category, "auto", "test")


def test_page_counts_what_the_deployed_threshold_does(test_set: Dataset) -> None:
    found = read_page(render(report(test_set)))
    assert "2 of 4 normal images raise a false alarm (at most 10 % are expected" in found.text
    assert "3 of 5 anomalous images are found" in found.text
    assert "Note: untrained & <random>." in found.text
    assert "image AUROC75.0 %" in found.text  # 15 of 20 pairs are in order
    assert "5 anomalous + 4 normal images" in found.text
    assert f"{8 * 64 * 64:,} pixels" in found.text  # one of nine has no mask
    assert "1.25 million parameters" in found.text


def test_page_shows_the_worst_first_and_every_image_beside_its_map(test_set: Dataset) -> None:
    text = read_page(render(report(test_set))).text
    parts = re.split("Worst misses|Found:", text.split("Worst false alarms")[1])
    alarms, misses, examples = (re.findall(r"(good|spot)/(\d+)\.png", part) for part in parts)
    assert alarms == [("good", "003"), ("good", "001")]
    assert misses == [("spot", "003"), ("spot", "001")]
    assert examples == [("spot", "000")]
    assert text.count("No mask") == 1  # that of spot/000


def test_page_is_one_file_without_scripts_and_takes_no_name_for_markup(test_set: Dataset) -> None:
    page = render(report(test_set))
    found = read_page(page)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe", "object"})
    sources = [attributes["src"] or "" for tag, attributes in found.tags if tag == "img"]
    assert len(sources) == 10
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in re.sub('data:[^"]*', "", page).replace("http-equiv", "")
    assert "a <name> & more" in found.text
    assert "<r18>.npz" in found.text
    assert "none: random weights, untrained" in found.text
    assert render(report(test_set)) == page


def test_without_alarms_and_misses_the_nearest_are_shown(test_set: Dataset) -> None:
    text = read_page(render(report(test_set, [0.1, 0.2, 0.3, 0.4, 2, 3, 4, 5, 6]))).text
    assert "No false alarm; the normal images that come nearest" in text
    assert "No miss; the defects that are found most narrowly" in text
    assert text.index("good/003.png") < text.index("good/000.png")
    assert text.index("spot/000.png") < text.index("spot/001.png")
    assert "No mask" in text  # that of spot/000


def test_set_of_normal_images_alone_has_a_page_that_says_why_figures_lack(category: Path) -> None:
    normal = read(category, "auto", "train")
    text = read_page(
        render(report(normal, [0.5] * len(normal), recipe=None, notes=(), provenance={"teachers": 3}))
    ).text
    assert "no anomalous image" in text
    assert "The bundle does not say who its teachers are" in text
    assert "Worst misses" not in text
    assert "nan" not in text.lower()


def test_report_is_written_whole_into_a_new_folder(test_set: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(report(test_set), path)
    assert path.read_text(encoding="utf-8") == render(report(test_set))
    assert list(path.parent.iterdir()) == [path]


def test_kinds_are_the_folders_with_auroc_against_the_normal_images(test_set: Dataset) -> None:
    good, spot = report(test_set).kinds()
    assert (good.name, good.images, good.alarms, good.median) == ("good", 4, 2, pytest.approx(0.85))
    assert math.isnan(good.auroc)
    assert (spot.name, spot.images, spot.alarms, spot.auroc) == ("spot", 5, 3, 0.75)


def test_map_shows_the_truth_where_it_is_and_outlines_what_is_cut_out(test_set: Dataset) -> None:
    case = report(test_set).of_kind(anomalous=True)[0]
    values = np.zeros((64, 64), np.float32)
    values[16:48, 16:48] = 1.0
    shown, heat = (
        cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        for each in pictures(case._replace(map=values), 0.5)
    )
    assert shown.shape[1] == heat.shape[1] == 320
    close = np.abs(heat - np.array(CUT)).sum(-1) < 160
    rows, columns = np.nonzero(close)
    height = heat.shape[0]
    assert columns.min() == pytest.approx(80, abs=4)
    assert columns.max() == pytest.approx(240, abs=4)
    assert rows.min() == pytest.approx(height / 4, abs=4)
    assert rows.max() == pytest.approx(3 * height / 4, abs=4)
    white = (shown > 200).all(-1)  # the truth's outline is the only white there
    assert white.any()


@given(
    st.lists(st.floats(-5, 5, width=32), max_size=9),
    st.lists(st.floats(-5, 5, width=32), max_size=9),
    st.floats(-9, 9, width=32),
)
def test_histogram_has_a_bar_for_every_filled_bin_inside_the_picture(
    normal: list[float], anomalous: list[float], threshold: float
) -> None:
    root = ET.fromstring(histogram(normal, anomalous, threshold))
    bars = root.findall("rect")
    assert bool(bars) == bool(normal or anomalous)
    for bar in bars:
        x, y, width, height = (float(bar.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + width <= 720
        assert y >= 0
        assert y + height <= 181
        assert height > 0
