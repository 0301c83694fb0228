"""Whether an int8 engine may ship: what it loses against the float network, on the same images, row by row.

Both are the same network, so row i of one is row i of the other, unless the graph picks its rows itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from .._decisions import Decisions, compare, compare_verdicts
from .._thresholds import calibrated
from .rows import aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._manifest import Manifest, Suppression
    from .._session import Outputs
    from .options import Bounds
    from .runs import Run


@dataclass(frozen=True)
class Gate:
    """One bound: it holds if the value is at most the bound, or, of "decisions", at least.

    Attributes:
        name: "AP drop", "score shift", ...
        value: measured; NaN never holds.
        bound: allowed.
        unit: of both.
        passed: whether it holds.
    """

    name: str
    value: float
    bound: float
    unit: str
    passed: bool

    def __str__(self) -> str:
        sign = "<=" if self.name != "decisions" else ">="
        value = f"{self.value:.3g} {self.unit}".rstrip()
        return f"{self.name} {value} (bound {sign} {self.bound:g})"


@dataclass(frozen=True)
class Judgement:
    """All gates of one engine.

    Attributes:
        gates: each bound.
        decisions: at the bundle's thresholds.
        shifts: `(M,)` float32: int8 score less float score, of what the float network finds; or of every image.
        refit: the confidence at which int8 finds as many objects as the float network at its own; or the score at which
            it calls as many images anomalous.
    """

    gates: tuple[Gate, ...]
    decisions: Decisions
    shifts: NDArray[np.float32]
    refit: float

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)


def judge(manifest: Manifest, reference: Run, other: Run, bounds: Bounds, *, picks_rows: bool = False) -> Judgement:
    """Compare an int8 run with the float network's on the same images.

    Args:
        manifest: of the network.
        reference: what the float network gives.
        other: what the other engine gives.
        bounds: of the gates.
        picks_rows: whether the graph picks its rows itself; then they are matched before they are compared.
    """
    if manifest.thresholds is not None:
        return _judge_verdicts(manifest, reference, other, bounds)
    predict = manifest.predict
    pairs = list(zip(reference.outputs, other.outputs, strict=True))
    if picks_rows:
        pairs = [(first, aligned(first, second)) for first, second in pairs]
    kept = [_kept(first, predict) for first, _ in pairs]
    decisions = Decisions(0, 0, 0, 0)
    for first, second in pairs:
        decisions += compare((first[0][0], first[1][0]), (second[0][0], second[1][0]), predict, bounds.score_shift)
    shifts = np.concatenate([
        second[1][0][rows, labels] - first[1][0][rows, labels]
        for (first, second), (rows, labels) in zip(pairs, kept, strict=True)
    ]).astype(np.float32)  # fmt: skip
    gates = [
        _drop("AP drop", reference, other, bounds.drop),
        _score_shift(shifts, reference, other, bounds.score_shift),
        _agreement(decisions, bounds.agreement),
    ]
    if manifest.angle is not None:
        angles = [
            _turned(first[0][0][rows], second[0][0][rows])
            for (first, second), (rows, _) in zip(pairs, kept, strict=True)
        ]
        gates.append(_at_most("angle error", _mean(np.concatenate(angles)), bounds.angle_deg, "deg"))
    return Judgement(tuple(gates), decisions, shifts, _refit_conf(reference, other, predict.conf))


def _judge_verdicts(manifest: Manifest, reference: Run, other: Run, bounds: Bounds) -> Judgement:
    thresholds = manifest.thresholds
    assert thresholds is not None
    ours, theirs = (
        np.array([calibrated(float(item[1][0]), thresholds) for item in run.outputs]) for run in (other, reference)
    )
    decisions = Decisions(0, 0, 0, 0)
    edge = calibrated(thresholds.image, thresholds)
    for before, after in zip(theirs, ours, strict=True):
        decisions += compare_verdicts(float(before), float(after), edge, bounds.score_shift)
    shifts = (ours - theirs).astype(np.float32)
    gates = (
        _drop("image AUROC drop", reference, other, bounds.drop),
        _score_shift(shifts, reference, other, bounds.score_shift),
        _agreement(decisions, bounds.agreement),
    )
    raw, quantized = (np.sort(np.array([item[1][0] for item in run.outputs], np.float32)) for run in (reference, other))
    above = int((raw > thresholds.image).sum())
    return Judgement(gates, decisions, shifts, _between(quantized, above, thresholds.image))


def _kept(outputs: Outputs, predict: Suppression) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and classes of what a network finds at the bundle's thresholds."""
    boxes, scores = outputs[0][0], outputs[1][0]
    rows, labels, best = ops.candidates(scores, predict.conf, predict.max_candidates)
    nms = ops.nms_rotated if boxes.shape[1] == 5 else ops.nms
    keep = nms(boxes[rows], best, predict.iou, labels)[: predict.max_det]
    return rows[keep], labels[keep]


def _turned(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return by how many degrees rectangles are turned, `(M,)`: at most 90, or 45 for squares, whose sides may swap."""
    turn = np.abs(np.rad2deg(first[:, 4].astype(np.float64) - second[:, 4])) % 180
    turn = np.minimum(turn, 180 - turn)
    long, short = first[:, 2:4].max(axis=1), first[:, 2:4].min(axis=1)
    square = short > 0.9 * long
    return np.asarray(np.where(square, np.minimum(turn, 90 - turn), turn))


def _drop(name: str, reference: Run, other: Run, bound: float) -> Gate:
    return _at_most(name, 100 * (reference.figure - other.figure), bound, "points")


def _score_shift(shifts: NDArray[np.float32], reference: Run, other: Run, bound: float) -> Gate:
    """Return the gate of the shift: NaN, too, where any output is not finite, though nothing is found there."""
    from ..quantization.error import finite_alike

    sound = finite_alike(reference.outputs, other.outputs)
    return _at_most("score shift", _mean(np.abs(shifts)) if sound else float("nan"), bound, "")


def _at_most(name: str, value: float, bound: float, unit: str) -> Gate:
    return Gate(name, value, bound, unit, bool(value <= bound))


def _agreement(decisions: Decisions, bound: float) -> Gate:
    whole = decisions.same + decisions.borderline + decisions.different
    share = (decisions.same + decisions.borderline) / whole if whole else float("nan")
    return Gate("decisions", 100 * share, 100 * bound, "% alike", bool(share >= bound))


def _mean(values: NDArray[Any]) -> float:
    """Return the mean; NaN of nothing: a network that finds nothing has not been judged."""
    return float(values.mean()) if values.size else float("nan")


def _refit_conf(reference: Run, other: Run, conf: float) -> float:
    """Return the confidence at which int8 leaves as many candidates as the float network at `conf`."""
    best = [np.sort(np.concatenate([item[1][0].max(axis=1) for item in run.outputs])) for run in (reference, other)]
    return _between(best[1], int((best[0] > conf).sum()), conf)


def _between(values: NDArray[np.float32], above: int, usual: float) -> float:
    """Return the number amid ascending values that leaves `above` of them above it, as near to `usual` as can be.

    It serves as a float32 as well, which is what scores are compared with.
    """
    count = len(values)
    low = float(values[count - above - 1]) if above < count else -np.inf
    found = max(usual, low)
    if above == 0 or np.float32(found) < values[count - above]:
        return found
    return float(np.nextafter(np.float32(values[count - above]), np.float32(-np.inf)))
