"""Compiled anomaly regions give the bits of the reference, whatever the map, the size and the shape of the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd import geometry, ops
from edgekd.errors import UsageError

pytestmark = pytest.mark.usefixtures("implementation")

sides = st.integers(1, 40)
tame = st.sampled_from([0.0, -0.0, 0.25, 0.5, 0.75, 1.0])
hostile = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, -1.0])
thresholds = st.sampled_from([0.3, 0.5, 0.0, -0.1, 0.75, np.inf, -np.inf])


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width), np.float32)


def _bits(array: np.ndarray) -> list[int]:
    """Return what must be equal; a NaN is a NaN, whatever its payload."""
    if array.dtype == np.float32:
        array = np.where(np.isnan(array), np.float32(np.nan), array).view(np.uint32)
    return array.tolist()


def _assert_same(raw: np.ndarray, height: int, width: int, **options) -> ops.Regions:
    before = raw.tobytes()
    ours = ops.anomaly_regions(raw, height, width, **options)
    reference = geometry.anomaly_regions(raw, height, width, **options)
    for name in ("map", "mask", "boxes", "areas", "peaks"):
        mine, theirs = getattr(ours, name), getattr(reference, name)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), name
        assert _bits(mine) == _bits(theirs), name
    assert raw.tobytes() == before
    return ours


def _assert_mask(mask: np.ndarray, seed: int = 0) -> ops.Regions:
    """Compare on a map that is above 0.5 exactly where the mask is set."""
    raw = np.where(mask, 1 + np.round(_noise(*mask.shape, seed), 1), 0).astype(np.float32)
    found = _assert_same(raw, *mask.shape, sigma=0, threshold=0.5, max_regions=mask.size)
    np.testing.assert_array_equal(found.mask, mask)
    _assert_same(raw, *mask.shape, sigma=0, threshold=0.5, max_regions=3, min_area=4)
    return found


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(1, 90), st.integers(1, 90), st.sampled_from([0, 0.2, 1.0, 4.0]), thresholds, st.data())
def test_regions_of_any_size_equal_the_reference(h, w, height, width, sigma, threshold, data) -> None:
    raw = _noise(h, w, data.draw(st.integers(0, 99)))
    options = {"min_area": data.draw(st.integers(0, 50)), "max_regions": data.draw(st.integers(1, 20))}
    _assert_same(raw, height, width, sigma=sigma, threshold=threshold, **options)


@settings(max_examples=200, deadline=None)
@given(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.one_of(tame, tame, tame, hostile))
    ),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0, 0.2, 1.0]),
    thresholds,
)
def test_regions_of_a_hostile_map_equal_the_reference(raw, height, width, sigma, threshold) -> None:
    _assert_same(raw, height, width, sigma=sigma, threshold=threshold)


@settings(max_examples=300, deadline=None)
@given(
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=20).flatmap(lambda shape: hnp.arrays(np.bool_, shape)),
    st.integers(0, 9),
)
def test_regions_of_any_mask_equal_the_reference(mask, seed) -> None:
    _assert_mask(mask, seed)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.4, 0.5, 0.7])
def test_regions_of_a_noisy_mask_equal_the_reference(density) -> None:
    _assert_mask(_noise(90, 131) < density)


def _spiral(size: int) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    top, left, bottom, right = 0, 0, size - 1, size - 1
    while top <= bottom and left <= right:
        mask[top, left : right + 1] = mask[top : bottom + 1, right] = True
        mask[bottom, left : right + 1] = mask[top + 2 : bottom + 1, left] = True
        if top + 2 <= bottom:
            mask[top + 2, left : left + 2] = True  # the way in
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return mask


def _comb(height: int, width: int) -> np.ndarray:
    """Return teeth that meet in the last row only: each is a part of its own until then."""
    mask = np.zeros((height, width), np.bool_)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def _late_tree(levels: int) -> np.ndarray:
    """Return U-shapes inside each other, joined in pairs, then pairs of pairs: the deepest chains of joins."""
    width = 2 << levels
    mask = np.zeros((levels + 2, width), np.bool_)
    mask[0, ::2] = True
    for level in range(1, levels + 1):
        step = 2 << level
        mask[level, 0::step] = True
        for x in range(0, width, step):
            mask[level, x : x + step // 2 + 1] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (np.zeros((30, 41), np.bool_), 0),
        (np.ones((30, 41), np.bool_), 1),
        (np.indices((31, 42)).sum(axis=0) % 2 == 0, 1),  # a checkerboard touches at its corners
        (np.indices((31, 43)).max(axis=0) % 2 == 0, 22),  # corners inside each other
        ((np.indices((31, 43)) % 2 == 0).all(axis=0), 16 * 22),  # single pixels: no image has more components
        (np.arange(43)[None].repeat(30, 0) % 2 == 0, 22),  # columns: no image has more runs
        (_comb(20, 65), 1),
        (_comb(20, 65)[::-1], 1),
        (_comb(20, 65)[:, ::-1].T, 1),
        (_late_tree(6), 1),
        (_late_tree(6)[::-1], 1),
        (np.eye(40, dtype=np.bool_), 1),
        (np.eye(40, dtype=np.bool_)[::-1], 1),
        (np.ones((1, 1), np.bool_), 1),
        (np.ones((1, 70), np.bool_), 1),
        (np.arange(70)[None] % 2 == 1, 35),
        (np.arange(70)[:, None] % 2 == 0, 35),
    ],
)
def test_regions_of_an_adversarial_mask_equal_the_reference(mask, count) -> None:
    assert len(_assert_mask(mask)) == count


@pytest.mark.parametrize("size", [1, 2, 5, 6, 31, 64])
def test_regions_of_a_spiral_equal_the_reference(size) -> None:
    assert _assert_mask(_spiral(size)).areas.sum() == _spiral(size).sum()


def test_a_component_joined_late_is_ordered_by_its_first_pixel() -> None:
    # The right arm of the U begins first; the single pixel lies between the first pixels of its two arms.
    mask = np.zeros((4, 9), np.bool_)
    mask[0:3, 6] = mask[1:3, 0] = mask[2, 0:7] = True
    mask[0, 8] = True
    found = _assert_same(mask.astype(np.float32), 4, 9, sigma=0, threshold=0.5)
    assert found.boxes.tolist() == [[0, 0, 7, 3], [8, 0, 9, 1]]
    assert found.areas.tolist() == [10, 1]


def test_the_limit_keeps_the_best_peaks_and_the_mask_all() -> None:
    raw = np.zeros((3, 21), np.float32)
    raw[1, ::2] = [1, 5, 2, 5, 3, 9, 1, 5, 4, 4, 2]
    found = _assert_same(raw, 3, 21, sigma=0, threshold=0.5, max_regions=4)
    assert found.peaks.tolist() == [9, 5, 5, 5]
    assert found.boxes[:, 0].tolist() == [10, 2, 6, 14]  # ties by first pixel
    assert found.mask.sum() == 11


def test_a_small_region_leaves_the_list_and_the_mask() -> None:
    raw = np.zeros((8, 12), np.float32)
    raw[1:3, 1:3] = 2
    raw[5, 6:9] = 9
    for min_area, areas in [(0, [3, 4]), (3, [3, 4]), (4, [4]), (5, []), (2**70, [])]:
        found = _assert_same(raw, 8, 12, sigma=0, threshold=1, min_area=min_area)
        assert found.areas.tolist() == areas
        assert found.mask.sum() == sum(areas)
        assert (found.map == raw).all()


def test_the_threshold_is_strict() -> None:
    raw = np.full((3, 3), 0.3, np.float32)
    assert not _assert_same(raw, 3, 3, sigma=0, threshold=0.3).mask.any()
    below = float(np.nextafter(np.float32(0.3), np.float32(0)))
    assert _assert_same(raw, 3, 3, sigma=0, threshold=below).mask.all()


def test_nan_is_never_above() -> None:
    raw = np.full((5, 5), np.nan, np.float32)
    assert not _assert_same(raw, 20, 20, threshold=-np.inf).mask.any()
    assert not _assert_same(np.full((2, 2), -np.inf, np.float32), 1, 1, threshold=-np.inf).mask.any()


def test_infinity_is_above_only_where_it_blends_with_a_number() -> None:
    raw = np.zeros((7, 7), np.float32)
    raw[3, 3] = np.inf
    found = _assert_same(raw, 28, 28, sigma=0.25, threshold=1e30)  # a square of nine after the blur
    assert found.peaks.tolist() == [np.inf]
    assert np.isnan(found.map[14, 14])  # inf - inf
    assert not found.mask[14, 14]
    assert np.isfinite(found.map[0]).all()


def test_zeros_have_no_sign() -> None:
    raw = np.array([[-0.0, -0.0, -1, -0.0, 0.0, -1, 0.0, -0.0]], np.float32)
    found = _assert_same(raw, 1, 8, sigma=0, threshold=-0.5)
    assert np.signbit(found.peaks).tolist() == [False] * 3
    assert np.signbit(found.map).sum() == 2


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 9), (9, 1), (17, 16), (33, 31)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (8, 8), (7, 100), (100, 15)])
def test_regions_up_and_down_equal_the_reference(h, w, height, width) -> None:
    raw = _noise(h, w)
    found = _assert_same(raw, height, width, threshold=0.5)
    assert found.map.shape == (height, width)
    _assert_same(raw, height, width, sigma=0, threshold=0.5)


def test_regions_of_a_camera_image_equal_the_reference() -> None:
    raw = _noise(256, 256) * 0.2
    rng = np.random.default_rng(1)
    for y, x in rng.integers(10, 240, (20, 2)):
        raw[y : y + 9, x : x + 12] += 1
    found = _assert_same(raw, 1080, 1920, threshold=0.4, min_area=415)
    assert len(found) > 10


def test_regions_of_a_wide_map_equal_the_reference() -> None:
    _assert_same(_noise(3, 5000), 4, 4999, sigma=2, threshold=0.5)
    _assert_same(_noise(3, 5000), 4, 5001, sigma=30, threshold=0.5)


def test_any_strides_and_types_are_read() -> None:
    raw = _noise(30, 40)
    for view in (raw[::2, ::3], raw.T, raw[::-1, ::-1], raw.astype(np.float16), raw.astype(">f8")):
        _assert_same(view, 25, 35, sigma=1, threshold=0.5)


def test_out_is_filled_and_nothing_else() -> None:
    values, masks = np.full((3, 20, 30), np.nan, np.float32), np.ones((3, 20, 30), np.bool_)
    found = ops.anomaly_regions(_noise(8, 9), 20, 30, threshold=0.9, out=(values[1], masks[1]))
    assert found.map.base is values
    assert found.mask.base is masks
    assert np.isfinite(values[1]).all()
    assert not masks[1].any()
    assert np.isnan(values[[0, 2]]).all()
    assert masks[[0, 2]].all()


def test_results_own_their_memory() -> None:
    first = ops.anomaly_regions(_noise(9, 9), 40, 40, sigma=0, threshold=0.8)
    before = [array.copy() for array in (first.map, first.mask, first.boxes, first.areas, first.peaks)]
    ops.anomaly_regions(_noise(9, 9, 7), 40, 40, sigma=0, threshold=0.2)
    after = (first.map, first.mask, first.boxes, first.areas, first.peaks)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(array.base is None for array in after)


SHARED = np.zeros((8, 8), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw": np.zeros((2, 3, 4), np.float32)}, r"\(2, 3, 4\)"),
        ({"raw": np.zeros((0, 4), np.float32)}, r"\(0, 4\)"),
        ({"height": 0}, "got 0x8"),
        ({"width": 2**24 + 1}, "got 8x16777217"),
        ({"height": 2**17, "width": 2**17}, "got 131072x131072"),
        ({"sigma": -1.0}, "got -1"),
        ({"sigma": float("nan")}, "sigma.*got nan"),
        ({"sigma": 4097}, "got 4097"),
        ({"threshold": float("nan")}, "got NaN"),
        ({"min_area": -1}, "got -1 and 100"),
        ({"max_regions": 0}, "got 1 and 0"),
        ({"out": (np.zeros((8, 9), np.float32), np.zeros((8, 8), np.bool_))}, r"\(8, 9\)"),
        ({"out": (np.zeros((8, 8), np.float64), np.zeros((8, 8), np.bool_))}, "float64"),
        ({"out": (np.zeros((8, 8), np.float32), np.zeros((8, 8), np.uint8))}, "uint8"),
        ({"out": (np.zeros((8, 16), np.float32)[:, ::2], np.zeros((8, 8), np.bool_))}, "contiguous"),
        ({"raw": SHARED, "out": (SHARED, np.zeros((8, 8), np.bool_))}, "overlap"),
        ({"raw": SHARED[2:], "out": (SHARED, np.zeros((8, 8), np.bool_))}, "overlap"),
        ({"out": (SHARED, SHARED.reshape(-1).view(np.bool_)[:64].reshape(8, 8))}, "overlap"),
    ],
)
def test_regions_with_a_wrong_argument_say_what_they_got(change, message) -> None:
    arguments = {"raw": np.zeros((4, 4), np.float32), "height": 8, "width": 8, "threshold": 0.5, **change}
    for function in (ops.anomaly_regions, geometry.anomaly_regions):
        with pytest.raises(UsageError, match=message):
            function(**arguments)


def test_out_that_cannot_be_written_is_refused() -> None:
    values, mask = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.bool_)
    mask.setflags(write=False)
    for function in (ops.anomaly_regions, geometry.anomaly_regions):
        with pytest.raises(UsageError, match="writeable"):
            function(np.zeros((4, 4), np.float32), 8, 8, threshold=0.5, out=(values, mask))
