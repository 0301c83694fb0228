"""The table of what distillation changed, for `distill` and `inspect`."""

from __future__ import annotations

import statistics
from itertools import groupby
from typing import TYPE_CHECKING

from ._text import plain, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import edgekd

HEAD = ("split", "figure", "alone", "distilled", "gain", "")


def show_comparisons(comparisons: Iterable[edgekd.Comparison]) -> None:
    """Print comparisons in percent, a table for each set of seeds."""
    for _, group in groupby(comparisons, key=lambda each: each.seeds):
        same = list(group)
        print()
        table(HEAD, [_row(each) for each in same])
        print(_reading(same[0]))


def _row(each: edgekd.Comparison) -> tuple[str, ...]:
    error = "" if each.standard_error is None else f" (SE {100 * each.standard_error:.1f})"
    gain = _spread(each.gains, "+.1f") + error
    return plain(each.split), each.metric, _spread(each.alone), _spread(each.distilled), gain, each.verdict


def _spread(values: Sequence[float], form: str = ".1f") -> str:
    std = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):{form}}{std}"


def _reading(each: edgekd.Comparison) -> str:
    """Return what the figures are, and how far they can be trusted."""
    count = len(each.seeds)
    if each.chance is None:
        return f"in %, seed {each.seeds[0]} alone: no spread is known, so nothing is proved; --seeds takes more"
    listed = ", ".join(map(str, each.seeds[:8])) + (", ..." if count > 8 else "")
    return (
        f"in %, mean ± standard deviation over {count} seeds ({listed}); gains are paired by seed, SE is the standard\n"
        f"error of their mean; noise alone passes two of them, up or down, in {100 * each.chance:.0f} % of comparisons "
        f"of {count} seeds"
    )
