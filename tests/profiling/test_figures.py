"""Figures, comparison, validity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekd.profiling.statistics import change, figures, interval
from edgekd.profiling.validity import problems

CALM = {"time_s": [0.0, 5.0, 10.0], "busy machine": [50.0, 56.0, 61.0], "busy process": [9.0, 14.0, 19.0]}


def test_figures_of_a_known_distribution() -> None:
    samples = [float(value) for value in range(1, 101)]
    np.random.default_rng(1).shuffle(samples)
    found = figures(samples)
    assert (found.mean, found.p50, found.max) == (50.5, 50.5, 100)
    assert (found.p90, found.p99) == pytest.approx((90.1, 99.01))
    assert found.mad == 25
    assert found.jitter == pytest.approx(np.abs(np.diff(samples)).mean())


def test_figures_of_one_sample() -> None:
    assert figures([3.0]) == (3, 3, 3, 3, 3, 0, 0)


def test_the_slowest_call_is_never_thrown_away() -> None:
    assert figures([1.0] * 10_000 + [1e6]).max == 1e6


def runs(seed: int, factor: float, count: int = 600) -> list[float]:
    """Return latencies of which neighbours are alike, as real ones are."""
    rng = np.random.default_rng(seed)
    drift = np.convolve(rng.normal(size=count + 19), np.ones(20) / 20, "valid")
    return (factor * (10 + drift + rng.exponential(0.3, count))).tolist()


def test_a_slowdown_is_found_and_chance_is_not() -> None:
    slower = change(runs(1, 1.0), runs(2, 1.1), 50)
    assert 0.03 < slower.low < 0.1 < slower.high
    assert (slower.before, slower.after) == pytest.approx((np.median(runs(1, 1.0)), np.median(runs(2, 1.1))))
    covered = [change(runs(seed, 1.0), runs(1000 + seed, 1.0), 50) for seed in range(60)]
    assert sum(item.low <= 0 <= item.high for item in covered) >= 50  # of 60; 57 are to be expected


def test_the_interval_is_the_same_each_time() -> None:
    assert change(runs(1, 1), runs(2, 1), 99) == change(runs(1, 1), runs(2, 1), 99)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples_are_compared_too(count: int) -> None:
    found = change([1.0] * count, [2.0] * count, 99)
    assert (found.low, found.high) == (1, 1)


@pytest.mark.parametrize(("figure", "truth"), [("mean", 5.0), ("p50", 5.0), ("p90", 5 + 1.2816)])
def test_interval_holds_the_truth_about_as_often_as_it_says(figure: str, truth: float) -> None:
    rng = np.random.default_rng(3)
    found = [interval(rng.normal(5, 1, 300).tolist(), figure) for _ in range(60)]
    assert sum(low <= truth <= high for low, high in found) >= 50  # of 60, at 95 %; blocks cost some of it
    assert all(high - low < 1 for low, high in found)


def test_interval_of_the_slowest_call_is_none() -> None:
    assert interval([1.0, 2.0], "max") is None


def test_a_calm_run_has_no_problem() -> None:
    steady = {"clock cpu0": [1500.0] * 3, "clock cpu1": [400.0, 1500.0, 700.0], "throttle cpu0": [7.0] * 3}
    assert problems({**CALM, **steady, "clock gpu": [600.0] * 3, "temperature cpu": [40.0, 60.0, 80.0]}, 200) == []


@pytest.mark.parametrize(
    ("more", "calls", "message"),
    [
        ({"clock cpu0": [1500.0, 1500.0, 900.0]}, 200, "the clock of cpu moved between 960 and 1500 MHz: fix it"),
        ({"clock 17000000.gpu": [306.0, 624.0, 624.0]}, 200, "the clock of 17000000.gpu moved between 338 and 624"),
        ({"throttle firmware": [0.0, 4.0, 0.0]}, 200, "it throttled (firmware)"),
        ({"busy machine": [50.0, 60.0, 63.0]}, 200, "other processes used 0.3 cores meanwhile: stop them"),
        ({}, 99, "99 calls are too few for a p99: measure at least 100"),
    ],
)
def test_what_disturbs_is_named(more: dict[str, Any], calls: int, message: str) -> None:
    (found,) = problems({**CALM, **more}, calls)
    assert found.startswith(message)


def test_several_problems_are_all_named() -> None:
    more = {"clock cpu0": [1500.0, 1500.0, 900.0], "throttle cpu0": [0.0, 1.0, 1.0]}
    assert len(problems({**CALM, **more}, 3)) == 3
