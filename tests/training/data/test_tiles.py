"""Which windows, and which objects in them; no pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import UsageError
from edgekd.training.data.polygon import as_xywhr, xywhr_to_quads
from edgekd.training.data.sample import Sample
from edgekd.training.data.tiles import Grid, TileName, cut, shares

DOTA = Grid(1024, 200, (1.0,), 0.7)


def sample(boxes: list[list[float]] | np.ndarray, columns: int = 5) -> Sample:
    rows = np.array(boxes, np.float32).reshape(-1, columns)
    return Sample(Path("P0001.png"), (1, 1), rows, np.zeros(len(rows), np.int64), np.zeros(len(rows), bool))


def windows(width: int, height: int, grid: Grid = DOTA) -> list[tuple[int, int, int, int]]:
    return [tile.window for tile in cut(sample([]), height, width, grid)]


def test_golden_grid_has_its_last_window_shifted_back() -> None:
    found = windows(2000, 1100)
    assert [window[:2] for window in found] == [(0, 0), (824, 0), (976, 0), (0, 76), (824, 76), (976, 76)]
    assert found[-1] == (976, 76, 2000, 1100)
    assert windows(1024, 1024) == [(0, 0, 1024, 1024)]
    assert windows(700, 300) == [(0, 0, 700, 300)]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 100), st.data())
def test_windows_cover_every_pixel_and_end_at_the_border(
    width: int, height: int, size: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    step, covered = size - overlap, np.zeros((height, width), bool)
    found = windows(width, height, Grid(size, overlap, (1.0,), 0.7))
    for left, top, right, bottom in found:
        assert (right - left, bottom - top) == (min(size, width), min(size, height))  # a full window, or the image
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert found[-1][2:] == (width, height)
    columns = 1 if width <= size else math.ceil((width - size) / step + 1)
    rows = 1 if height <= size else math.ceil((height - size) / step + 1)
    assert len(found) == columns * rows


def test_rates_cut_larger_and_smaller_windows_of_the_same_pixels() -> None:
    found = cut(sample([]), 2048, 2048, Grid(1024, 200, (0.5, 1.0), 0.7))
    assert [str(tile.name) for tile in found[:2]] == ["P0001__2048__0___0", "P0001__1024__0___0"]
    assert [tile.window for tile in found].count((0, 0, 2048, 2048)) == 1
    assert len(found) == 1 + 9


def test_image_below_the_windows_of_two_rates_is_cut_once() -> None:
    assert [str(tile.name) for tile in cut(sample([]), 300, 400, Grid(1024, 200, (1.0, 0.5), 0.7))] == [
        "P0001__1024__0___0"
    ]


def test_name_says_where_the_tile_lies() -> None:
    name = TileName("a__b.1", 1024, 824, 76)
    assert str(name) == "a__b.1__1024__824___76"
    assert TileName.parse(str(name)) == name
    with pytest.raises(UsageError, match="'a__1__2__3' is no tile's name"):
        TileName.parse("a__1__2__3")


def test_object_is_held_from_the_share_that_keep_says_and_cut_below_all_of_it() -> None:
    """Boxes 100 wide whose left 80, 70, 69 px lie in the first window of 1024, and one that ends at its border."""
    boxes = [[1024 + 50 - share, 500, 100, 20, 0] for share in (80, 70, 69, 100)]
    first, second, last = cut(sample(boxes), 1024, 2000, DOTA)
    assert first.objects.tolist() == [0, 1, 3]
    assert first.cut.tolist() == [True, True, False]
    assert second.objects.tolist() == [0, 1, 2, 3]
    assert not second.cut.any()
    np.testing.assert_allclose(second.boxes[0], [1024 + 50 - 80 - 824, 500, 100, 20, 0])
    assert last.objects.tolist() == [2] or last.window[0] == 976


def test_share_is_that_of_the_rectangle_not_of_its_hull() -> None:
    """A square on its point, its centre 10 px inside: the triangle outside is less than its hull's part outside."""
    box = np.array([[90, 50, 40, 40, math.pi / 4]], np.float32)
    reach = math.hypot(20, 20) - 10  # of the corner beyond the border; the triangle there has this height
    share = shares(box, (0, 0, 200, 100), (0, 0, 100, 100))
    assert share[0] == pytest.approx(1 - reach**2 / 1600, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_shares_equal_those_of_polygon_clipping(seed: int, upright: bool) -> None:
    import shapely

    rng = np.random.default_rng(seed)
    image, window = (0, 0, 300, 200), (100, 50, 220, 170)
    if upright:
        corner = rng.uniform(-20, 280, (20, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(1, 90, (20, 2))], axis=1).astype(np.float32)
    else:
        columns = rng.uniform(-20, 320, 20), rng.uniform(-20, 220, 20), *rng.uniform(1, 90, (2, 20))
        boxes = np.stack([*columns, rng.uniform(-1.57, 1.57, 20)], axis=1).astype(np.float32)
    found = shares(boxes, image, window)
    for share, quad in zip(found, xywhr_to_quads(as_xywhr(boxes)), strict=True):
        polygon = shapely.Polygon(quad)
        whole = polygon.intersection(shapely.box(*image)).area
        expected = polygon.intersection(shapely.box(*window)).area / whole if whole else 0.0
        assert share == pytest.approx(expected, abs=1e-7)


def test_object_that_the_image_itself_cuts_counts_as_whole() -> None:
    """40 of its 100 px lie outside the image: no tile shows less of it than the image does."""
    (only,) = cut(sample([[10, 50, 100, 20, 0.0]]), 400, 400, DOTA)
    assert (only.objects.tolist(), only.cut.tolist()) == ([0], [False])


def test_object_outside_the_image_is_on_no_tile() -> None:
    (only,) = cut(sample([[-200, 50, 100, 20, 0.3]]), 400, 400, DOTA)
    assert only.objects.tolist() == []


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([4, 5]))
def test_objects_shorter_than_the_overlap_are_whole_somewhere_and_move_back_exactly(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, (1500, 900), (60, 2))
    if columns == 5:
        boxes = np.concatenate([centre, rng.uniform(2, 60, (60, 2)), rng.uniform(-1.5, 1.5, (60, 1))], axis=1)
    else:
        boxes = np.concatenate([centre - rng.uniform(1, 40, (60, 2)), centre + rng.uniform(1, 40, (60, 2))], axis=1)
    given_ = sample(boxes, columns)
    whole: set[int] = set()
    for tile in cut(given_, 900, 1500, Grid(512, 100, (1.0, 0.5), 0.7)):
        back = tile.boxes.copy()
        back[:, :2] += tile.name.left, tile.name.top
        if columns == 4:
            back[:, 2:] += tile.name.left, tile.name.top
        np.testing.assert_array_equal(back, given_.boxes[tile.objects])  # float64 loses no digit of float32
        whole.update(tile.objects[~tile.cut].tolist())
    assert whole == set(range(60))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((0, 0, (1.0,), 0.7), "expected 0 <= overlap < size"),
        ((100, 100, (1.0,), 0.7), "expected 0 <= overlap < size, got size 100 and overlap 100; for example overlap 20"),
        ((100, 10, (), 0.7), "rates should be positive and differ"),
        ((100, 10, (1.0, 0.0), 0.7), "rates should be positive and differ"),
        ((100, 10, (1.0, 1.0), 0.7), "rates should be positive and differ"),
        ((100, 10, (1.0, 1000.0), 0.7), "expected 0 <= overlap < size"),
        ((100, 10, (1.0,), 0.0), "keep should be above 0"),
        ((100, 10, (1.0,), 1.5), "keep should be above 0"),
    ],
)
def test_impossible_grid_raises(options: tuple, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Grid(*options)
