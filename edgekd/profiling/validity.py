"""`problems`: why a run means little. Thresholds are wide: what they find moves latency by more than noise does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLOCK_SHARE = 0.05  # of the fastest clock seen: more than that between 5 % and 95 % of a run is a change of pace
OTHER_CORES = 0.2  # processor time that others may use, in cores


def problems(conditions: Mapping[str, Sequence[float]], calls: int) -> list[str]:
    """Return one sentence a problem, with what to do; none: the run is valid.

    Args:
        conditions: as in `Profile`.
        calls: how many were measured.
    """
    found = [
        *_throttled(conditions),
        *_clocks(conditions),
        *_load(conditions),
    ]
    if calls < 100:
        found.append(f"{calls} calls are too few for a p99: measure at least 100")
    return found


def _throttled(conditions: Mapping[str, Sequence[float]]) -> list[str]:
    hit = [
        name.partition(" ")[2]
        for name, values in conditions.items()
        if name.startswith("throttle ") and max(values) > values[0]
    ]
    return [f"it throttled ({', '.join(hit)}): cool it, or lower the power mode until it holds"] if hit else []


def _clocks(conditions: Mapping[str, Sequence[float]]) -> list[str]:
    """Say which clocks moved; cores that idle are slow, so of all cores the fastest counts at each moment."""
    cores = [values for name, values in conditions.items() if name.startswith("clock cpu")]
    others = {
        name: values
        for name, values in conditions.items()
        if name.startswith("clock ") and not name.startswith("clock cpu")
    }
    series = {**({"cpu": np.max(cores, axis=0)} if cores else {}), **others}
    found = []
    for name, values in series.items():
        low, high = np.percentile(values, [5, 95])
        if high > 0 and (high - low) / high > CLOCK_SHARE:
            found.append(
                f"the clock of {name.removeprefix('clock ')} moved between {low:.0f} and {high:.0f} MHz: fix it "
                "(sudo cpupower frequency-set -g performance; on Jetson sudo jetson_clocks)"
            )
    return found


def _load(conditions: Mapping[str, Sequence[float]]) -> list[str]:
    machine, process = conditions.get("busy machine"), conditions.get("busy process")
    if machine is None or process is None:
        return []
    seconds = conditions["time_s"][-1] - conditions["time_s"][0]
    others = ((machine[-1] - machine[0]) - (process[-1] - process[0])) / max(seconds, 1e-9)
    if others > OTHER_CORES:
        return [f"other processes used {others:.1f} cores meanwhile: stop them"]
    return []
