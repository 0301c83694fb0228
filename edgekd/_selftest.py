"""`selftest`: everything about a target that only the machine itself can prove, in one call, kept as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._bundle import Bundle
from ._container import check_place, write_file
from ._detector import Detector, DetectorInfo
from ._doctor import doctor
from ._select import all_artifacts, how_to_add
from ._session import BareSession, PipelineSession
from ._target import CompilingTarget, load_target
from ._verify import check_artifact, golden_samples
from .errors import BundleError, EdgekdError, TargetUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ._detections import Detections
    from ._doctor import Health
    from ._manifest import Artifact
    from ._selftest_board import Outcome
    from ._session import Outputs, Session, SessionInfo
    from ._target import Progress, Target

SIZES = (  # height, width, channels
    (1, 1, 3), (17, 999, 3), (999, 17, 3), (240, 321, 1), (480, 640, 4), (1080, 1920, 3),
)  # fmt: skip
THREADS, CALLS = 4, 20
SETTLE = 20  # frames before memory and latency are measured
GROWTH_BYTES = 8 << 20
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class SelftestCheck:
    """One thing that was tried.

    Attributes:
        precision: of the artifact.
        name: start, golden, pipeline, repeat, threads, memory or latency; close where that failed. Of a target that
            compiles on the board also build, outside, export and dla.
        status: "passed", "failed" or "skipped".
        detail: one sentence with the figures, or why it failed or was skipped.
        samples_ms: of "start", "latency" and "outside", every measured time.
        figures: by name, which ends in the unit where there is one: _ms, _s, _mib, _px.
    """

    precision: str
    name: str
    status: str
    detail: str
    samples_ms: tuple[float, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SelftestReport:
    """What `selftest` found.

    Attributes:
        path: of the bundle.
        digest: SHA-256 of its table of contents.
        target: that was tried.
        date: UTC.
        health: what `doctor` says of the machine.
        sessions: what ran, one a precision.
        checks: in the order they were made.
    """

    path: str
    digest: str
    target: str
    date: str
    health: Health
    sessions: tuple[SessionInfo, ...]
    checks: tuple[SelftestCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(item.status != FAILED for item in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**dataclasses.asdict(self), "health": self.health.to_dict(), "passed": self.passed}


def selftest(
    path: str | Path,
    *,
    target: str,
    device: str = "auto",
    frames: int = 300,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> SelftestReport:
    """Try every artifact of one target on this machine: results, threads, memory and latency.

    Of a target that compiles on the board (TensorRT) also what a build takes, what `predict` takes longer than the bare
    engine, the engine of `export`, and the DLA where there is one.

    Args:
        path: `model.bin` with a golden set.
        target: its name.
        device: as `edgekd.load` takes it, of this target.
        frames: that latency and memory are measured over, at least 1.
        out: JSON file to write; None: none.
        progress: told each check.

    Returns:
        The report; failed checks are part of it.

    Raises:
        BundleError: not a sound bundle, no golden set, or `out` cannot be written.
        UsageError: no such target, the bundle has nothing for it, `frames` is less than 1, or no place for `out`.
        TargetUnavailableError: the target cannot run here; says why.
    """
    if frames < 1:
        raise UsageError(f"frames should be at least 1, got {frames}")
    if out is not None:
        check_place(Path(out))
    tell = progress or (lambda _: None)
    module = load_target(target)
    with Bundle.read(path) as bundle:
        if not bundle.manifest.golden:
            raise BundleError(f"{path} has no golden set to test with; `edgekd train` and `edgekd distill` write one")
        artifacts = [item for item in all_artifacts(bundle) if item.target == target]
        if not artifacts:
            raise UsageError(f"{path} has nothing for {target}. {how_to_add(bundle, f'--target {target}')}")
        reason = module.probe()
        if reason is not None:
            raise TargetUnavailableError(f"{target} cannot run here: {reason}")
        trials = [_Trial(bundle, module, artifact, device, frames, tell) for artifact in artifacts]
        checks = tuple(check for trial in trials for check in trial.checks())
        date = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        sessions = tuple(trial.info for trial in trials if trial.info is not None)
        report = SelftestReport(str(path), bundle.digest, target, date, doctor(), sessions, checks)
    if out is not None:
        write_file(Path(out), [json.dumps(report.to_dict(), indent=1).encode()])
    return report


class _OnTheHost:
    """A session without its pipeline, so that a detector letterboxes and suppresses on the host."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.info = session.info
        self.parallel = session.parallel

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        return self._session.infer(pixels, out)

    def close(self) -> None:
        """Nothing: the other detector owns the session."""


class _Trial:
    """The checks of one artifact."""

    def __init__(
        self, bundle: Bundle, module: Target, artifact: Artifact, device: str, frames: int, tell: Progress
    ) -> None:
        self.info: SessionInfo | None = None
        self._p50_ms: float | None = None
        self._bundle, self._module, self._artifact = bundle, module, artifact
        self._device, self._frames, self._tell = device, frames, tell
        self._pictures = [bytes(bundle.chunk(item.image)) for item in bundle.manifest.golden]

    def checks(self) -> Iterator[SelftestCheck]:
        """Try everything; an error ends what it happens in as failed.

        Any error, not edgekd's alone: it is on a machine that nobody has seen that a driver or a vendor's package does
        what nobody expected, and then the JSON is what is wanted.
        """
        module = self._module
        if not isinstance(module, CompilingTarget):
            yield from self._started()
            return
        from . import _selftest_board as board

        what = self._bundle, self._artifact
        # First, as long as nothing that a build loads lies in the memory; what was never tried by anybody last.
        yield self._try("build", lambda: self._of("build", board.built(module, *what, self._device)))
        yield from self._started()
        if self.info is not None:
            yield self._try("export", lambda: self._of("export", board.exported(module, *what, self._device)))
            yield self._try("dla", lambda: self._of("dla", board.offloaded(module, *what)))

    def _started(self) -> Iterator[SelftestCheck]:
        """Start, try, close."""
        self._tell(f"{self._artifact.target} {self._artifact.precision}: start")
        starts: list[float] = []
        session: Session | None = None
        try:
            for _ in range(2):  # the second finds what the first kept
                if session is not None:
                    session.close()
                begin = time.perf_counter()
                session = self._module.load(self._bundle, self._artifact, device=self._device)
                starts.append(1e3 * (time.perf_counter() - begin))
        except Exception as error:
            yield self._said("start", FAILED, _words(error), starts)
            return
        assert session is not None
        self.info = session.info
        figures = {"first_ms": starts[0], "again_ms": starts[1]}
        detail = f"{starts[0]:.0f} ms, again {starts[1]:.0f} ms: {session.info.runtime}"
        yield self._said("start", PASSED, detail, starts, figures)
        detector = Detector(self._bundle.manifest, session, DetectorInfo(session.info, "selftest"))
        host = Detector(self._bundle.manifest, _OnTheHost(session), detector.info)
        checks: dict[str, Callable[[], SelftestCheck]] = {
            "golden": self._golden,
            "pipeline": lambda: self._pipeline(detector, host, session),
            "repeat": lambda: self._repeat(detector),
            "threads": lambda: self._threads(detector),
            "memory": lambda: self._memory(detector),
            "latency": lambda: self._latency(detector),
        }
        if isinstance(session, BareSession):
            checks["outside"] = lambda: self._outside(session)
        try:
            with detector:
                for name, check in checks.items():
                    yield self._try(name, check)
        except Exception as error:  # a GPU after a fault frees nothing any more
            yield self._said("close", FAILED, _words(error))

    def _try(self, name: str, check: Callable[[], SelftestCheck]) -> SelftestCheck:
        self._tell(f"{self._artifact.target} {self._artifact.precision}: {name}")
        try:
            return check()
        except Exception as error:
            return self._said(name, FAILED, _words(error))

    def _said(
        self,
        name: str,
        status: str,
        detail: str,
        samples: Sequence[float] = (),
        figures: Mapping[str, float] | None = None,
    ) -> SelftestCheck:
        kept = tuple(round(value, 4) for value in samples)
        return SelftestCheck(self._artifact.precision, name, status, detail, kept, dict(figures or {}))

    def _of(self, name: str, outcome: Outcome) -> SelftestCheck:
        return self._said(name, outcome.status, outcome.detail, outcome.samples_ms, outcome.figures)

    def _golden(self) -> SelftestCheck:
        found = check_artifact(self._bundle, self._artifact, golden_samples(self._bundle), device=self._device)
        if found.score_difference is None:
            return self._said("golden", FAILED, found.reason)
        detail = f"scores within {found.score_difference:.1e}"
        if found.box_difference_px is not None:
            detail += f", boxes within {found.box_difference_px:.4f} px"
        if found.map_difference is not None:
            detail += f", maps within {found.map_difference:.1e}"
        status = FAILED if found.status == FAILED else PASSED
        names = ("score_difference", "box_difference_px", "map_difference")
        figures = {name: getattr(found, name) for name in names if getattr(found, name) is not None}
        return self._said("golden", status, f"{detail}{'; ' if found.reason else ''}{found.reason}", figures=figures)

    def _pipeline(self, detector: Detector, host: Detector, session: Session) -> SelftestCheck:
        """Compare the session's own pipeline with the host's around the same engine, to the bit."""
        if not isinstance(session, PipelineSession) or self._bundle.manifest.task != "detect":
            return self._said("pipeline", SKIPPED, "the host places images and takes the outputs apart")
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, size).astype(np.uint8) for size in SIZES]
        found = 0
        pictures: list[Any] = [*self._pictures, *noise]
        with _warnings() as said:
            for picture in pictures:
                expected = host.predict(picture, conf=0.01)
                for turn in ("queued", "captured", "replayed"):
                    if not _same(detector.predict(picture, conf=0.01), expected):
                        size = "x".join(map(str, expected.image_size))
                        detail = f"{turn}, a picture of {size} pixels differs from the host's"
                        return self._said("pipeline", FAILED, detail)
                found += len(expected)
        detail = f"the host's bits on {len(pictures)} pictures with {found} objects"
        figures = {"pictures": len(pictures), "objects": found, "warnings": len(said)}
        return self._said("pipeline", PASSED, "; ".join([detail, *dict.fromkeys(said)]), figures=figures)

    def _repeat(self, detector: Detector) -> SelftestCheck:
        first = detector.predict(self._pictures[0])
        for turn in range(self._frames):
            if not _same(detector.predict(self._pictures[0]), first):
                return self._said("repeat", FAILED, f"call {turn + 2} on one picture gives something else")
        return self._said("repeat", PASSED, f"{self._frames} calls give the same bits", figures={"calls": self._frames})

    def _threads(self, detector: Detector) -> SelftestCheck:
        expected = [detector.predict(picture) for picture in self._pictures]
        problems: list[str] = []

        def work(index: int) -> None:
            try:
                for turn in range(CALLS):
                    which = (index + turn) % len(expected)
                    if not _same(detector.predict(self._pictures[which]), expected[which]):
                        problems.append(f"thread {index} got another picture's result, or a wrong one")
            except Exception as error:
                problems.append(_words(error))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        detail = problems[0] if problems else f"{THREADS} threads, {CALLS} calls each, the same bits"
        figures = {"threads": THREADS, "calls": THREADS * CALLS, "problems": len(problems)}
        return self._said("threads", FAILED if problems else PASSED, detail, figures=figures)

    def _memory(self, detector: Detector) -> SelftestCheck:
        from ._selftest_board import STATM, resident_bytes

        if not STATM.is_file():
            return self._said("memory", SKIPPED, "this system has no /proc/self/statm")
        for _ in range(SETTLE):
            detector.predict(self._pictures[0])
        before = resident_bytes()
        for _ in range(self._frames):
            detector.predict(self._pictures[0])
        growth = resident_bytes() - before
        detail = f"{growth / 2**20:+.2f} MiB over {self._frames} frames; at most {GROWTH_BYTES / 2**20:.0f} MiB"
        figures = {"growth_mib": growth / 2**20, "most_mib": GROWTH_BYTES / 2**20, "frames": self._frames}
        return self._said("memory", PASSED if growth <= GROWTH_BYTES else FAILED, detail, figures=figures)

    def _latency(self, detector: Detector) -> SelftestCheck:
        """Time a frame of the network's own size; a figure, no verdict."""
        spec = self._bundle.manifest.input
        frame = np.random.default_rng(1).integers(0, 256, (spec.height, spec.width, 3)).astype(np.uint8)
        samples = []
        for _ in range(SETTLE + self._frames):
            begin = time.perf_counter()
            detector.predict(frame)
            samples.append(1e3 * (time.perf_counter() - begin))
        samples = samples[SETTLE:]
        p50, p95, p99 = np.percentile(samples, [50, 95, 99])
        detail = f"p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms for {spec.width}x{spec.height} pixels"
        self._p50_ms = float(p50)
        figures = {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "p99_to_p50": float(p99 / p50)}
        return self._said("latency", PASSED, detail, samples, {name: round(v, 4) for name, v in figures.items()})

    def _outside(self, session: BareSession) -> SelftestCheck:
        """Compare the latency of `predict` with the bare engine's."""
        from ._selftest_board import outside

        if self._p50_ms is None:
            return self._said("outside", SKIPPED, "there is no latency to compare with")
        pixels = golden_samples(self._bundle)[0][0]
        return self._of("outside", outside(session, self._p50_ms, pixels, SETTLE + self._frames))


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what edgekd warns of meanwhile: a pipeline that a CUDA graph cannot hold gives the right bits too."""
    import logging

    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("edgekd")
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, EdgekdError) else f"{type(error).__name__}: {error}"


def _same(one: Detections, other: Detections) -> bool:
    pairs = ((one.boxes, other.boxes), (one.scores, other.scores), (one.labels, other.labels))
    return all(np.array_equal(a, b) for a, b in pairs)
