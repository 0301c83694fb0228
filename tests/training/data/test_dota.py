"""DOTA text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.errors import DataError
from edgekd.training.data.dota import read_dota

Write = Callable[[str, str], Path]
LINE = "10 10 30 10 30 20 10 20 plane 0\n"


@pytest.fixture
def store(write: Write, picture: Callable[..., Path]) -> Callable[[str], Path]:
    """Return a function that writes the labels of image a and gives the folder."""
    picture("images/a.png")
    return lambda text: write("labelTxt/a.txt", text).parents[1]


@pytest.mark.parametrize("header", ["", "imagesource:GoogleEarth\ngsd:0.146\n", "gsd:null\n", "imagesource:x\n\n"])
@pytest.mark.parametrize("line", [LINE, LINE.replace(" 0\n", ""), LINE.replace("10 10", "10.0 1e1", 1)])
def test_line_with_or_without_header_and_difficulty_reads(header: str, line: str, store: Callable[[str], Path]) -> None:
    found = read_dota(store(header + line))
    assert found.task == "obb"
    assert found.classes == ("plane",)
    assert found.samples[0].size == (64, 48)
    np.testing.assert_allclose(found.samples[0].boxes, [[20, 15, 20, 10, 0]], atol=1e-6)
    assert found.samples[0].difficult.tolist() == [False]


def test_difficulty_of_one_and_of_a_cut_tile_are_difficult(store: Callable[[str], Path]) -> None:
    found = read_dota(store("".join(LINE.replace(" 0\n", f" {level}\n") for level in (0, 1, 2))))
    assert found.samples[0].difficult.tolist() == [False, True, True]


def test_list_file_gives_its_images(store: Callable[[str], Path], write: Write, picture: Callable[..., Path]) -> None:
    store(LINE)
    picture("images/b.bmp")
    write("labelTxt/b.txt", "")
    found = read_dota(write("val.txt", "b\n"))
    assert [sample.path.name for sample in found.samples] == ["b.bmp"]
    assert found.samples[0].boxes.shape == (0, 5)


def test_order_of_files_does_not_matter(
    store: Callable[[str], Path], write: Write, picture: Callable[..., Path]
) -> None:
    store(LINE)
    picture("images/b.bmp")
    write("labelTxt/b.txt", LINE.replace("plane", "car"))
    ways = [read_dota(write("val.txt", text)) for text in ("a\nb\n", "b\na\n")]
    assert ways[0].classes == ways[1].classes == ("car", "plane")
    assert [s.labels.tolist() for s in ways[0].samples] == [s.labels.tolist() for s in ways[1].samples][::-1]


def test_corners_in_one_point_are_dropped_and_listed(store: Callable[[str], Path]) -> None:
    found = read_dota(store(LINE + "5 5 5 5 5 5 5 5 car 0\n"))
    assert len(found.samples[0].boxes) == 1
    assert "a.txt:2: car" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LINE + "1 2 3 4 plane 0\n", r"a.txt:2: expected x1 y1 .* got 6 words"),
        (LINE.replace("plane", "storage tank"), r"a.txt:1: expected .* got 11 words; a class is one word"),
        ("0 .1 .1 .3 .1 .3 .2 .1 .2\n", r'a.txt:1: the class should be a name, got .2; .*format = "yolo-obb"'),
        ("gsd:1\n" + LINE.replace("30", "3O"), r"a.txt:2: a corner should be a number, got '3O'"),
        (LINE.replace("30", "3_0"), r"a.txt:1: a corner should be a number"),
        (LINE.replace("30", "inf"), r"a.txt:1: a corner should be finite"),
        (LINE.replace(" 0\n", " hard\n"), r"a.txt:1: difficult should be a number, got 'hard'"),
    ],
)
def test_damaged_line_raises_naming_it(text: str, says: str, store: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match=says):
        read_dota(store(text))


def test_other_encoding_raises_naming_the_file(store: Callable[[str], Path]) -> None:
    root = store(LINE)
    (root / "labelTxt" / "a.txt").write_bytes(b"\xff\xfe" + LINE.encode("utf-16-le"))
    with pytest.raises(DataError, match=r"a.txt is not UTF-8"):
        read_dota(root)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from(["1", "-2.5", "9e9", "nan", "plane", "gsd:", "\n", "é"]), max_size=24).map(" ".join)
)
def test_any_words_read_or_raise_data_error(text: str, store: Callable[[str], Path]) -> None:
    with contextlib.suppress(DataError):
        read_dota(store(text))
