"""The material zoo and its mosaics: same seed, same pixels; all families appear; blemishes are where they say."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.training.data.synth import mosaic
from edgekd.training.data.synth.material_zoo import FAMILIES, material
from edgekd.training.data.synth.mosaic import BLEMISHES, Mosaics


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def mosaics() -> Mosaics:
    return Mosaics(seed=0, materials=len(FAMILIES), squares=2, size=64)


@pytest.mark.parametrize("index", range(3 * len(FAMILIES)))
def test_material_when_drawn_then_pixels_are_in_range_vary_and_repeat(index: int) -> None:
    item = material(7, index)
    drawn = item.draw(rng(index), 48)
    assert drawn.shape == (48, 48, 3)
    assert drawn.dtype == np.float32
    assert np.isfinite(drawn).all()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn.std((0, 1)).max() > 0.005
    np.testing.assert_array_equal(drawn, material(7, index).draw(rng(index), 48))


def test_material_when_consecutive_then_they_walk_through_the_families() -> None:
    assert [material(0, index).family for index in range(len(FAMILIES))] == list(FAMILIES)


def test_ripples_when_their_angle_turns_then_the_spectrum_turns_with_it() -> None:
    for angle in (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4):
        item = material(0, 1)
        object.__setattr__(item, "angle", angle)
        object.__setattr__(item, "form", 0.0)
        object.__setattr__(item, "scale", 6.0)
        field = FAMILIES["ripples"](item, rng(3), 96)
        power = np.abs(np.fft.fft2(field - field.mean())) ** 2
        row, column = np.unravel_index(int(power.argmax()), power.shape)
        found = np.arctan2(np.fft.fftfreq(96)[row], np.fft.fftfreq(96)[column])  # waves run across their long side
        off = abs((found - (np.pi / 2 - angle) + np.pi / 2) % np.pi - np.pi / 2)
        assert off < np.deg2rad(12), f"{np.rad2deg(angle):.0f} degrees: {np.rad2deg(off):.0f} off"


def test_mosaics_when_drawn_then_shapes_ranges_and_repetition_hold(mosaics: Mosaics) -> None:
    pixels, names, spoilt = mosaics.draw(rng(1))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)
    assert (names.shape, names.dtype) == ((64, 64), np.int64)
    assert (spoilt.shape, spoilt.dtype) == ((64, 64), np.float32)
    again = Mosaics(seed=0, materials=len(FAMILIES), squares=2, size=64).draw(rng(1))
    for ours, theirs in zip((pixels, names, spoilt), again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_mosaics_when_many_are_drawn_then_all_materials_appear_and_few_pixels_are_spoilt(mosaics: Mosaics) -> None:
    drawn = [mosaics.draw(rng(2, index)) for index in range(60)]
    names = np.stack([each[1] for each in drawn])
    spoilt = np.stack([each[2] for each in drawn])
    assert set(np.unique(names)) == set(range(len(FAMILIES)))
    assert spoilt.min() >= 0
    assert spoilt.max() <= 1
    assert 0.001 < spoilt.mean() < 0.1
    assert any(not each.any() for each in spoilt), "some pictures are flawless"
    assert len(np.unique([len(np.unique(each)) for each in names])) > 2, "one material, or several"


@pytest.mark.parametrize("kind", BLEMISHES, ids=lambda kind: kind.__name__)
def test_blemish_when_put_on_then_pixels_change_where_it_says_and_nowhere_else(kind: object, mosaics: Mosaics) -> None:
    changed_somewhere = 0
    for index in range(12):
        source = rng(4, index)
        before, _ = mosaics._look(source)
        mask, after = kind(source, before.copy(), mosaics)  # type: ignore[operator]
        assert mask.shape == (64, 64)
        assert mask.min() >= 0
        assert mask.max() <= 1
        mixed = before + mask[..., None] * (after - before)
        np.testing.assert_array_equal(mixed[mask == 0], before[mask == 0])
        changed_somewhere += bool((np.abs(mixed - before) > 0.03).any())
    assert changed_somewhere >= 8


def test_colours_when_drawn_then_the_grey_axis_survives_a_grey_picture_and_lengths_a_rotation() -> None:
    for index in range(20):
        matrix = mosaic._colours(rng(5, index))
        if np.allclose(matrix, 1 / 3):
            continue
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
