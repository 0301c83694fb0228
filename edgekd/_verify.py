"""`verify`: run the golden set on every artifact that can run here, and compare with the reference outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._box_difference import BoxDifference, box_difference, worse
from ._bundle import Bundle
from ._decisions import Decisions, compare, compare_verdicts
from ._golden import golden_outputs, golden_pixels
from ._receipts import QUANTIZED, golden_when_judged, int8_receipt, needs_receipt
from ._select import all_artifacts, how_to_add
from ._target import load_target, target_names
from .errors import BundleError, EdgekdError, HostError, SessionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ._manifest import Artifact, Manifest, OutputSpec, Suppression
    from ._session import Outputs, Session, SessionInfo

Samples = list[tuple["NDArray[np.float32]", "Outputs"]]
"""The golden set: network input `(1, 3, H, W)` and reference outputs."""


@dataclass(frozen=True)
class Tolerance:
    """What one precision may lose against the fp32 reference.

    Attributes:
        score: largest difference of any score of any row.
        box_px: largest difference of a box coordinate, in network pixels; of an oriented box: of a corner's x or y.
        all_rows: whether `box_px` holds for every row, or only for those that score above `conf` in either run.
    """

    score: float
    box_px: float
    all_rows: bool

    def second(self) -> str:
        """Return the bound of boxes, in words."""
        return f"{self.box_px:g}, {'all rows' if self.all_rows else 'detected rows'}"


TOLERANCES = {
    "fp32": Tolerance(1e-3, 0.5, all_rows=True),
    "fp16": Tolerance(1e-2, 1.0, all_rows=False),
    "bf16": Tolerance(1e-2, 1.0, all_rows=False),
    "w8a32": Tolerance(2e-2, 2.0, all_rows=False),  # weights lose 8 bits of 24; as much of a score as int8 may shift
}


INT8_SHIFT = 0.02  # of a score, that makes another decision of int8 borderline: what its gate allows on average


@dataclass(frozen=True)
class MapTolerance:
    """What one precision of an anomaly network may lose against the fp32 reference.

    Attributes:
        score: largest difference of an image's raw score.
        map: largest difference of any place of the raw map, which is a sum of 1 - cosine over the scales.
    """

    score: float
    map: float

    def second(self) -> str:
        """Return the bound of maps, in words."""
        return f"{self.map:g}"

    def times(self, share: float) -> MapTolerance:
        """Return a part of both bounds."""
        return MapTolerance(self.score * share, self.map * share)


MAP_TOLERANCES = {
    "fp32": MapTolerance(1e-3, 1e-3),
    "fp16": MapTolerance(1e-2, 2e-2),
    "bf16": MapTolerance(1e-2, 2e-2),
    "w8a32": MapTolerance(5e-2, 5e-2),
}
USUAL_SPAN = 0.1  # of normal images' scores, up to the threshold: ten times what fp16 may change


@dataclass(frozen=True)
class ArtifactReport:
    """What `verify` found out about one artifact.

    Attributes:
        target: of the artifact.
        precision: of the artifact.
        status: "passed", "failed", "skipped" (cannot run here) or "reported" (ran; its precision has no bound).
        reason: why it failed or was skipped; empty if it passed.
        tolerance: the bounds for its precision; None if there are none, or what was measured at the build is the bound.
        session: what ran, or None.
        score_difference: largest over all images, rows and classes; None if it did not run.
        map_difference: largest over all images and places of an anomaly network's raw map; None for detectors.
        box_difference_px: largest over the rows that the bound covers, in network pixels; None if it did not run, and
            for anomaly networks. Oriented boxes are compared as rectangles, see
            `edgekd.geometry.box_distances`.
        worst_box: where that was and what it is made of; None if no row counted or it did not run.
        decisions: keep-lists, or an anomaly network's verdicts, at the manifest's thresholds, all images together; None
            if it did not run.
    """

    target: str
    precision: str
    status: str
    reason: str = ""
    tolerance: Tolerance | MapTolerance | None = None
    session: SessionInfo | None = None
    score_difference: float | None = None
    map_difference: float | None = None
    box_difference_px: float | None = None
    worst_box: BoxDifference | None = None
    decisions: Decisions | None = None

    @property
    def measured(self) -> bool:
        """Whether it ran and every difference is a number: without one, nothing can be compared with it later."""
        found = (self.score_difference, self.box_difference_px, self.map_difference)
        ran = self.score_difference is not None
        return ran and all(value is None or math.isfinite(value) for value in found)


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found out.

    Attributes:
        name: of the model.
        digest: SHA-256 of the bundle's table of contents.
        signed_by: id of the trusted key that signed it; None if no keys were given.
        images: of the golden set.
        artifacts: one report each.
    """

    name: str
    digest: str
    signed_by: str | None
    images: int
    artifacts: tuple[ArtifactReport, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing that ran failed."""
        return all(item.status != "failed" for item in self.artifacts)

    @property
    def ran(self) -> int:
        """How many artifacts ran or tried to."""
        return sum(item.status != "skipped" for item in self.artifacts)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; differences that are not finite become None."""
        report: dict[str, Any] = _finite(dataclasses.asdict(self))
        return {**report, "passed": self.passed, "ran": self.ran}


def _finite(value: Any) -> Any:
    """Return nested dictionaries and lists with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def verify(
    path: str | Path, targets: Sequence[str] | None = None, *, public_keys: Sequence[bytes | str] = ()
) -> VerifyReport:
    """Run the golden set of a bundle on every artifact that can run here.

    Scores must lie within 1e-3 (fp32) or 1e-2 (fp16, bf16) of the reference, box coordinates within 0.5 px in every row
    (fp32) or 1 px in rows above `conf` (fp16, bf16), and the keep-lists at the manifest's thresholds must agree but for
    borderline rows (see `edgekd/_decisions.py`). Of oriented boxes the corners are compared, however the rectangle is
    written. Of anomaly networks raw scores must lie within 1e-3 (fp32) or 1e-2 (fp16, bf16), raw maps within 1e-3 or
    2e-2, less where normal images' scores span less than 0.1 up to the threshold, and the verdicts must agree but for
    scores that close to the threshold. int8 artifacts are held to what their receipt says of the golden set, and fail
    without a passing one.

    Args:
        path: `model.bin`.
        targets: only these; None: all that the bundle has, and those that run the portable graph as it is.
        public_keys: trusted Ed25519 keys (PEM or 32 raw bytes), one of which must have signed; empty: not asked.

    Raises:
        BundleError: the file is not a sound bundle, or has no golden set.
        SignatureError: `public_keys` were given and none of them signed the bundle.
        UsageError: a target is unknown, or the bundle has nothing for it.
    """
    with Bundle.read(path) as bundle:
        signed_by = bundle.verify_signature(public_keys) if public_keys else None
        if not bundle.manifest.golden:
            raise BundleError(f"{path} has no golden set to verify with; `edgekd train` and `edgekd distill` write one")
        artifacts = _wanted(bundle, targets)
        samples = golden_samples(bundle)
        reports = tuple(check_artifact(bundle, artifact, samples) for artifact in artifacts)
        return VerifyReport(bundle.manifest.name, bundle.digest, signed_by, len(samples), reports)


def _wanted(bundle: Bundle, targets: Sequence[str] | None) -> list[Artifact]:
    artifacts = all_artifacts(bundle)
    if targets is None:
        return artifacts
    for name in targets:
        load_target(name)
        if not any(item.target == name for item in artifacts):
            have = ", ".join(f"{item.target} {item.precision}" for item in artifacts)
            raise UsageError(
                f"{bundle.path} has nothing for the target {name}; it has: {have}. "
                + how_to_add(bundle, f"--target {name}")
            )
    return [item for item in artifacts if item.target in targets]


def golden_samples(bundle: Bundle) -> Samples:
    """Return the golden set as `check_artifact` takes it."""
    return [(golden_pixels(bundle, item), golden_outputs(bundle, item)) for item in bundle.manifest.golden]


def check_artifact(
    bundle: Bundle, artifact: Artifact, samples: Samples, *, device: str = "auto", cache: Path | None = None
) -> ArtifactReport:
    """Run one artifact on the golden set and judge it; what goes wrong with it is part of the report."""
    report = measure_artifact(bundle, artifact, samples, device=device, cache=cache)
    if report.status != "reported":
        return report
    share = _share(bundle.manifest)
    if needs_receipt(artifact):
        return _judged_by_receipt(report, bundle.manifest, share)
    golden = golden_when_judged(bundle.manifest, artifact)
    return _judged(report) if golden is None else _as_when_judged(report, golden, share)


def _share(manifest: Manifest) -> float:
    """Return what part of the usual bounds an anomaly network may lose: scores of STFPM, products, span thousandths."""
    limits = manifest.thresholds
    span = USUAL_SPAN if limits is None else limits.image - limits.low
    return min(1.0, span / USUAL_SPAN) if span > 0 else 1.0


def measure_artifact(
    bundle: Bundle, artifact: Artifact, samples: Samples, *, device: str = "auto", cache: Path | None = None
) -> ArtifactReport:
    """Run one artifact on the golden set: "reported", with the differences and no verdict; "skipped"; or "failed"."""
    tolerance: Tolerance | MapTolerance | None = TOLERANCES.get(artifact.precision)
    if bundle.manifest.thresholds is not None:
        usual = MAP_TOLERANCES.get(artifact.precision)
        tolerance = None if usual is None else usual.times(_share(bundle.manifest))
    skipped = ArtifactReport(artifact.target, artifact.precision, "skipped", "", tolerance)
    if artifact.target not in target_names():
        return dataclasses.replace(skipped, reason=f"this edgekd has no target {artifact.target!r}")
    target = load_target(artifact.target)
    problem = target.probe()
    if problem is not None:
        return dataclasses.replace(skipped, reason=problem)
    try:
        where: dict[str, Any] = {} if cache is None else {"cache": cache}
        with contextlib.closing(target.load(bundle, artifact, device=device, **where)) as session:
            measured = _measured if bundle.manifest.thresholds is None else _measured_maps
            return measured(skipped, bundle.manifest, session, samples)
    except HostError as error:
        return dataclasses.replace(skipped, reason=str(error))
    except EdgekdError as error:
        return dataclasses.replace(skipped, status="failed", reason=str(error))


def _measured(report: ArtifactReport, manifest: Manifest, session: Session, samples: Samples) -> ArtifactReport:
    """Return the report with the differences over the golden set; the verdict is still open."""
    tolerance = report.tolerance
    if not isinstance(tolerance, Tolerance):
        shift = INT8_SHIFT if report.precision in QUANTIZED else 0.0
        tolerance = Tolerance(score=shift, box_px=0.0, all_rows=False)
    predict = manifest.predict
    score, worst = 0.0, None
    decisions = Decisions(0, 0, 0, 0)
    for image, (pixels, reference) in enumerate(samples):
        outputs = session.infer(pixels)
        _check_shapes(outputs, manifest.outputs)
        boxes, scores = reference[0][0], reference[1][0]
        other_boxes, other_scores = outputs[0][0], outputs[1][0]
        rows = _rows(scores, other_scores, predict, all_rows=tolerance.all_rows)
        worst = worse(worst, box_difference(boxes, other_boxes, rows, image))
        score = _larger(score, scores, other_scores)
        decisions += compare((boxes, scores), (other_boxes, other_scores), predict, tolerance.score)
    return dataclasses.replace(
        report, status="reported", session=session.info, score_difference=score,
        box_difference_px=0.0 if worst is None else worst.px, worst_box=worst, decisions=decisions,
    )  # fmt: skip


def _measured_maps(report: ArtifactReport, manifest: Manifest, session: Session, samples: Samples) -> ArtifactReport:
    """Return the report of an anomaly network with the differences over the golden set; the verdict is still open."""
    assert manifest.thresholds is not None
    threshold, tolerance = manifest.thresholds.image, report.tolerance.score if report.tolerance else 0.0
    largest = {"map": 0.0, "score": 0.0}
    decisions = Decisions(0, 0, 0, 0)
    for pixels, reference in samples:
        outputs = session.infer(pixels)
        _check_shapes(outputs, manifest.outputs)
        for spec, expected, got in zip(manifest.outputs, reference, outputs, strict=True):
            largest[spec.kind] = _larger(largest[spec.kind], expected, got)
        decisions += compare_verdicts(float(reference[1][0]), float(outputs[1][0]), threshold, tolerance)
    return dataclasses.replace(
        report, status="reported", session=session.info, score_difference=largest["score"],
        map_difference=largest["map"], decisions=decisions,
    )  # fmt: skip


def _check_shapes(outputs: Outputs, specs: Sequence[OutputSpec]) -> None:
    got, expected = [item.shape for item in outputs], [(1, *spec.shape) for spec in specs]
    if got != expected:
        raise SessionError(
            f"the artifact is of another network: its outputs have shapes {got}, the manifest says {expected}"
        )


def _rows(
    scores: NDArray[np.float32], other: NDArray[np.float32], predict: Suppression, *, all_rows: bool
) -> NDArray[np.bool_]:
    """Return the mask of rows whose boxes count."""
    best = np.maximum(scores.max(axis=1), other.max(axis=1))
    return np.ones(len(best), bool) if all_rows else ~(best <= predict.conf)  # a NaN counts


def _larger(so_far: float, reference: NDArray[np.float32], output: NDArray[np.float32]) -> float:
    """Return the larger of a difference and the largest of another pair; a NaN stays."""
    return float(np.maximum(so_far, np.abs(output.astype(np.float64) - reference).max(initial=0.0)))


def _judged_by_receipt(report: ArtifactReport, manifest: Manifest, share: float) -> ArtifactReport:
    """Return the report of an int8 artifact with its verdict: it must do here what it did where its gates held."""
    receipt = int8_receipt(manifest, report.target)
    if receipt is None:
        return dataclasses.replace(report, status="failed", reason=f"{report.precision} has no receipt to compare with")
    if not receipt.passed:
        return dataclasses.replace(report, status="failed", reason=f"{report.precision} failed its gates when built")
    return _as_when_judged(report, receipt.row["quantization"]["golden"], share)


def _as_when_judged(report: ArtifactReport, golden: Mapping[str, float | None], share: float) -> ArtifactReport:
    """Return the report with its verdict: on the golden set it must do here what it did where its gates held.

    Another chip rounds elsewhere, and errors of rounding are as large as those that were judged: half as much again is
    allowed, and what fp16 may lose.
    """
    found = {"score": report.score_difference, "box_px": report.box_difference_px, "map": report.map_difference}
    reasons = [] if golden["score"] is not None else ["its receipt says nothing of the golden set"]
    for name, unit, slack in (("score", "", 0.01 * share), ("box_px", " px", 1.0), ("map", "", 0.02 * share)):
        was, now = golden[name], found[name]
        if was is not None and now is not None and not now <= 1.5 * was + slack:
            reasons.append(f"{name} differs by {now:.3g}{unit} from the float network, by {was:.3g}{unit} when built")
    status = "failed" if reasons else "passed"
    return dataclasses.replace(report, status=status, reason="; ".join(reasons), tolerance=None)


def _judged(report: ArtifactReport) -> ArtifactReport:
    """Return the report with its verdict."""
    tolerance = report.tolerance
    if tolerance is None:
        return dataclasses.replace(report, reason=f"no bound is set for {report.precision}")
    reasons = []
    assert report.score_difference is not None
    assert report.decisions is not None
    if not report.score_difference <= tolerance.score:
        reasons.append(f"scores differ by {report.score_difference:.2g}, more than {tolerance.score:g}")
    if isinstance(tolerance, MapTolerance):
        assert report.map_difference is not None
        if not report.map_difference <= tolerance.map:
            reasons.append(f"maps differ by {report.map_difference:.2g}, more than {tolerance.map:g}")
    else:
        assert report.box_difference_px is not None
        if not report.box_difference_px <= tolerance.box_px:
            where = f" ({report.worst_box.described()})" if report.worst_box else ""
            reasons.append(f"boxes differ by {report.box_difference_px:.3g} px, more than {tolerance.box_px:g}{where}")
    if report.decisions.different:
        reasons.append(f"{report.decisions.different} decisions differ")
    return dataclasses.replace(report, status="failed" if reasons else "passed", reason="; ".join(reasons))
