"""Thresholds from normal images: the guarantee, the ranks, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd import _thresholds
from edgekd._manifest import Thresholds
from edgekd.errors import UsageError

ALPHAS = st.sampled_from([0.5, 0.3, 0.25, 0.2, 0.1, 0.07])
SCORES = st.one_of(
    st.lists(st.integers(0, 3).map(float), min_size=16, max_size=24),
    st.lists(st.floats(-100, 100, width=32), min_size=16, max_size=24),
)
FITTED = Thresholds(image=2.0, pixel=1.0, low=1.0, alpha=0.05, pixel_alpha=1e-3, images=30, sigma=1.0)


@given(SCORES, ALPHAS)
def test_whichever_image_is_the_new_one_alarms_are_at_most_alpha_on_average(scores: list[float], alpha: float) -> None:
    """The theorem itself: every order is as likely, so average over which of n + 1 images is the new one."""
    alarms = [
        new > _thresholds.image_threshold(scores[:place] + scores[place + 1 :], alpha)
        for place, new in enumerate(scores)
    ]
    assert Fraction(sum(alarms), len(alarms)) <= Fraction(str(alpha))


@given(st.permutations(range(25)), ALPHAS)
def test_of_different_scores_the_rate_is_less_than_a_rank_below_alpha(scores: list[int], alpha: float) -> None:
    alarms = sum(
        new > _thresholds.image_threshold(scores[:place] + scores[place + 1 :], alpha)
        for place, new in enumerate(scores)
    )
    assert alarms == math.floor(25 * Fraction(str(alpha)))


@pytest.mark.parametrize(("count", "alpha"), [(19, 0.05), (43, 0.05), (99, 0.01), (30, 0.2)])
def test_false_alarms_on_fresh_normal_images_keep_to_alpha(count: int, alpha: float) -> None:
    rng = np.random.default_rng(count)
    draws, fresh = 4000, 5
    alarms = 0
    for scores in rng.gamma(2.0, size=(draws, count + fresh)):
        alarms += int((scores[count:] > _thresholds.image_threshold(scores[:count], alpha)).sum())
    rate = alarms / (draws * fresh)
    spread = math.sqrt(alpha * (1 - alpha) * (1 / (draws * fresh) + 1 / (draws * count)))
    assert rate <= alpha + 4 * spread
    assert rate >= alpha - 1 / (count + 1) - 4 * spread  # and no threshold so high that nothing is ever found


@pytest.mark.parametrize(
    ("count", "alpha", "rank"),
    [(9, 0.1, 9), (10, 0.1, 10), (19, 0.1, 18), (19, 0.05, 19), (99, 0.01, 99), (29, 0.3, 21), (1, 0.5, 1)],
)
def test_rank_is_exact_where_floating_point_is_not(count: int, alpha: float, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(count) + 1.0
    assert _thresholds.image_threshold(scores, alpha) == rank == math.ceil((count + 1) * (1 - Fraction(str(alpha))))


@pytest.mark.parametrize(("alpha", "needed"), [(0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3), (0.9, 1), (0.001, 999)])
def test_images_needed_are_the_fewest_that_work(alpha: float, needed: int) -> None:
    assert _thresholds.images_needed(alpha) == needed
    _thresholds.image_threshold(np.zeros(needed), alpha)
    with pytest.raises(UsageError, match=f"takes {needed} normal images"):
        _thresholds.image_threshold(np.zeros(needed - 1), alpha)


def test_too_few_images_name_the_alpha_that_they_are_enough_for() -> None:
    with pytest.raises(UsageError, match=r"takes 99 .*least alpha possible with 30 is 0\.0323"):
        _thresholds.fit(np.zeros(30), [np.zeros((2, 2))], alpha=0.01)
    _thresholds.fit(np.zeros(30), [np.zeros((2, 2))], alpha=0.0323)
    for count in itertools.chain(range(1, 60), [999]):
        _thresholds.image_threshold(np.zeros(count), float(_thresholds._least(count)))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_that_is_no_rate_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha should be above 0 and below 1"):
        _thresholds.fit(np.zeros(30), [np.zeros((2, 2))], alpha=alpha)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_pixel_threshold_is_the_least_value_that_few_enough_pixels_exceed(values: list[int], alpha: float) -> None:
    found = _thresholds.pixel_threshold(values, alpha)

    def share(level: float) -> Fraction:
        return Fraction(sum(value > level for value in values), len(values))

    assert share(found) <= Fraction(str(alpha))
    assert all(share(level) > Fraction(str(alpha)) for level in values if level < found)


def test_fit_pools_the_pixels_of_all_maps() -> None:
    maps = (np.full((1, 10), level, np.float32) for level in (3.0, 1.0, 2.0))
    found = _thresholds.fit([5.0, 7.0, 6.0], maps, alpha=0.25, pixel_alpha=0.4, sigma=2.0)
    assert found == Thresholds(
        image=7.0, pixel=2.0, low=pytest.approx(5.02), alpha=0.25, pixel_alpha=0.4, images=3, sigma=2.0
    )


@pytest.mark.parametrize(
    ("scores", "maps", "why"),
    [
        ([math.nan] * 30, [np.zeros((2, 2))], "30 of 30 scores are not finite"),
        ([0.0] * 30, [np.array([[math.inf, 0.0]])], "1 of 2 map values are not finite"),
        ([0.0] * 30, [], "at least one map"),
        ([[0.0]] * 30, [np.zeros((2, 2))], r"expected shape \(n,\)"),
    ],
)
def test_values_that_nothing_can_be_fitted_to_are_refused(
    scores: list[float], maps: list[np.ndarray], why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        _thresholds.fit(scores, maps)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, math.nan])
def test_a_pixel_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="pixel_alpha should be"):
        _thresholds.fit([0.0] * 30, [np.zeros((2, 2))], pixel_alpha=alpha)


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_calibrated_score_is_monotone_and_half_at_the_threshold(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert 0 <= _thresholds.calibrated(low, FITTED) <= _thresholds.calibrated(high, FITTED) <= 1
    assert first > 2.0 or _thresholds.calibrated(first, FITTED) <= 0.5


@pytest.mark.parametrize(("score", "shown"), [(0.0, 0.0), (1.0, 0.0), (1.5, 0.25), (2.0, 0.5), (2.5, 0.75), (9.0, 1.0)])
def test_calibrated_score_is_linear_around_the_threshold(score: float, shown: float) -> None:
    assert _thresholds.calibrated(score, FITTED) == shown


def test_calibrated_score_when_all_normal_images_scored_alike() -> None:
    same = Thresholds(image=1.0, pixel=1.0, low=1.0, alpha=0.05, pixel_alpha=0.0, images=20, sigma=0.0)
    assert [_thresholds.calibrated(score, same) for score in (0.5, 1.0, 1.5)] == [0.0, 0.5, 1.0]


@given(st.floats(-100, 100), st.floats(-10, 10))
def test_threshold_moved_by_hand_shifts_calibrated_scores_and_forgets_the_promise(image: float, beside: float) -> None:
    found = _thresholds.moved(FITTED, image=image)
    assert (found.image, found.alpha, found.pixel, found.pixel_alpha) == (image, None, FITTED.pixel, FITTED.pixel_alpha)
    shifted = _thresholds.calibrated(image + beside, found)
    assert shifted == pytest.approx(_thresholds.calibrated(FITTED.image + beside, FITTED), abs=1e-9)


def test_pixel_threshold_moved_by_hand_leaves_the_image_threshold() -> None:
    found = _thresholds.moved(FITTED, pixel=7.0)
    assert found == dataclasses.replace(FITTED, pixel=7.0, pixel_alpha=None)
    assert _thresholds.moved(FITTED) == FITTED
