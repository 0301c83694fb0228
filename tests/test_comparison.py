"""Means, spreads, paired gains and what they are worth."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd._comparison import BETTER, NOISE, UNKNOWN, WORSE, Comparison, chosen_seeds, compare
from edgekd.errors import UsageError

FRACTION = st.floats(0, 1)


def comparison(alone: tuple[float, ...], distilled: tuple[float, ...]) -> Comparison:
    return Comparison(metric="AP", split="val", seeds=tuple(range(len(alone))), alone=alone, distilled=distilled)


def test_figures_worked_out_by_hand() -> None:
    each = comparison((0.10, 0.20, 0.30), (0.20, 0.40, 0.60))
    said = each.to_dict()["comparison"]
    assert said["alone"] == {"mean": pytest.approx(0.2), "std": pytest.approx(0.1), "values": [0.1, 0.2, 0.3]}
    assert said["distilled"]["std"] == pytest.approx(0.2)
    assert said["gain"]["values"] == pytest.approx([0.1, 0.2, 0.3])
    assert said["gain"]["std"] == pytest.approx(0.1)
    assert said["gain"]["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
    assert each.to_dict()["value"] == said["gain"]["mean"] == pytest.approx(0.2)


@given(st.lists(st.tuples(FRACTION, FRACTION), min_size=2, max_size=9))
def test_spread_is_that_of_the_sample_and_of_the_pairs(pairs: list[tuple[float, float]]) -> None:
    alone, distilled = (tuple(column) for column in zip(*pairs, strict=True))
    gains = [ours - theirs for theirs, ours in pairs]
    each = comparison(alone, distilled)
    said = each.to_dict()["comparison"]
    assert said["alone"]["std"] == statistics.stdev(alone)
    assert said["gain"]["std"] == statistics.stdev(gains)
    assert each.standard_error == statistics.stdev(gains) / math.sqrt(len(pairs))
    assert json.loads(json.dumps(each.to_dict(), allow_nan=False)) == each.to_dict()
    assert Comparison.from_dict(each.to_dict()) == each


@pytest.mark.parametrize(
    ("distilled", "verdict"),
    [
        ((0.51, 0.52, 0.53), BETTER),  # gains 1, 2, 3: mean 2, standard error 0.58
        ((0.49, 0.48, 0.47), WORSE),
        ((0.50, 0.51, 0.52), NOISE),  # gains 0, 1, 2: mean 1, standard error 0.58
        ((0.50, 0.50, 0.50), NOISE),  # nothing gained, nothing varied
        ((0.53125,) * 3, BETTER),  # the same gain for every seed
        ((0.49, 0.50, 0.51), NOISE),
    ],
)
def test_verdict_says_what_the_gain_is_worth(distilled: tuple[float, ...], verdict: str) -> None:
    assert comparison((0.5,) * 3, distilled).verdict == verdict


def test_spread_of_the_two_alone_does_not_hide_a_steady_gain() -> None:
    each = comparison((0.1, 0.5, 0.9), (0.11, 0.52, 0.91))
    assert each.verdict == BETTER, "paired by seed, not by the two spreads"


def test_one_seed_has_no_spread_and_no_verdict() -> None:
    each = comparison((0.1,), (0.9,))
    assert (each.verdict, each.standard_error, each.chance) == (UNKNOWN, None, None)
    said = each.to_dict()["comparison"]
    assert (said["alone"]["std"], said["gain"]["std"], said["gain"]["standard_error"]) == (None, None, None)


@pytest.mark.parametrize(
    ("seeds", "tail"), [(2, 0.2952), (3, 0.1835), (4, 0.1393), (5, 0.1161), (6, 0.1019), (11, 0.0734), (200, 0.0469)]
)
def test_chance_is_the_tail_of_students_t(seeds: int, tail: float) -> None:
    assert comparison((0.0,) * seeds, (0.0,) * seeds).chance == pytest.approx(tail, abs=6e-5)


def runs(**figures: list[float]) -> dict[int, dict[str, dict[str, Any]]]:
    """Return seed -> split -> figures for seeds 5 and 3."""
    return {
        seed: {"val": {name: values[number] for name, values in figures.items()} | {"per_class": {"red": 0.5}}}
        for number, seed in enumerate((5, 3))
    }


def test_every_finite_figure_is_compared_in_the_order_of_the_distilled_runs() -> None:
    alone = runs(AP=[0.1, 0.2], AP50=[0.3, 0.4], AP_small=[math.nan, 0.1])
    backwards = dict(reversed(alone.items()))
    rows = compare(backwards, runs(AP=[0.5, 0.6], AP50=[0.7, 0.8], AP_small=[0.1, 0.1]))
    assert [(row.metric, row.split, row.seeds) for row in rows] == [("AP", "val", (5, 3)), ("AP50", "val", (5, 3))]
    assert (rows[0].alone, rows[0].distilled) == ((0.1, 0.2), (0.5, 0.6))


def test_seeds_are_the_recipes_own_and_the_next_two_unless_chosen() -> None:
    assert chosen_seeds(None, 7) == (7, 8, 9)
    assert chosen_seeds([4, 0], 0) == (4, 0)
    assert chosen_seeds([0], 0) == (0,)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([], "1 to 256 different numbers from 0 .* got none"),
        ([0, 1, 0], "different numbers .* got 0, 1, 0"),
        ([0, -1], "from 0 .* got 0, -1"),
        (range(300), "1 to 256"),
        ([1, 2], r"seeds 1, 2 lack the recipe's own seed 0, .*--seed 1\)"),
    ],
)
def test_impossible_seeds_are_refused(seeds: list[int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_seeds(seeds, 0)
