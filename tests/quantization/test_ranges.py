"""Estimators of ranges: against known distributions, brute force, and each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekd._int8 import options
from edgekd.errors import UsageError
from edgekd.quantization.ranges import BINS, CANDIDATES, ESTIMATORS, LEVELS, PERCENTILE, Histogram, threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNT = 200_000


def histogram(values: NDArray[np.float64]) -> Histogram:
    magnitudes = np.abs(values)
    largest = float(magnitudes.max())
    bins = np.minimum((magnitudes * (BINS / largest)).astype(int), BINS - 1)
    return Histogram(np.bincount(bins, minlength=BINS).astype(np.float64), largest)


def squared_error(values: NDArray[np.float64], limit: float) -> float:
    """Return the mean squared error of int8 with this largest value."""
    step = limit / LEVELS
    return float(np.mean((values - np.clip(np.rint(values / step), -LEVELS, LEVELS) * step) ** 2))


DRAWN = {
    "gaussian": lambda rng: rng.normal(size=COUNT),
    "laplace": lambda rng: rng.laplace(size=COUNT) / np.sqrt(2),
    "relu": lambda rng: np.maximum(rng.normal(size=COUNT), 0),
    "silu": lambda rng: (x := rng.normal(size=COUNT)) / (1 + np.exp(-x)),
    "uniform": lambda rng: rng.uniform(-1, 1, COUNT),
    "outlier": lambda rng: np.concatenate([rng.normal(size=COUNT), [300.0]]),
    "sparse": lambda rng: np.where(rng.random(COUNT) < 0.999, 0.0, rng.normal(size=COUNT)),
}


@pytest.fixture(params=sorted(DRAWN))
def values(request: pytest.FixtureRequest) -> NDArray[np.float64]:
    return np.asarray(DRAWN[request.param](np.random.default_rng(0)), np.float64)


def test_options_and_estimators_have_the_same_names() -> None:
    assert tuple(ESTIMATORS) == options.ESTIMATORS


def test_minmax_is_the_largest_magnitude(values: NDArray[np.float64]) -> None:
    assert threshold(histogram(values), "minmax") == np.abs(values).max()


def test_percentile_leaves_its_share_above(values: NDArray[np.float64]) -> None:
    limit = threshold(histogram(values), "percentile")
    share = 1 - PERCENTILE / 100
    width = np.abs(values).max() / BINS
    assert (np.abs(values) > limit).mean() <= share
    assert (np.abs(values) > limit - width).mean() >= share - 1e-9 or limit <= width


def test_mse_errs_no_more_than_the_others_by_brute_force(values: NDArray[np.float64]) -> None:
    found = {name: squared_error(values, threshold(histogram(values), name)) for name in ESTIMATORS}
    slack = 1.03  # the others' thresholds lie between the candidates, 1/128 apart
    assert found["mse"] <= slack * min(found.values()), found
    assert found["mse"] <= found["minmax"] * 1.01, "which is among them, but for the width of a bin"


def test_mse_is_the_best_of_its_candidates(values: NDArray[np.float64]) -> None:
    seen = histogram(values)
    grid = np.arange(1, CANDIDATES + 1) / CANDIDATES * seen.largest
    errors = [squared_error(values, limit) for limit in grid]
    assert squared_error(values, threshold(seen, "mse")) <= 1.01 * min(errors)


@pytest.mark.parametrize(
    ("drawn", "low", "high"),
    # Of 200 000 draws of variance 1 the optimal clip for 8 bits (Banner et al., 2019: 3.92 sigma Gaussian, 9.89 b
    # Laplace, so 7.0 sigma), and what lies around it: below 3 sigma a Gaussian loses 0.3 % of its values.
    [("gaussian", 3.5, 4.6), ("laplace", 5.5, 8.6), ("relu", 3.3, 4.6)],
)
def test_mse_clips_where_theory_says(drawn: str, low: float, high: float) -> None:
    assert low < threshold(histogram(DRAWN[drawn](np.random.default_rng(0))), "mse") < high


@pytest.mark.parametrize(
    ("drawn", "low", "high"),
    # Entropy weighs probability, not distance: it never clips more than 1 % of a Gaussian (2.6 sigma), of a Laplace
    # 4 sigma is 0.35 %; and it leaves nothing that was seen twice outside, so it is never far below the others.
    [("gaussian", 2.6, 5.0), ("laplace", 4.0, 10.0), ("relu", 2.6, 5.0), ("uniform", 0.98, 1.0)],
)
def test_entropy_clips_a_sane_number_of_sigmas(drawn: str, low: float, high: float) -> None:
    assert low < threshold(histogram(DRAWN[drawn](np.random.default_rng(0))), "entropy") <= high


@pytest.mark.parametrize("name", ["mse", "percentile", "entropy"])
def test_one_outlier_does_not_take_the_range(name: str) -> None:
    seen = histogram(DRAWN["outlier"](np.random.default_rng(0)))
    assert threshold(seen, name) < (25 if name == "entropy" else 6) or name == "mse"
    assert threshold(seen, "minmax") == 300


def test_zeros_do_not_move_the_range() -> None:
    """A ReLU's zeros are exact at any scale: more of them change nothing."""
    rng = np.random.default_rng(0)
    positive = np.abs(rng.normal(size=COUNT))
    mixed = np.concatenate([positive, np.zeros(20 * COUNT)])
    for name in ("mse", "minmax", "entropy"):
        assert threshold(histogram(mixed), name) == pytest.approx(threshold(histogram(positive), name), rel=0.02), name


@pytest.mark.parametrize("name", ESTIMATORS)
def test_tensor_that_is_always_zero_has_a_range(name: str) -> None:
    assert threshold(Histogram(np.zeros(BINS), 0.0), name) == 1.0
    assert threshold(Histogram(np.zeros(BINS), 3.0), name) == 1.0


@pytest.mark.parametrize("place", [0, 1, 127, 128, 1000, BINS - 1])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_bin_is_held(name: str, place: int) -> None:
    counts = np.zeros(BINS)
    counts[place] = 1000
    limit = threshold(Histogram(counts, 2.0), name)
    assert (place + 0.5) / BINS * 2.0 * (1 - 1 / CANDIDATES) <= limit <= 2.0


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=30, deadline=None)
@given(
    places=arrays.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, BINS - 1)),
    counts=st.lists(st.integers(1, 10**9), min_size=40, max_size=40),
    largest=st.floats(1e-30, 1e30),
)
def test_range_lies_above_zero_and_not_above_the_largest(
    name: str, places: NDArray[np.int64], counts: list[int], largest: float
) -> None:
    held = np.zeros(BINS)
    held[places] = counts[: len(places)]
    limit = threshold(Histogram(held, largest), name)
    assert 0 < limit <= largest
    assert np.isfinite(limit)


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
def test_range_scales_with_the_values(name: str, scale: float, seed: int) -> None:
    values = np.random.default_rng(seed).laplace(size=2000)
    counts = histogram(values)
    scaled = Histogram(counts.counts, counts.largest * scale)
    assert threshold(scaled, name) == pytest.approx(scale * threshold(counts, name), rel=1e-9)


def test_unknown_estimator_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no range estimator 'median'; possible: mse, minmax, percentile, entropy"):
        threshold(Histogram(np.ones(BINS), 1.0), "median")
