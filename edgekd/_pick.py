"""`pick`: of several bundles the most accurate one that holds a latency budget, measured where it is to run."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bundle import Bundle
from ._container import check_place, write_file
from ._profile import profile
from .errors import SessionError, TargetUnavailableError, UsageError
from .profiling.record import TOTAL
from .profiling.statistics import interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._accuracies import Accuracy
    from .device import Device
    from .profiling.record import Profile

FIGURES = ("mean", "p50", "p90", "p99", "max")


@dataclass(frozen=True)
class Budget:
    """A latency that `predict` may take: `ms` milliseconds, looked at by `figure`, one of `FIGURES`."""

    ms: float
    figure: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read "8 ms p99".

        Raises:
            UsageError: it is written otherwise.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)\s+(\w+)\s*", text)
        if found is None or found[3] not in FIGURES or not float(found[1]):
            raise UsageError(
                f"budget {text!r}: expected a time, its unit (ms or s) and a figure ({', '.join(FIGURES)}), for "
                'example "8 ms p99"'
            )
        return cls(float(found[1]) * (1e3 if found[2] == "s" else 1.0), found[3])

    def __str__(self) -> str:
        return f"{self.ms:g} ms {self.figure}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One bundle.

    Attributes:
        path: as it was named.
        name: of the model.
        size_bytes: of the file.
        accuracy: from its receipts.
        session: target, precision, compute, device and runtime that ran; empty: none did.
        latency_ms: `FIGURES` of the whole `predict`; empty: it does not run there.
        samples_ms: every call, in order.
        interval_ms: 95 % interval of the budget's figure; None: it does not run there, or the figure is max.
        holds: whether it holds the budget.
        surely: whether it does so with the whole interval.
        front: whether no other is both at least as accurate and at least as fast.
        problems: why its figures mean little, or why it does not run.
    """

    path: str
    name: str
    size_bytes: int
    accuracy: Accuracy
    session: dict[str, str]
    latency_ms: dict[str, float]
    samples_ms: list[float]
    interval_ms: tuple[float, float] | None
    holds: bool
    surely: bool
    front: bool
    problems: list[str]


@dataclass(frozen=True, kw_only=True)
class PickReport:
    """What was measured, and what was chosen.

    Attributes:
        budget: "8 ms p99".
        device: where: "local", or the board as it was named.
        machine: what it is.
        metric: by which accuracy is compared.
        split: of the data.
        data_sha256: fingerprint that all figures of accuracy share.
        chosen: path of the most accurate bundle that holds the budget; None: none does.
        closest: where none does, the path of the fastest.
        over_ms: by how much that one is above the budget; 0: one holds it.
        candidates: most accurate first.
    """

    budget: str
    device: str
    machine: str
    metric: str
    split: str
    data_sha256: str
    chosen: str | None
    closest: str | None
    over_ms: float
    candidates: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        fields = asdict(self)
        return {**fields, "candidates": list(fields["candidates"])}


def pick(
    bundles: Sequence[str | Path],
    budget: str,
    *,
    metric: str | None = None,
    split: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    images: Sequence[str | Path] | str | Path | None = None,
    calls: int = 300,
    fps: float | None = None,
    on: str | Device | None = None,
    python: str = "python3",
    report: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> PickReport:
    """Measure bundles and choose the most accurate one that holds a latency budget.

    Accuracy is what the receipts in the bundles say, of the artifact that runs where they have a figure of it; nothing
    is evaluated here, and figures by tiles do not count. Latency is measured by `profile`. The figure itself has to
    hold the budget; where its interval does not, `surely` is False and the report says so.

    Args:
        bundles: files, at least one.
        budget: "8 ms p99": a time and mean, p50, p90, p99 or max of `predict`.
        metric: figure of accuracy to compare; None: AP, of anomaly networks image_AUROC.
        split: of the data that it is of; None: the first of "test", "val" and others that every bundle has a figure of.
        device: as in `profile`.
        precision: as in `load`.
        threads: as in `load`.
        images: as in `profile`; None: each bundle's own golden images.
        calls: as in `profile`.
        fps: as in `profile`.
        on: as in `profile`.
        python: as in `profile`.
        report: HTML file to write: the Pareto front, and every bundle.
        progress: told each bundle as its measurement begins.

    Raises:
        UsageError: the budget cannot be read, or the accuracies cannot be compared, or there is no place for `report`;
            the message says why.
        BundleError: a file is not a sound bundle.
        DeviceError: as `profile`.
    """
    from ._accuracies import accuracies, of_artifact

    if report is not None:
        check_place(Path(report))
    limit = Budget.parse(budget)
    paths = [Path(item) for item in bundles]
    found = accuracies(paths, metric, split)
    rows: list[Candidate] = []
    ran: Profile | None = None
    for path, known in zip(paths, found, strict=True):
        if progress is not None:
            progress(str(path))
        measured: Profile | None = None
        problems: list[str] = []
        try:
            measured = profile(
                path, device=device, precision=precision, threads=threads, images=images, calls=calls, fps=fps,
                layers=0, on=on, python=python,
            )  # fmt: skip
            ran, problems = measured, list(measured.problems)
        except (TargetUnavailableError, SessionError) as error:  # of one bundle; the others may run
            problems = [str(error)]
        session = {} if measured is None else measured.session
        accuracy = of_artifact(known, session.get("target", ""), session.get("precision", ""))
        rows.append(_candidate(path, accuracy, measured, limit, problems))
    made = _report(rows, limit, ran)
    if report is not None:
        from .profiling.pareto import render

        write_file(Path(report), [render(made.to_dict(), limit.ms, limit.figure).encode()])
    return made


def _candidate(
    path: Path, accuracy: Accuracy, measured: Profile | None, limit: Budget, problems: list[str]
) -> Candidate:
    latency: dict[str, float] = {}
    if measured is not None:
        summary = measured.summary[TOTAL]
        latency = {name: float(getattr(summary, name)) for name in FIGURES}
    samples = list(measured.stages_ms[TOTAL]) if measured else []
    between = interval(samples, limit.figure) if samples else None
    holds = bool(latency) and latency[limit.figure] <= limit.ms
    with Bundle.read(path) as bundle:
        name = bundle.manifest.name
    return Candidate(
        path=str(path), name=name, size_bytes=path.stat().st_size, accuracy=accuracy,
        session=dict(measured.session) if measured else {}, latency_ms=latency,
        samples_ms=samples, interval_ms=between,
        holds=holds, surely=holds and (between is None or between[1] <= limit.ms), front=False, problems=problems,
    )  # fmt: skip


def _report(rows: Sequence[Candidate], limit: Budget, ran: Profile | None) -> PickReport:
    """Mark the front, choose, and order by accuracy."""
    accuracy = rows[0].accuracy  # metric, split and data are those of all
    measured = [row for row in rows if row.latency_ms]
    if ran is None:
        listed = "\n  ".join(f"{row.path}: {row.problems[0]}" for row in rows)
        raise TargetUnavailableError(f"none of the bundles runs there:\n  {listed}")
    points = {id(row): (row.latency_ms[limit.figure], row.accuracy.value) for row in measured}

    def beaten(row: Candidate) -> bool:
        ms, value = points[id(row)]
        others = (points[id(other)] for other in measured if other is not row)
        return any(a <= ms and b >= value and (a, b) != (ms, value) for a, b in others)

    marked = [
        Candidate(**{**vars(row), "front": bool(row.latency_ms) and not beaten(row)}) if row.latency_ms else row
        for row in rows
    ]
    marked.sort(key=lambda row: (-row.accuracy.value, row.latency_ms.get(limit.figure, float("inf"))))
    holding = [row for row in marked if row.holds]
    fastest = min((row for row in marked if row.latency_ms), key=lambda row: row.latency_ms[limit.figure])
    return PickReport(
        budget=str(limit), device=ran.device, machine=str(ran.machine.get("board") or ran.machine["processor"]),
        metric=accuracy.metric, split=accuracy.split, data_sha256=accuracy.data_sha256,
        chosen=holding[0].path if holding else None, closest=None if holding else fastest.path,
        over_ms=0.0 if holding else fastest.latency_ms[limit.figure] - limit.ms, candidates=tuple(marked),
    )  # fmt: skip
