"""Exact figures of a ranking, beside what a brute force over pairs and thresholds says."""

from __future__ import annotations

import math
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.errors import UsageError
from edgekd.training.metrics.ranking import Ranking

FEW = st.integers(-3, 3).map(float)  # many ties
ANY = st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.inf, -math.inf, 0.0, -0.0])
SCORES = st.one_of(st.lists(FEW, max_size=12), st.lists(ANY, max_size=12))
SOME = st.one_of(st.lists(FEW, min_size=1, max_size=12), st.lists(ANY, min_size=1, max_size=12))


def thresholds(anomalous: list[float], normal: list[float]) -> list[float]:
    return sorted({*anomalous, *normal}, reverse=True)


@given(SOME, SOME)
def test_auroc_is_the_share_of_pairs_in_order_and_a_tie_is_half(anomalous: list[float], normal: list[float]) -> None:
    pairs = [(a > n) + 0.5 * (a == n) for a, n in product(anomalous, normal)]
    assert Ranking(anomalous, normal).auroc() == sum(pairs) / len(pairs)


@given(SOME, SCORES)
def test_average_precision_is_the_sum_over_every_threshold(anomalous: list[float], normal: list[float]) -> None:
    expected, before = 0.0, 0
    for level in thresholds(anomalous, normal):
        hits = sum(a >= level for a in anomalous)
        alarms = sum(n >= level for n in normal)
        expected += (hits - before) / len(anomalous) * hits / (hits + alarms)
        before = hits
    assert Ranking(anomalous, normal).average_precision() == pytest.approx(expected, abs=1e-12)


@given(SOME, SCORES)
def test_best_f1_is_that_of_an_exhaustive_search(anomalous: list[float], normal: list[float]) -> None:
    def f1(level: float) -> float:
        hits, alarms = sum(a >= level for a in anomalous), sum(n >= level for n in normal)
        return 2 * hits / (hits + alarms + len(anomalous))

    found = Ranking(anomalous, normal).best_f1()
    assert found.value == pytest.approx(max(f1(level) for level in thresholds(anomalous, normal)), abs=1e-12)
    assert f1(found.threshold) == found.value


@given(SOME, SOME, st.floats(0.01, 1.0))
def test_partial_area_is_that_under_a_curve_with_every_threshold_as_a_vertex(
    anomalous: list[float], normal: list[float], limit: float
) -> None:
    vertices = [(0.0, 0.0)]
    for level in thresholds(anomalous, normal):
        rate = sum(n >= level for n in normal) / len(normal)
        vertices.append((rate, sum(a >= level for a in anomalous) / len(anomalous)))
    area = 0.0
    for (x1, y1), (x2, y2) in pairwise(vertices):
        if x1 >= limit or x1 == x2:
            continue
        end = min(x2, limit)
        area += (end - x1) * (y1 + y1 + (end - x1) / (x2 - x1) * (y2 - y1)) / 2
    assert Ranking(anomalous, normal).partial_area(limit) == pytest.approx(area / limit, abs=1e-9)


@given(SOME, SOME)
def test_area_up_to_all_false_positives_is_the_auroc(anomalous: list[float], normal: list[float]) -> None:
    ranking = Ranking(anomalous, normal)
    assert ranking.partial_area(1.0) == pytest.approx(ranking.auroc(), abs=1e-12)


@given(SOME, SOME)
def test_figures_do_not_change_under_a_monotone_transform(anomalous: list[float], normal: list[float]) -> None:
    levels = {level: float(place) ** 3 for place, level in enumerate(sorted({*anomalous, *normal}))}
    mapped = Ranking([levels[a] for a in anomalous], [levels[n] for n in normal])
    given_ = Ranking(anomalous, normal)
    assert mapped.auroc() == given_.auroc()
    assert mapped.average_precision() == given_.average_precision()
    assert mapped.best_f1().value == given_.best_f1().value
    assert mapped.partial_area(0.3) == given_.partial_area(0.3)


def test_weights_share_the_area_out() -> None:
    ranking = Ranking([3.0, 1.0], [2.0, 0.0], weights=[0.25, 0.75])
    assert ranking.partial_area(0.5) == 0.25
    assert ranking.partial_area(1.0) == pytest.approx((0.25 + 1.0) / 2)


@pytest.mark.parametrize(("anomalous", "normal"), [([], [1.0]), ([1.0], []), ([], [])])
def test_areas_of_one_kind_alone_are_nan(anomalous: list[float], normal: list[float]) -> None:
    ranking = Ranking(anomalous, normal)
    assert math.isnan(ranking.auroc())
    assert math.isnan(ranking.partial_area(0.3))


def test_precision_needs_anomalous_items_alone() -> None:
    assert math.isnan(Ranking([], [1.0]).average_precision())
    assert math.isnan(Ranking([], [1.0]).best_f1().value)
    assert Ranking([1.0], []).average_precision() == 1.0
    assert Ranking([1.0], []).best_f1() == (1.0, 1.0)


@pytest.mark.parametrize(("anomalous", "normal"), [([math.nan], [1.0]), ([1.0], [0.0, math.nan])])
def test_nan_has_no_rank(anomalous: list[float], normal: list[float]) -> None:
    with pytest.raises(UsageError, match=r"1 of \d (anomalous|normal) scores are NaN"):
        Ranking(anomalous, normal)


def test_scores_are_left_as_they_were() -> None:
    anomalous, normal = np.array([1, 3, 2], np.float32), np.array([2, 0, 1], np.float32)
    Ranking(anomalous, normal)
    np.testing.assert_array_equal(anomalous, [1, 3, 2])
    np.testing.assert_array_equal(normal, [2, 0, 1])


@pytest.mark.parametrize("limit", [0.0, -1.0, 1.5, math.nan])
def test_a_limit_that_is_no_rate_is_refused(limit: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 1"):
        Ranking([1.0], [0.0]).partial_area(limit)


def test_weights_belong_to_the_anomalous() -> None:
    with pytest.raises(UsageError, match="one of each of 1"):
        Ranking([1.0], [0.0], weights=[0.5, 0.5])


def test_columns_are_not_scores() -> None:
    with pytest.raises(UsageError, match=r"expected shape \(N,\)"):
        Ranking(np.zeros((2, 1)), [0.0])
