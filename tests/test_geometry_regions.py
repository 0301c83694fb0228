"""The reference of anomaly regions against independent oracles: SciPy, torch, float64, and a flood fill."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd import geometry

sides = st.integers(1, 40)
masks = hnp.array_shapes(min_dims=2, max_dims=2, max_side=14).flatmap(lambda shape: hnp.arrays(np.bool_, shape))


def _noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width), np.float32)


@pytest.mark.parametrize(("sigma", "count"), [(4.0, 17), (1.0, 5), (0.125, 2), (0.124, 1), (0.0, 1)])
def test_gaussian_is_a_gaussian_of_sum_one(sigma, count) -> None:
    weights = geometry.gaussian(sigma)
    assert (weights.shape, weights.dtype) == ((count,), np.float32)
    assert abs(weights[0] + 2 * weights[1:].sum(dtype=np.float64) - 1) < 1e-7
    k = np.arange(count)
    np.testing.assert_allclose(weights / weights[0], np.exp(-0.5 * (k / max(sigma, 1e-9)) ** 2), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([0.0, 0.5, 1.0, 2.3, 4.0, 9.0]), st.integers(0, 99))
def test_blur_up_to_the_border_is_that_of_scipy(h, w, sigma, seed) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    raw = _noise(h, w, seed)
    # SciPy's "mirror" is torch's and NumPy's "reflect".
    expected = ndimage.gaussian_filter(raw, sigma, mode="mirror", truncate=4) if sigma else raw
    np.testing.assert_allclose(geometry.blur(raw, geometry.gaussian(sigma)), expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([0.5, 1.0, 4.0]), st.integers(0, 99))
def test_blur_reflects_as_numpy_pads(h, w, sigma, seed) -> None:
    raw, weights = _noise(h, w, seed), geometry.gaussian(sigma).astype(np.float64)
    radius = len(weights) - 1
    line = np.concatenate([weights[:0:-1], weights])
    padded = np.pad(raw.astype(np.float64), radius, mode="reflect")
    down = sum(line[i] * padded[i : i + h] for i in range(2 * radius + 1))
    expected = sum(line[i] * down[:, i : i + w] for i in range(2 * radius + 1))
    np.testing.assert_allclose(geometry.blur(raw, geometry.gaussian(sigma)), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5), (64, 48)])
def test_blur_of_a_constant_map_is_constant(size) -> None:
    blurred = geometry.blur(np.full(size, 0.7, np.float32), geometry.gaussian(4.0))
    np.testing.assert_allclose(blurred, 0.7, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 99))
def test_resize_map_is_that_of_torch_within_the_weights(h, w, height, width, seed) -> None:
    torch = pytest.importorskip("torch")
    raw = _noise(h, w, seed)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(raw)[None, None], (height, width), mode="bilinear", align_corners=False
    )
    # Values in 0..1, and each weight is at most 1/4096 from the exact one, along both axes.
    np.testing.assert_allclose(geometry.resize_map(raw, height, width), expected[0, 0].numpy(), atol=2 / 4096 + 1e-5)


@settings(max_examples=60, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 99))
def test_resize_map_never_leaves_the_range(h, w, height, width, seed) -> None:
    raw = _noise(h, w, seed)
    resized = geometry.resize_map(raw, height, width)
    assert raw.min() <= resized.min() <= resized.max() <= raw.max()


def test_resize_map_to_its_own_size_changes_nothing() -> None:
    raw = _noise(13, 17)
    np.testing.assert_array_equal(geometry.resize_map(raw, 13, 17), raw)


def _flood(mask: np.ndarray) -> np.ndarray:
    """Number components by a flood fill from each first pixel; the definition of `label`."""
    labels = np.zeros(mask.shape, np.int64)
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        number, waiting = labels.max() + 1, [start]
        labels[start] = number
        while waiting:
            y, x = waiting.pop()
            for dy, dx in np.ndindex(3, 3):
                near = (y + dy - 1, x + dx - 1)
                inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                if inside and mask[near] and not labels[near]:
                    labels[near] = number
                    waiting.append(near)
    return labels


@settings(max_examples=200, deadline=None)
@given(masks)
def test_label_is_a_flood_fill(mask) -> None:
    labels, count = geometry.label(mask)
    np.testing.assert_array_equal(labels, _flood(mask))
    assert count == labels.max()


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.7])
def test_label_has_the_components_of_scipy(density) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = _noise(97, 130) < density
    labels, count = geometry.label(mask)
    expected, expected_count = ndimage.label(mask, np.ones((3, 3)))
    assert count == expected_count
    pairs = np.unique(np.stack([labels[mask], expected[mask]]), axis=1)
    assert pairs.shape[1] == count  # one to one
    assert (np.diff(np.unique(labels[mask], return_index=True)[1]) > 0).all()  # numbered by first pixel


@settings(max_examples=100, deadline=None)
@given(masks, st.integers(0, 6), st.integers(1, 5), st.integers(0, 99))
def test_anomaly_regions_are_the_large_components_with_the_best_peaks(mask, min_area, most, seed) -> None:
    raw = np.where(mask, 1 + np.round(_noise(*mask.shape, seed), 1), 0).astype(np.float32)  # ties are common
    found = geometry.anomaly_regions(raw, *mask.shape, sigma=0, threshold=0.5, min_area=min_area, max_regions=most)
    labels = _flood(mask)
    parts = [labels == number for number in range(1, labels.max() + 1)]
    parts = [part for part in parts if part.sum() >= min_area]
    np.testing.assert_array_equal(found.mask, np.any(parts, axis=0) if parts else np.zeros_like(mask))
    parts = sorted(parts, key=lambda part: -raw[part].max())[:most]
    assert len(found) == len(parts)
    for part, box, area, peak in zip(parts, found.boxes, found.areas, found.peaks, strict=True):
        y, x = np.nonzero(part)
        assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        assert (area, peak) == (part.sum(), raw[part].max())


def test_anomaly_regions_of_an_image_of_twice_the_size_are_twice_as_large() -> None:
    raw = _noise(32, 32) * 0.1
    raw[8:12, 5:9] += 3
    raw[20:23, 18:26] += 2
    once = geometry.anomaly_regions(raw, 120, 160, sigma=1.0, threshold=0.6)
    twice = geometry.anomaly_regions(raw, 240, 320, sigma=1.0, threshold=0.6)
    assert len(once) == len(twice) == 2
    np.testing.assert_allclose(twice.boxes, 2 * once.boxes, atol=2)
    np.testing.assert_allclose(twice.peaks, once.peaks, rtol=1e-2)
