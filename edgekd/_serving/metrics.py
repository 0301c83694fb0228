"""What the service counts, as Prometheus reads it (text format 0.0.4). Only the event loop touches it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .._detections import Detections

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
SCORES = 500  # in the reference, and in what is compared with it


class Histogram:
    """Counts by upper bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Count nothing yet."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value; a bound belongs to what is below it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def lines(self, name: str, labels: str = "") -> Iterable[str]:
        """Yield the samples; counts are cumulative."""
        below, comma = 0, "," if labels else ""
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            below += count
            text = "+Inf" if bound == math.inf else f"{bound:g}"
            yield f'{name}_bucket{{{labels}{comma}le="{text}"}} {below}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.sum:.9g}"
        yield f"{name}_count{braces} {below}"


class Drift:
    """How far the latest scores lie from the first ones: the population stability index over ten bins.

    0: alike; above 0.25 it is usual to look after the camera, the light, or what is in the picture.
    """

    def __init__(self, size: int = SCORES) -> None:
        """Compare with the first `size` scores."""
        self._size = size
        self._first: list[float] = []
        self._latest: deque[float] = deque(maxlen=size)

    def add(self, score: float) -> None:
        """Count a score in [0, 1]."""
        if len(self._first) < self._size:
            self._first.append(score)
        else:
            self._latest.append(score)

    def index(self) -> float | None:
        """Return the index; None before there is as much to compare as to compare with."""
        if len(self._latest) < self._size:
            return None
        before, now = (self._shares(scores) for scores in (self._first, self._latest))
        return sum((q - p) * math.log(q / p) for p, q in zip(before, now, strict=True))

    @staticmethod
    def _shares(scores: Iterable[float]) -> list[float]:
        counts = Counter(min(int(10 * score), 9) for score in scores)
        total = sum(counts.values()) + 10 * 0.5  # half a score more in every bin: none is empty
        return [(counts[each] + 0.5) / total for each in range(10)]


class Metrics:
    """Counts of one service."""

    def __init__(self, about: Mapping[str, str]) -> None:
        """Start at zero; `about` are the labels that say what runs."""
        self._about = about
        self._answers: Counter[int] = Counter()
        self._rejected: Counter[str] = Counter()
        self._objects: Counter[str] = Counter()
        self._seconds = Histogram(SECONDS)
        self._stages: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self._scores = Histogram(TENTHS)
        self._drift = Drift()

    @property
    def mean_s(self) -> float:
        """Mean time of an answer so far; 0 before the first."""
        return self._seconds.sum / max(self._seconds.count, 1)

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer to a picture that was accepted."""
        self._answers[status] += 1
        self._seconds.add(seconds)

    def rejected(self, reason: str) -> None:
        """Count a picture that was not accepted."""
        self._rejected[reason] += 1

    def found(self, found: Detections) -> None:
        """Count objects, scores and stages of one picture; of an anomaly network its calibrated score."""
        for name in found.names:
            self._objects[name] += 1
        for score in found.scores.tolist() if found.score01 is None else [found.score01]:
            self._scores.add(score)
            self._drift.add(score)
        for stage, milliseconds in found.timings_ms.items():
            self._stages[stage].add(milliseconds / 1e3)

    def render(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return the page; `gauges` are name -> (help, value) of what is not counted here."""
        about = _labels(self._about)
        lines = [*_head("edgekd_info", "gauge", "What runs."), f"edgekd_info{{{about}}} 1"]
        for name, (text, value) in gauges.items():
            lines += [*_head(name, "gauge", text), f"{name} {value:g}"]
        lines += _head("edgekd_answers_total", "counter", "Answers to accepted pictures, by HTTP status.")
        lines += [f'edgekd_answers_total{{status="{key}"}} {count}' for key, count in sorted(self._answers.items())]
        lines += _head("edgekd_rejected_total", "counter", "Pictures that were not accepted, by reason.")
        lines += [f'edgekd_rejected_total{{reason="{key}"}} {count}' for key, count in sorted(self._rejected.items())]
        lines += _head("edgekd_objects_total", "counter", "Objects found, by class.")
        lines += [f"edgekd_objects_total{{{_labels({'class': key})}}} {n}" for key, n in sorted(self._objects.items())]
        lines += _head("edgekd_answer_seconds", "histogram", "From accepting a picture to its answer.")
        lines += self._seconds.lines("edgekd_answer_seconds")
        lines += _head("edgekd_stage_seconds", "histogram", "Stages of predict.")
        for stage, histogram in sorted(self._stages.items()):
            lines += histogram.lines("edgekd_stage_seconds", _labels({"stage": stage}))
        lines += _head("edgekd_score", "histogram", "Scores of what was found.")
        lines += self._scores.lines("edgekd_score")
        index = self._drift.index()
        if index is not None:
            text = f"Stability index of the latest {SCORES} scores against the first {SCORES}."
            lines += [*_head("edgekd_score_drift", "gauge", text), f"edgekd_score_drift {index:.6g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _labels(values: Mapping[str, str]) -> str:
    escaped = {key: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, text in values.items()}
    return ",".join(f'{key}="{text}"' for key, text in escaped.items())
