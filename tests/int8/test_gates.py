"""Each gate by itself, on outputs made by hand: what fails it, what does not, that nothing passes for want of data."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import ops
from edgekd._int8.gates import _between, _turned, judge
from edgekd._int8.options import Bounds, Calibration, bounds
from edgekd._int8.runs import Run
from edgekd._session import SessionInfo
from edgekd.errors import UsageError

from ..conformance import bundles
from .sets import start

if TYPE_CHECKING:
    from edgekd._bundle import Bundle
    from edgekd._int8.gates import Judgement

INFO = SessionInfo("made", "int8", "int8", "cpu", "by hand")
WIDE = {"drop": 0.5, "score_shift": 0.02, "agreement": 0.99, "angle_deg": 1.0}
BOXES, TURNED, MAPS = (bundles.portable(**kind) for kind in ({}, {"oriented": True}, {"anomaly": True}))
BUNDLES = {"boxes": BOXES, "turned": TURNED, "maps": MAPS}


def run_of(bundle: Bundle, figure: float = 0.8, bend: Any = None, count: int = 3) -> Run:
    """Return what the float network gives, changed by a function of (outputs, index of the image)."""
    with start(bundle) as session:
        outputs = [tuple(item.copy() for item in session.infer(bundles.pixels(1, seed))) for seed in range(count)]
    if bend is not None:
        outputs = [bend(*item) for item in outputs]
    name = "AP" if bundle.manifest.thresholds is None else "image_AUROC"
    return Run(tuple(outputs), {name: figure}, INFO)


def judged(kind: str, bend: Any = None, figure: float = 0.8, before: float = 0.8, **changes: Any) -> Judgement:
    bundle = BUNDLES[kind]
    manifest = bundle.manifest
    if manifest.thresholds is not None:  # noise is more anomalous to the random network than pictures are
        scores = sorted(float(item[1][0]) for item in run_of(bundle).outputs)
        limit = dataclasses.replace(manifest.thresholds, image=(scores[0] + scores[1]) / 2, low=scores[0] - 0.5)
        manifest = dataclasses.replace(manifest, thresholds=limit)
    return judge(manifest, run_of(bundle, before), run_of(bundle, figure, bend), Bounds(**{**WIDE, **changes}))


def failed(judgement: Judgement) -> list[str]:
    return [gate.name for gate in judgement.gates if not gate.passed]


@pytest.mark.parametrize("kind", BUNDLES)
def test_the_same_outputs_pass_every_gate(kind: str) -> None:
    same = judged(kind)
    assert same.passed
    names = [gate.name for gate in same.gates]
    assert (
        names
        == {
            "boxes": ["AP drop", "score shift", "decisions"],
            "turned": ["AP drop", "score shift", "decisions", "angle error"],
            "maps": ["image AUROC drop", "score shift", "decisions"],
        }[kind]
    )
    assert {gate.value for gate in same.gates} == {0.0, 100.0}
    assert not same.shifts.any()
    assert len(same.shifts) > (10 if kind != "maps" else 2)
    assert same.decisions.same == same.decisions.reference == len(same.shifts)


@pytest.mark.parametrize("kind", BUNDLES)
@pytest.mark.parametrize(("lost", "passes"), [(0.0049, True), (0.0051, False), (-0.3, True), (math.nan, False)])
def test_accuracy_alone_fails_its_gate(kind: str, lost: float, passes: bool) -> None:
    found = judged(kind, figure=0.8 - lost)
    assert failed(found) == ([] if passes else [found.gates[0].name])
    assert found.passed is passes
    if not math.isnan(lost):
        assert found.gates[0].value == pytest.approx(100 * lost)
        assert found.gates[0].unit == "points"


def test_float_network_that_was_not_measured_passes_nothing() -> None:
    assert failed(judged("boxes", before=math.nan)) == ["AP drop"]


@pytest.mark.parametrize(("by", "passes"), [(0.019, True), (0.021, False), (-0.021, False)])
def test_scores_that_move_together_fail_the_shift_and_nothing_else(by: float, passes: bool) -> None:
    found = judged("boxes", lambda boxes, scores: (boxes, scores + np.float32(by)), agreement=0.0)
    assert failed(found) == ([] if passes else ["score shift"])
    assert found.gates[1].value == pytest.approx(abs(by), rel=1e-3)
    np.testing.assert_allclose(found.shifts, by, rtol=1e-3)


def test_shifts_that_cancel_still_count() -> None:
    def wave(boxes: Any, scores: Any) -> Any:
        return boxes, scores + np.where(np.arange(scores.shape[1])[None, :, None] % 2, 0.1, -0.1).astype(np.float32)

    assert "score shift" in failed(judged("boxes", wave))


def test_objects_that_vanish_fail_the_decisions_and_nothing_else() -> None:
    """A few rows, far above the threshold, drop below it: the mean shift is small, the AP is said to be the same."""
    kept = _kept(BOXES)

    def lose(boxes: Any, scores: Any, done: list[int] = []) -> Any:  # noqa: B006 - counts the images
        rows, labels = kept[len(done)]
        done.append(0)
        best = rows[scores[0, rows, labels] > BOXES.manifest.predict.conf + 0.1]
        scores[0, best[:1]] = 0
        return boxes, scores

    found = judged("boxes", lose, score_shift=0.05)
    assert failed(found) == ["decisions"]
    assert found.decisions.different >= 3


def _kept(bundle: Bundle) -> list[Any]:
    from edgekd._int8.gates import _kept as kept

    return [kept(item, bundle.manifest.predict) for item in run_of(bundle).outputs]


@pytest.mark.parametrize("kind", ["boxes", "maps"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 1.0))
def test_agreement_forgives_whatever_a_shift_within_the_bound_explains(kind: str, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)

    def shake(*outputs: Any) -> Any:
        scores = outputs[1] + rng.uniform(-1, 1, outputs[1].shape).astype(np.float32) * np.float32(0.0199 * share)
        return outputs[0], scores

    if kind == "maps":
        found = judged(kind, lambda raw, score: (raw, score), agreement=1.0)
    else:
        found = judged(kind, shake, agreement=1.0)
    assert found.decisions.different == 0
    assert found.gates[2].passed


def test_agreement_forgives_nothing_beyond_the_bound() -> None:
    conf = BOXES.manifest.predict.conf

    def cross(boxes: Any, scores: Any) -> Any:
        """Every score just above the threshold falls just below, by more than the bound."""
        near = (scores > conf) & (scores < conf + 0.08)
        scores[near] -= np.float32(0.08)
        return boxes, scores

    strict = judged("boxes", cross, agreement=1.0, score_shift=0.02)
    lax = judged("boxes", cross, agreement=1.0, score_shift=0.081)
    assert strict.decisions.different > 0
    assert lax.decisions.different == 0
    assert lax.decisions.borderline == strict.decisions.different + strict.decisions.borderline > 0


@pytest.mark.parametrize("kind", BUNDLES)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("place", [0, -1])
def test_one_value_that_is_not_a_number_passes_nothing(kind: str, which: int, place: int) -> None:
    def spoil(*outputs: Any) -> Any:
        outputs[which].reshape(-1)[place] = np.nan
        return outputs

    assert not judged(kind, spoil).passed


@pytest.mark.parametrize("kind", ["boxes", "turned"])
def test_network_that_finds_nothing_has_not_been_judged(kind: str) -> None:
    manifest = BUNDLES[kind].manifest
    none = run_of(BUNDLES[kind], bend=lambda boxes, scores: (boxes, scores * 0))
    found = judge(manifest, none, none, Bounds(**WIDE))
    assert "score shift" in failed(found)
    assert "decisions" in failed(found)
    assert math.isnan(found.gates[1].value)


def test_int8_that_finds_more_than_the_float_network_fails_the_decisions() -> None:
    def invent(boxes: Any, scores: Any) -> Any:
        scores[:, np.argsort(scores[0].max(axis=1))[:30]] = 0.9
        return boxes, scores

    assert "decisions" in failed(judged("boxes", invent))


@pytest.mark.parametrize(("degrees", "passes"), [(0.9, True), (1.1, False), (-1.1, False), (179.5, True), (90, False)])
def test_angles_fail_their_gate_modulo_half_a_turn(degrees: float, passes: bool) -> None:
    def turn(boxes: Any, scores: Any) -> Any:
        boxes[..., 2] = 3 * boxes[..., 3] + 1  # no squares
        return boxes, scores

    def turn_more(boxes: Any, scores: Any) -> Any:
        boxes, scores = turn(boxes, scores)
        boxes[..., 4] += np.float32(np.deg2rad(degrees))
        return boxes, scores

    manifest = TURNED.manifest
    limits = Bounds(**{**WIDE, "agreement": 0.0})
    found = judge(manifest, run_of(TURNED, bend=turn), run_of(TURNED, bend=turn_more), limits)
    assert failed(found) == ([] if passes else ["angle error"])
    assert found.gates[3].unit == "deg"


def test_squares_may_swap_their_sides() -> None:
    square, long = [10, 10, 20, 19, 0.3], [10, 10, 40, 10, 0.3]
    first = np.array([square, long, square, square], np.float32)
    second = first.copy()
    second[:, 4] += np.float32(np.pi / 2) * np.array([1, 1, -1, 0.5], np.float32)
    np.testing.assert_allclose(_turned(first, second), [0, 90, 0, 45], atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    angles=st.lists(st.floats(-np.pi / 2, np.pi / 2), min_size=1, max_size=6),
    turns=st.integers(-3, 3),
    by=st.floats(-90, 90),
)
def test_turn_is_the_least_of_all_ways_to_write_it(angles: list[float], turns: int, by: float) -> None:
    first = np.array([[0, 0, 40, 10, angle] for angle in angles], np.float32)
    second = first.copy()
    second[:, 4] += np.float32(np.deg2rad(by) + np.pi * turns)
    np.testing.assert_allclose(_turned(first, second), min(abs(by), 180 - abs(by)), atol=1e-2)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.sampled_from(np.linspace(0, 1, 21, dtype=np.float32).tolist()), min_size=1, max_size=12),
    data=st.data(),
)
def test_refit_leaves_as_many_as_any_threshold_could(values: list[float], data: st.DataObject) -> None:
    above = data.draw(st.integers(0, len(values)))
    usual = data.draw(st.floats(0, 1))
    ordered = np.sort(np.array(values, np.float32))
    refit = _between(ordered, above, usual)
    counts = {int((ordered > limit).sum()) for limit in (-1.0, *ordered.tolist())}
    got = int((ordered > refit).sum())
    assert got == above or above not in counts, "ties leave more or none"
    if int((ordered > usual).sum()) == above:
        assert refit == usual, "a threshold that does is left alone"


def test_refit_confidence_finds_as_many_as_before() -> None:
    conf = BOXES.manifest.predict.conf
    weaker = judged("boxes", lambda boxes, scores: (boxes, scores * np.float32(0.8)))
    reference = run_of(BOXES)
    count = sum(len(ops.candidates(item[1][0], conf, 10_000)[0]) for item in reference.outputs)
    again = sum(
        len(ops.candidates(item[1][0] * np.float32(0.8), weaker.refit, 10_000)[0]) for item in reference.outputs
    )
    assert again == count > 10
    assert weaker.refit == pytest.approx(0.8 * conf, rel=0.1)
    assert judged("boxes").refit == conf


def test_anomaly_verdicts_are_compared_at_the_shipped_threshold() -> None:
    found = judged("maps", lambda raw, score: (raw, score + np.float32(3)))
    assert {"score shift", "decisions"} <= set(failed(found))
    assert found.decisions.reference == 3
    assert found.decisions.different == 1, "one image was below the threshold"
    assert found.refit == pytest.approx(judged("maps").refit + 3, abs=0.5)


@pytest.mark.parametrize(
    ("kind", "drop"), [({"anomaly": False, "oriented": False}, 0.5), ({"anomaly": False, "oriented": True}, 0.7),
    ({"anomaly": True, "oriented": False}, 0.3)],
)  # fmt: skip
def test_bounds_are_the_issues(kind: dict[str, bool], drop: float) -> None:
    usual = bounds(Calibration(), **kind)
    assert (usual.drop, usual.score_shift, usual.agreement, usual.angle_deg) == (drop, 0.02, 0.99, 1.0)
    assert bounds(Calibration(max_drop=2.5), **kind).drop == 2.5
    assert bounds(Calibration(max_drop=0), **kind).drop == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images should be 8 to 4096, got 0"),
        ({"images": 5000}, "images should be 8 to 4096, got 5000"),
        ({"max_drop": -0.1}, "max_drop should be 0 to 100 points, got -0.1"),
        ({"max_drop": math.nan}, "max_drop should be 0 to 100 points, got nan"),
        ({"ranges": "median"}, "ranges should be auto, mse, minmax, percentile, entropy; got 'median'"),
    ],
)
def test_impossible_options_say_what_is_possible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Calibration(**options)
