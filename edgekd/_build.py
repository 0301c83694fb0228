"""`build`: compile a bundle's portable graph for targets, and keep what agrees with the golden set."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bundle import Bundle
from ._container import check_place
from ._int8.options import Calibration
from ._manifest import Artifact
from ._receipts import QUANTIZED
from ._target import load_target, target_names
from ._verify import check_artifact, golden_samples
from .errors import BuildError, BundleError, EdgekdError, GateError, TargetUnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._int8.judged import Judge
    from ._manifest import Manifest
    from ._target import Built, Progress
    from ._verify import ArtifactReport, Samples

    Builder = Callable[[Bundle, "Pair", Samples, Progress], tuple[Bundle, "BuiltArtifact | BuildError | GateError"]]

EXACT = "fp32"
STAND_IN = "reference"

Pair = tuple[str, str]
"""A target and a precision."""


@dataclass(frozen=True)
class BuiltArtifact:
    """One artifact that `build` made.

    Attributes:
        target: of the artifact.
        precision: of the artifact.
        size_bytes: of its files together; 0 where the portable graph is what runs.
        build_s: seconds the target took.
        parity: its differences from the golden set; status "skipped", with the reason, where it cannot run here;
            "judged" where they exceed its precision's bound and it finds the same on validation images.
        receipt: of int8: what it lost, which layers stay in floating point, how fast it is; of what was judged: its
            gates; None for others.
    """

    target: str
    precision: str
    size_bytes: int
    build_s: float
    parity: ArtifactReport
    receipt: dict[str, Any] | None = None


@dataclass(frozen=True)
class BuildReport:
    """What `build` did.

    Attributes:
        path: the bundle that was written.
        size_bytes: of that file.
        artifacts: what was built, in the order asked for.
        unavailable: with targets="all", why each of the others was left out, by target.
        signature_dropped: whether the bundle was signed; new contents need a new signature.
    """

    path: str
    size_bytes: int
    artifacts: tuple[BuiltArtifact, ...]
    unavailable: dict[str, str]
    signature_dropped: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        report = dataclasses.asdict(self)
        return {**report, "artifacts": list(report["artifacts"])}


def build(
    path: str | Path,
    *,
    targets: str | Sequence[str],
    precisions: Sequence[str] = ("fp32",),
    out: str | Path | None = None,
    calibration: Calibration | None = None,
    report: str | Path | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build a bundle for targets and write it, in place or to `out`, atomically.

    Every artifact that can run here is compared with the golden set before it is kept (the bounds of `verify`). What
    fails is left out, what passes is written, and then the failures raise.

    int8 is calibrated on training images and judged on validation images: where it loses more than `calibration`
    allows, the fewest layers go back to floating point until it does not; where that does not help it is left out.
    Where `calibration` is given, fp16 and w8a32 that exceed the golden set's bound are judged by the same gates.

    Args:
        path: `model.bin`.
        targets: names, or "all": every target that can build here and needs building.
        precisions: each is built for each target.
        out: the file to write; None: `path` is replaced.
        calibration: images and bounds; None: of int8 those that the bundle's recipe names, and the usual bounds; what
            else fails the golden set is left out.
        report: HTML page to write about int8: layers, gates, shifts, latencies.
        progress: told one short line a stage.

    Returns:
        Sizes, seconds and differences.

    Raises:
        BundleError: not a sound bundle, or it has no golden set.
        UsageError: no such target, or a precision that one of them does not have; `calibration` for fp32 alone,
            `report` without int8; images that may not calibrate or judge; a folder of `out` or `report` that is not
            there. Nothing was built.
        DataError: the sets of images cannot be read; nothing was built.
        TargetUnavailableError: a target named cannot build here; nothing was built.
        GateError: an artifact differs too much from the golden set, or could not be judged; the others were written.
        BuildError: a vendor's compiler refused the graph; the other artifacts were written.
    """
    tell = progress or (lambda _: None)
    pairs, unavailable = _plan(targets, precisions)
    wants_int8 = any(precision in QUANTIZED for _, precision in pairs)
    if report is not None and not wants_int8:
        raise UsageError("report is for int8: ask for it (--precision int8)")
    if calibration is not None and all(precision == EXACT for _, precision in pairs):
        raise UsageError("calibration is for int8, and to judge fp16 and w8a32: ask for one of them (--precision int8)")
    with Bundle.read(path) as bundle:
        if bundle.manifest.graph is None:
            raise BundleError(bundle.why_no_graph())
        if not bundle.manifest.golden:
            raise BundleError(f"{path} has no golden set to check a build with; `edgekd train` and `distill` write one")
        destination, page = Path(path if out is None else out), None if report is None else Path(report)
        for place in (destination, *([] if page is None else [page])):
            check_place(place)
        builders = _builders(bundle, {precision for _, precision in pairs}, calibration, page, tell)
        samples = golden_samples(bundle)
        current, done, problems = bundle, [], []
        for pair in pairs:
            candidate, result = builders[pair[1]](current, pair, samples, tell)
            if isinstance(result, BuiltArtifact):
                current = candidate
                done.append(result)
            else:
                problems.append(result)
        if done:
            current.write(destination)
    if problems:
        kept = f"; {destination} was written with {_listed(done)}" if done else "; nothing was written"
        kind = BuildError if any(isinstance(item, BuildError) for item in problems) else GateError
        raise kind("\n  ".join(str(item) for item in problems) + kept)
    return BuildReport(
        str(destination), destination.stat().st_size, tuple(done), unavailable, bundle.signature is not None
    )


def _builders(
    bundle: Bundle, precisions: set[str], calibration: Calibration | None, page: Path | None, tell: Progress
) -> dict[str, Builder]:
    """Return what builds each precision. All images are looked at here: they may be refused, and nothing is built yet.

    Raises:
        UsageError: images that may not calibrate or judge, or none are named.
        DataError: they cannot be read.
    """
    found: dict[str, Builder] = dict.fromkeys(precisions, build_one)
    judged = precisions - {EXACT, *QUANTIZED}
    if calibration is not None and judged:
        from ._int8.judged import Judge

        judge = Judge(bundle, calibration, tell)
        found |= dict.fromkeys(judged, functools.partial(build_one, judge=judge))
    quantized = precisions & set(QUANTIZED)
    if quantized:
        from ._int8.builder import Int8Builder

        int8 = Int8Builder(bundle, calibration or Calibration(), page, tell)
        found |= dict.fromkeys(quantized, int8.build_one)
    return found


def _plan(targets: str | Sequence[str], precisions: Sequence[str]) -> tuple[list[Pair], dict[str, str]]:
    """Return what to build, and why targets of "all" are left out."""
    names = [targets] if isinstance(targets, str) else list(dict.fromkeys(targets))
    wanted = list(dict.fromkeys(precisions))
    if not names or not wanted:
        raise UsageError(f"nothing to build: name targets ({', '.join(target_names())}, or all) and precisions")
    if names == ["all"]:
        return _plan_all(wanted)
    for name in names:
        offered = load_target(name).PRECISIONS
        for precision in wanted:
            if precision not in offered:
                raise UsageError(f"{name} has no precision {precision!r}; possible: {', '.join(offered)}")
    for name in names:
        reason = load_target(name).probe_build()
        if reason is not None:
            raise TargetUnavailableError(f"cannot build for {name} here: {reason}")
    return [(name, precision) for name in names for precision in wanted], {}


def _plan_all(wanted: Sequence[str]) -> tuple[list[Pair], dict[str, str]]:
    offered = {name: load_target(name).PRECISIONS for name in target_names()}
    for precision in wanted:
        if not any(precision in precisions for precisions in offered.values()):
            listed = "\n  ".join(f"{name}: {', '.join(precisions)}" for name, precisions in offered.items())
            raise UsageError(f"no target has the precision {precision}; possible:\n  {listed}")
    left_out = {name: _reason_to_leave_out(name, wanted) for name in offered}
    unavailable = {name: reason for name, reason in left_out.items() if reason is not None}
    pairs = [
        (name, precision)
        for name, precisions in offered.items()
        for precision in wanted
        if name not in unavailable and precision in precisions
    ]
    if not pairs:
        listed = "\n  ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise TargetUnavailableError(f"no target can build {', '.join(wanted)} here:\n  {listed}")
    return pairs, unavailable


def _reason_to_leave_out(name: str, wanted: Sequence[str]) -> str | None:
    target = load_target(name)
    if target.PORTABLE:
        return "runs the portable graph as it is; there is nothing to build"
    if not set(wanted) & set(target.PRECISIONS):
        return f"has only {', '.join(target.PRECISIONS)}"
    return target.probe_build()


def build_one(
    bundle: Bundle, pair: Pair, samples: Samples, tell: Progress, judge: Judge | None = None
) -> tuple[Bundle, BuiltArtifact | BuildError | GateError]:
    """Return the bundle with the new artifact and its row, or the bundle as it was and what went wrong."""
    target, precision = pair
    start = time.perf_counter()
    try:
        built = load_target(target).build(bundle, precision, tell)
    except BuildError as error:
        tell(f"{target} {precision}: refused")
        return bundle, BuildError(f"{target} {precision}: {error}")
    seconds = time.perf_counter() - start
    candidate, artifact = with_artifact(bundle, pair, built)
    parity = check_artifact(candidate, artifact, samples)
    golden = parity if parity.status != "skipped" else _by_stand_in(candidate, artifact, built, samples, parity)
    receipt = None
    if golden.status == "failed":
        try:
            receipt = _judged(judge, pair, built, golden)
        except EdgekdError as error:  # images that cannot be read, an engine that gives up: the others are kept
            tell(f"{target} {precision}: failed the golden set")
            return bundle, GateError(f"{target} {precision} failed the golden set: {golden.reason}; {error}")
        candidate = candidate.replace(_with_row(candidate.manifest, receipt))
        if parity.status == "failed":
            parity = dataclasses.replace(parity, status="judged", reason="")
    size = sum(len(content) for content in built.files.values())
    row = BuiltArtifact(target, precision, size, seconds, parity, receipt)
    tell(f"{target} {precision}: {parity.status}")
    return candidate.replace(with_receipts(candidate.manifest, row)), row


def _by_stand_in(
    bundle: Bundle, artifact: Artifact, built: Built, samples: Samples, parity: ArtifactReport
) -> ArtifactReport:
    """Return how what rounds alike fares on the golden set, where the target itself cannot run."""
    if built.stand_in is None:
        return parity
    whole = bundle.replace(add={str(bundle.manifest.graph): built.stand_in})
    return check_artifact(whole, Artifact(target=STAND_IN, precision=artifact.precision, files={}), samples)


def _judged(judge: Judge | None, pair: Pair, built: Built, golden: ArtifactReport) -> dict[str, Any]:
    """Return the receipt of an artifact that the golden set refuses and validation images do not."""
    if pair[1] == EXACT:
        raise GateError("build it again, or report it: in float32 it should be the same network")
    if not golden.measured:  # a network that breaks on one image is not saved by those on which it does not
        raise GateError("what does not run, or gives what is not finite, is not judged on other images")
    if judge is None:
        raise GateError("to judge it by AP, scores and decisions on validation images: --val DATA")
    return judge.receipt(*pair, built, golden)


def with_artifact(bundle: Bundle, pair: Pair, built: Built) -> tuple[Bundle, Artifact]:
    """Return the bundle with a new artifact instead of the one it may have for the same target and precision."""
    artifact = artifact_of(pair, built)
    others = tuple(item for item in bundle.manifest.artifacts if (item.target, item.precision) != pair)
    rows = tuple(row for row in bundle.manifest.receipts if not _judges(row, pair))
    manifest = dataclasses.replace(bundle.manifest, artifacts=(*others, artifact), receipts=rows)
    still_named = {name for item in manifest.artifacts for name in item.files.values()}
    stale = [name for item in bundle.manifest.artifacts for name in item.files.values() if name not in still_named]
    return bundle.replace(manifest, chunks_of(artifact, built), stale), artifact


def artifact_of(pair: Pair, built: Built) -> Artifact:
    """Return what a manifest says of what a target has built."""
    files = {name: "/".join(("artifacts", *pair, name)) for name in built.files}
    return Artifact(
        target=pair[0], precision=pair[1], files=files, options=dict(built.options), tools=dict(built.tools)
    )


def chunks_of(artifact: Artifact, built: Built) -> dict[str, bytes]:
    """Return the chunks of an artifact, by name."""
    return {artifact.files[name]: content for name, content in built.files.items()}


def _judges(row: dict[str, Any], pair: Pair) -> bool:
    return "judgement" in row and (row.get("target"), row.get("precision")) == pair


def _with_row(manifest: Manifest, row: dict[str, Any]) -> Manifest:
    return dataclasses.replace(manifest, receipts=(*manifest.receipts, row))


def with_receipts(manifest: Manifest, row: BuiltArtifact) -> Manifest:
    """Return the manifest with the measured differences among its receipts, in place of older ones of this artifact."""
    about = {"target": row.target, "precision": row.precision}
    others = [
        item
        for item in manifest.receipts
        if not (item["what"].startswith("parity ") and all(item.get(key) == value for key, value in about.items()))
    ]
    found = {
        "parity score difference": (row.parity.score_difference, "score"),
        "parity box difference": (row.parity.box_difference_px, "px"),
        "parity map difference": (row.parity.map_difference, "1 - cosine"),
    }
    session = row.parity.session
    where = {
        **about,
        "compute": session.compute if session else "",
        "runtime": session.runtime if session else "",
        "machine": platform.machine(),
        "date": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    new = [
        {"what": what, "value": value, "unit": unit, **where}
        for what, (value, unit) in found.items()
        if value is not None
    ]
    return dataclasses.replace(manifest, receipts=(*others, *new))


def _listed(rows: Sequence[BuiltArtifact]) -> str:
    return ", ".join(f"{row.target} {row.precision}" for row in rows)
