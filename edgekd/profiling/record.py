"""`Profile`: one measured run, as JSON: raw samples, conditions, versions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._container import write_file
from ..errors import UsageError
from .statistics import Figures, figures

FORMAT = 1
TOTAL = "total"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What was measured.

    Attributes:
        name: of the model.
        digest: SHA-256 of the bundle's contents.
        session: target, precision, compute, device and runtime that ran.
        machine: processor, cores, memory, system, versions, date, settings such as the governor.
        images: how many different ones were shown, and where they come from.
        fps: the rate they were shown at; None: one right after the other.
        load_ms: from the file to a detector.
        first_ms: the first call.
        start_s: begin of each call, seconds since the first.
        stages_ms: stage -> one value a call; "total" is the wall-clock of the call, "other" what no stage accounts for.
        conditions: "time_s" -> seconds since the first call, and sensor -> its values then.
        peak_memory_bytes: most that the process ever held.
        problems: why the run means little; empty: it is valid.
        device: where it ran, as it was named; "local": here.
        layers: of a run of its own: `name`, `kind`, `module` and mean `ms` of each, see `profiling.layers.Layer`.
        layers_missing: why there are none.
    """

    name: str
    digest: str
    session: dict[str, str]
    machine: dict[str, Any]
    images: str
    fps: float | None
    load_ms: float
    first_ms: float
    start_s: list[float]
    stages_ms: dict[str, list[float]]
    conditions: dict[str, list[float]]
    peak_memory_bytes: int
    problems: list[str]
    device: str = "local"
    layers: list[dict[str, Any]] = field(default_factory=list)
    layers_missing: str = "they were not asked for"
    format: int = FORMAT
    summary: dict[str, Figures] = field(default_factory=dict)  # of the stages; made, not read

    def __post_init__(self) -> None:
        made = {name: figures(samples) for name, samples in self.stages_ms.items()}
        object.__setattr__(self, "summary", made)

    @property
    def valid(self) -> bool:
        """Whether nothing disturbed the run."""
        return not self.problems

    def energy_mj(self) -> dict[str, float]:
        """Return rail -> millijoules a call, everything that the rail feeds and idling included; empty: no rail."""
        time_s = self.conditions["time_s"]
        seconds, calls = time_s[-1] - time_s[0], len(self.start_s)
        found = {}
        for name, values in self.conditions.items():
            kind, _, of = name.partition(" ")
            if kind == "power" and seconds > 0:
                found[of] = 1e3 * _integral(time_s, values) / calls
            elif kind == "energy" and values[-1] > values[0]:  # a counter that wrapped says nothing
                found[of] = 1e3 * (values[-1] - values[0]) / calls
        return found

    def modules_ms(self) -> dict[str, float]:
        """Return part of the network -> milliseconds of its layers, largest first; empty: no layers were timed."""
        from .layers import by_module

        return by_module(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        fields = dataclasses.asdict(self)
        summary = {name: item._asdict() for name, item in self.summary.items()}
        return {**fields, "summary": summary, "valid": self.valid, "energy_mj": self.energy_mj()}

    def write(self, path: str | Path) -> None:
        """Write the JSON, atomically."""
        write_file(Path(path), [(json.dumps(self.to_dict(), indent=1) + "\n").encode()])

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Profile:
        """Return the profile that `to_dict` wrote down.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        made = ("summary", "valid", "energy_mj")
        profile = cls(**{key: value for key, value in raw.items() if key not in made})
        if not profile.stages_ms[TOTAL]:
            raise ValueError("it has no samples")
        return profile

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """Read what `write` wrote.

        Raises:
            UsageError: the file is missing, no JSON, or no profile.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
            if raw["format"] != FORMAT:
                raise UsageError(f"{path} is a profile of format {raw['format']}; this edgekd reads {FORMAT}")
            profile = cls.of(raw)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            why = "it is no text" if isinstance(error, UnicodeDecodeError) else error
            raise UsageError(
                f"{path} is no profile; `edgekd profile model.bin --out FILE` writes one: {why}"
            ) from error
        return profile


def _integral(time_s: list[float], values: list[float]) -> float:
    """Return the area under values, by trapezoids: joules from watts."""
    pairs = zip(zip(time_s, values, strict=True), list(zip(time_s, values, strict=True))[1:], strict=False)
    return sum((after - before) * (high + low) / 2 for (before, low), (after, high) in pairs)
