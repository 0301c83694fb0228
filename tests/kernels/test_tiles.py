"""Tiles: windows that cover an image, and detections of overlapping windows that become those of the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import geometry, ops
from edgekd.errors import UsageError


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.floats(0, 0.99))
def test_windows_cover_every_pixel_and_end_at_the_border(height, width, size, share) -> None:
    overlap = int(share * size)
    windows = geometry.windows(height, width, size, overlap)
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in windows:
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(np.unique(windows, axis=0)) == len(windows)


def test_windows_of_the_published_grid() -> None:
    """Window 1024, overlap 200 (DOTA): ceil((W - 1024) / 824 + 1) windows a row, the last one moved back."""
    for width, count in ((1024, 1), (1025, 2), (1848, 2), (1849, 3), (4000, 5)):
        windows = geometry.windows(1024, width, 1024, 200)
        assert len(windows) == count
        assert windows[-1, 2] == width


def test_a_size_or_an_overlap_that_makes_no_progress_is_refused() -> None:
    for arguments in ((10, 10, 4, 4), (10, 10, 0, 0), (0, 10, 4, 1), (10, 10, 4, -1)):
        with pytest.raises(UsageError, match="overlap < size"):
            geometry.windows(*arguments)


WINDOWS = np.array([[0, 0, 100, 100], [80, 0, 180, 100]])


def merged(rows, **options) -> list[int]:
    """`rows`: (box, score, tile)."""
    boxes, scores, tiles = (list(column) for column in zip(*rows, strict=True))
    results = [m.merge_tiles(boxes, scores, None, tiles, WINDOWS, **options).tolist() for m in (ops, geometry)]
    assert results[0] == results[1]
    return results[0]


def test_the_whole_beats_its_piece_even_with_the_lower_score() -> None:
    piece, whole = ([60, 20, 100, 40], 0.9, 0), ([82, 20, 140, 40], 0.6, 1)
    assert merged([([82.5, 20, 100, 40], 0.9, 0), whole]) == [1]
    assert merged([piece, whole]) == [0, 1]  # the second covers less than half of the first: two objects


def test_a_small_object_on_a_large_one_stays() -> None:
    ship, boat = ([10, 10, 70, 70], 0.9, 0), ([20, 20, 40, 40], 0.8, 0)
    assert merged([ship, boat]) == [0, 1]
    assert merged([([85, 10, 170, 70], 0.9, 1), ([86, 20, 96, 40], 0.8, 0)]) == [0, 1]  # another tile's, but not cut


def test_the_same_object_of_two_tiles_is_one() -> None:
    assert merged([([84, 20, 96, 40], 0.8, 0), ([84, 20.5, 96, 40], 0.9, 1)]) == [1]


def test_borders_of_the_image_cut_nothing() -> None:
    assert merged([([0, 0, 30, 30], 0.9, 0), ([0, 0, 70, 70], 0.95, 0)]) == [1, 0]
    assert merged([([0, 0, 60, 30], 0.5, 0), ([5, 5, 20, 20], 0.95, 0)]) == [1, 0]


def test_pieces_of_an_object_that_no_tile_holds_whole_stay() -> None:
    assert merged([([10, 20, 100, 40], 0.9, 0), ([80, 20, 175, 40], 0.8, 1)]) == [0, 1]


def test_rotated_boxes_are_merged_by_their_own_overlap() -> None:
    whole = [101, 50, 40, 8, 0.5]
    piece = [91.5, 45.2, 18, 8, 0.5]  # ends at x = 100, the border of tile 0
    assert merged([(piece, 0.9, 0), (whole, 0.6, 1)]) == [1]
    assert merged([([*piece[:4], -0.9], 0.9, 0), (whole, 0.6, 1)]) == [0, 1]


numbers = st.one_of(st.integers(-20, 220).map(float), st.sampled_from([np.nan, np.inf, 3e38, 1e-40]))


@st.composite
def detections(draw):
    n, columns = draw(st.integers(0, 40)), draw(st.sampled_from([4, 5]))
    boxes = np.float32(draw(st.lists(st.tuples(*[numbers] * columns), min_size=n, max_size=n))).reshape(n, columns)
    if draw(st.booleans()) and columns == 5:
        boxes[:, 2:4] = np.minimum(np.abs(boxes[:, 2:4]), 60) + 1
    scores = np.float32(draw(st.lists(st.sampled_from([0.1, 0.5, 0.9, np.nan]), min_size=n, max_size=n)))
    labels = draw(st.lists(st.integers(-1, 1), min_size=n, max_size=n))
    tiles = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return boxes, scores, labels, tiles


@settings(max_examples=250, deadline=None)
@given(detections(), st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 0.7, 1.0]))
def test_any_detections_are_merged_as_by_the_reference(found, iou, iof) -> None:
    windows = geometry.windows(150, 200, 120, 40)
    assert len(windows) == 4
    expected = geometry.merge_tiles(*found, windows, iou=iou, iof=iof)
    try:
        for name in ops.available():
            ops.select(name)
            np.testing.assert_array_equal(ops.merge_tiles(*found, windows, iou=iou, iof=iof), expected)
    finally:
        ops.select("auto")


def test_tiles_of_a_scene_give_the_scene_back() -> None:
    """Objects without overlap, found in every tile that shows more than a little of them, cut at its border."""
    rng = np.random.default_rng(0)
    windows = geometry.windows(900, 1300, 400, 100)
    slots = np.stack(np.meshgrid(np.arange(40, 1280, 75), np.arange(40, 880, 75)), -1).reshape(-1, 2)
    sizes = rng.uniform(16, 66, (len(slots), 2))
    truth = np.concatenate([slots - sizes / 2, slots + sizes / 2], axis=1).astype(np.float32)
    rows = []
    for tile, window in enumerate(windows):
        clipped = np.concatenate([np.maximum(truth[:, :2], window[:2]), np.minimum(truth[:, 2:], window[2:])], axis=1)
        size = np.maximum(clipped[:, 2:] - clipped[:, :2], 0)
        share = size.prod(1) / (truth[:, 2:] - truth[:, :2]).prod(1)
        rows += [(clipped[i], rng.random(), tile, i) for i in np.flatnonzero(share > 0.1)]
    boxes, scores, tiles, owner = (np.array(column) for column in zip(*rows, strict=True))
    keep = ops.merge_tiles(boxes, scores, None, tiles, windows)
    assert sorted(owner[keep]) == list(range(len(truth)))
    np.testing.assert_allclose(boxes[keep][np.argsort(owner[keep])], truth, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((2, 6))}, r"boxes \(N, 4\).*got \(2, 6\)"),
        ({"tiles": [0, 2]}, "rows of windows, 0 to 1, got 0 to 2"),
        ({"tiles": [0]}, r"tiles: expected shape \(2,\), got \(1,\)"),
        ({"windows": np.zeros((2, 3))}, r"windows: expected shape \(T, 4\), got \(2, 3\)"),
        ({"iof": 2.0}, "iof should be between 0 and 1, got 2.0"),
        ({"iou": -1.0}, "iou should be between 0 and 1, got -1.0"),
    ],
)
def test_wrong_arguments_say_what_they_got(change, message) -> None:
    arguments = {"boxes": np.zeros((2, 4)), "scores": np.zeros(2), "labels": None, "tiles": [0, 1], "windows": WINDOWS}
    for function in (ops.merge_tiles, geometry.merge_tiles):
        with pytest.raises(UsageError, match=message):
            function(**{**arguments, **change})
