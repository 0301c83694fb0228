"""The JSON, energy, and the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekd
from edgekd import Profile
from edgekd.errors import UsageError
from edgekd.profiling import charts
from edgekd.profiling.page import advice, render

if TYPE_CHECKING:
    from pathlib import Path


def profile_of(total: list[float] | None = None, **changes: Any) -> Profile:
    total = total or [10.0, 12.0, 11.0, 30.0]
    time_s = [0.0, 1.0, 2.0]
    fields: dict[str, Any] = {
        "name": "<model>",
        "digest": "ab" * 32,
        "session": {"target": "openvino", "precision": "fp32", "compute": "fp32", "device": "cpu", "runtime": "OV 1"},
        "machine": {"processor": "chip & co", "date": "2026-11-20T00:00:00Z", "packages": {"numpy": "2"}},
        "images": "4 golden images",
        "fps": None,
        "load_ms": 100.0,
        "first_ms": 20.0,
        "start_s": [0.5 * index for index in range(len(total))],
        "stages_ms": {"infer": [0.8 * item for item in total], "other": [0.2 * item for item in total], "total": total},
        "conditions": {"time_s": time_s, "power VDD_IN": [4.0, 6.0, 8.0], "energy package-0": [1.0, 2.0, 4.0]},
        "peak_memory_bytes": 100 << 20,
        "problems": [],
    }
    return Profile(**{**fields, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    profile_of().write(tmp_path / "p.json")
    again = Profile.read(tmp_path / "p.json")
    assert again == profile_of()
    assert again.summary["total"].max == 30
    raw = json.loads((tmp_path / "p.json").read_text())
    assert (raw["valid"], raw["summary"]["total"]["p50"]) == (True, 11.5)
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_energy_is_the_area_under_the_power() -> None:
    """4, 6 and 8 watts over two seconds are 12 joules, of 4 calls; the counter says 3 joules."""
    assert profile_of().energy_mj() == pytest.approx({"VDD_IN": 3000, "package-0": 750})


def test_a_counter_that_wrapped_says_nothing() -> None:
    assert profile_of(conditions={"time_s": [0.0, 1.0], "energy package-0": [9.0, 1.0]}).energy_mj() == {}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', "\0"])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UsageError, match=r"p\.json is (no profile|a profile of format 2)"):
        Profile.read(tmp_path / "p.json")
    with pytest.raises(UsageError, match="cannot read"):
        Profile.read(tmp_path / "absent.json")


def test_comparison_says_what_is_not_comparable(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = (profile_of((factor * rng.normal(10, 0.1, 200)).tolist()) for factor in (1.0, 1.2))
    other = profile_of(second.stages_ms["total"], fps=10.0, problems=["it throttled"])
    other.write(tmp_path / "b.json")
    found = edgekd.profile_compare(first, tmp_path / "b.json")
    assert (found.slower, found.faster) == ((50, 90, 99), ())
    assert found.notes == ("rate: None before, 10.0 after", "after is not valid: it throttled")
    assert edgekd.profile_compare(other, first).faster == (50, 90, 99)
    assert edgekd.profile_compare(first, other, tolerance=0.5).slower == ()
    assert json.loads(json.dumps(found.to_dict()))["changes"]["p99"]["low"] > 0.1


class Balanced(HTMLParser):
    """Checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        self.open += [tag] if tag != "meta" else []

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        """`<path/>` is whole."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_says_what_it_should() -> None:
    conditions = {
        "time_s": [0.0, 1.0],
        "temperature cpu": [50.0, 60.0],
        "clock cpu0": [1e3, 1e3],
        "busy process": [0.0, 1.0],
    }
    page = render(profile_of(conditions=conditions, problems=["it throttled <badly>"]))
    parser = Balanced()
    parser.feed(page)
    assert not parser.open
    assert "&lt;model&gt;" in page
    assert "INVALID: it throttled &lt;badly&gt;." in page
    assert page.count("<svg") == 5  # histogram, time line, stages, temperature, clock
    assert "http" not in page.replace("http-equiv", "")
    assert "Valid:" in render(profile_of())
    assert render(profile_of()) == render(profile_of())


def test_advice_follows_the_figures() -> None:
    assert advice(profile_of([10.0] * 100)) == []
    assert advice(profile_of([10.0] * 100, first_ms=50.0)) == ["The first call is slow: call warmup() after load."]
    assert "One call in a hundred" in advice(profile_of([10.0] * 50 + [40.0] * 50))[0]
    slow = {"decode": [4.0], "infer": [6.0], "total": [10.0]}
    assert "Decoding" in advice(profile_of(stages_ms=slow, start_s=[0.0]))[0]
    around = {"letterbox": [6.0], "infer": [4.0], "total": [10.0]}
    assert "around the network" in advice(profile_of(stages_ms=around, start_s=[0.0]))[0]


NUMBERS = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


@given(NUMBERS)
def test_charts_stay_inside_their_frame(values: list[float]) -> None:
    drawn = charts.histogram(values, {"p50": float(np.median(values))}, "ms")
    drawn += charts.time_line(list(range(len(values))), values, "ms", points=True)
    drawn += charts.time_line(list(range(len(values))), values, "ms", points=False)
    assert "nan" not in drawn
    assert "inf" not in drawn
    for x in re.findall(r'(?:c?x)="(-?[\d.]+)"', drawn):
        assert -1 <= float(x) <= charts.WIDTH + 1


def test_a_long_run_keeps_its_peaks() -> None:
    values = [1.0] * 100_000
    values[77_777] = 500.0
    drawn = charts.time_line([float(index) for index in range(100_000)], values, "ms", points=True)
    assert drawn.count("<circle") <= charts.POINTS
    assert f'cy="{charts.TOP:.1f}"' in drawn


def test_bundle_taken_for_a_profile_is_refused_without_the_words_of_a_codec(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x93EDGEKD")
    with pytest.raises(UsageError, match=r"model\.bin is no profile; `edgekd profile model.bin .*: it is no text$"):
        Profile.read(tmp_path / "model.bin")
