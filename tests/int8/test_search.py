"""The bounded search on networks that each break int8 in one way: mended with the fewest layers, or refused."""

from __future__ import annotations

import dataclasses
import gc
import weakref
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from edgekd._int8 import search as search_module
from edgekd._int8.data import calibration_images, judging_images
from edgekd._int8.gates import judge
from edgekd._int8.options import Bounds, Calibration, bounds
from edgekd._int8.runs import run_set
from edgekd._int8.search import LEAST_WORK, Plan, search
from edgekd._target import Built, Quantization, load_target
from edgekd.errors import GateError
from edgekd.quantization import FloatGraph, int8_region, layers_of
from edgekd.quantization.trained import CHUNK, trained_chunk

from . import networks, sets

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._int8.search import Found

    from .conftest import Trained

QUICK = "openvino"  # runs on any CPU
UNRUN = "tensorrt"  # builds anywhere, runs on no machine without a GPU

needs_quick = pytest.mark.skipif(load_target(QUICK).probe() is not None, reason=str(load_target(QUICK).probe()))


def plan_of(bundle: Bundle, lines: list[str] | None = None, **options: Any) -> Plan:
    said = Calibration(**options)
    tell = (lambda _: None) if lines is None else lines.append
    manifest = bundle.manifest
    limits = bounds(said, anomaly=False, oriented=manifest.angle is not None)
    return Plan(
        bundle, calibration_images(manifest, said, tell), judging_images(manifest, said), limits, said.ranges, tell
    )


def bundle_of(tmp_path: Path, graph: bytes, **options: Any) -> Bundle:
    """Return a bundle of a graph, trained on a set of its own detections."""
    bundle = sets.coloured(graph, **options)
    return sets.with_origin(bundle, sets.write_set(tmp_path / "set", bundle))


@pytest.fixture(autouse=True)
def short_races(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "QUICK", 2)
    monkeypatch.setattr(search_module, "LONG", 4)


def values(found: Found) -> dict[str, float]:
    return {gate.name: gate.value for gate in found.judgement.gates}


@needs_quick
@pytest.mark.parametrize("oriented", [False, True])
def test_network_that_works_is_int8_in_every_layer(tmp_path: Path, oriented: bool) -> None:
    lines: list[str] = []
    bundle = bundle_of(tmp_path, networks.colours(oriented=oriented), oriented=oriented)
    plan = plan_of(bundle, lines)
    found = search(plan, QUICK)
    assert plan.float_run.figure > 0.98, "the set is annotated with what the float network finds"
    assert found.floating == frozenset()
    assert found.judgement.passed
    assert len(found.steps) == 1
    assert found.reported is found.judgement
    assert values(found)["AP drop"] == pytest.approx(0, abs=0.5)
    assert 0 < values(found)["score shift"] < 0.01
    assert found.run.session.compute == "int8"
    assert not found.emulated
    assert "sensitivity" not in vars(plan), "measured only where a gate fails"
    assert set(found.times_ms) == {"fp32", "fp16", "w8a32", "int8"}
    assert {len(samples) for samples in found.times_ms.values()} == {4}
    assert lines[-1] == f"{QUICK} int8, 0 of 9 layers in floating point: every gate holds"
    assert plan.estimator in plan.errors
    assert plan.errors[plan.estimator] == min(plan.errors.values())


def test_target_that_cannot_run_is_emulated_by_its_own_graph(trained: Trained) -> None:
    if load_target(UNRUN).probe() is None:
        pytest.skip(f"{UNRUN} runs here")
    found = search(plan_of(trained.bundle), UNRUN)
    assert found.emulated
    assert found.judgement.passed
    assert found.times_ms == {}
    assert found.steps[0].p50_ms is None
    assert found.run.session.target == "reference"
    assert b"QuantizeLinear" in zlib.decompress(found.built.files["model.onnx.packed"])


@needs_quick
def test_layer_with_an_outlier_channel_goes_back_to_float_and_no_other(tmp_path: Path) -> None:
    graph = networks.colours(outlier=True)
    plan = plan_of(bundle_of(tmp_path, graph))
    found = search(plan, QUICK)
    culprit = networks.weights_of(graph)[4]
    assert found.floating == {culprit}
    assert [len(step.floating) for step in found.steps] == [0, 1], "fewest first"
    first, last = found.steps
    failed = {gate.name for gate in first.judgement.gates if not gate.passed}
    assert failed == {"AP drop", "score shift", "decisions"}
    assert last.judgement.passed
    assert all(step.p50_ms is not None and step.p50_ms > 0 for step in found.steps), "latency after each step"
    assert max(plan.sensitivity, key=lambda name: plan.sensitivity[name]) == culprit
    kept = FloatGraph(plan.quantization(found.floating).graph).weights
    assert culprit in kept
    assert f"{culprit}_quantized" not in kept


@needs_quick
def test_outputs_of_two_engines_are_in_memory_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the float network, and those of the engine that is judged: they are megabytes an image."""
    plan = plan_of(bundle_of(tmp_path, networks.colours(outlier=True)))
    held: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def counted(*args: Any, **options: Any) -> Any:
        run = run_set(*args, **options)
        held.append(weakref.ref(run.outputs[0][0]))
        gc.collect()
        alive.append(sum(item() is not None for item in held))
        return run

    monkeypatch.setattr(search_module, "run_set", counted)
    found = search(plan, QUICK)
    assert len(held) == 5, "float, two tries, fp16, w8a32"
    assert max(alive) == 2
    assert len(found.steps) == 2
    assert found.judgement.passed
    assert set(found.alternatives) == {"fp16", "w8a32"}
    assert not any(run.outputs for run in (found.run, *found.report_runs))


@pytest.mark.parametrize("light", [0, 1])
def test_calibration_on_noise_is_caught(trained: Trained, tmp_path: Path, light: int) -> None:
    """Forced: dark noise in which no cell is lit, and noise over all values. Ranges of either clip what is lit."""
    rng = np.random.default_rng(0)
    for index in range(12):
        noise = rng.integers(0, 256 if light else 40, (networks.HEIGHT, networks.WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    plan = plan_of(trained.bundle, train=tmp_path, val=trained.folder, force=True)
    with_order(plan)
    with pytest.raises(GateError, match=r"all 9 layers int8: .* FAILED"):  # half of the layers in float mend nothing
        search(plan, UNRUN)


def candidate(plan: Plan, graph: bytes) -> Any:
    """Judge an int8 graph made by hand, as the search judges its own."""
    with sets.start(plan.bundle.replace(add={plan.bundle.manifest.graph: graph})) as session:
        run = run_set(session, plan.bundle.manifest, plan.judges.search)
    return judge(plan.bundle.manifest, plan.float_run, run, plan.bounds)


def test_boxes_and_scores_on_one_scale_are_caught(trained: Trained) -> None:
    plan = plan_of(trained.bundle, ranges="minmax")
    own = plan.quantization(frozenset()).graph
    assert candidate(plan, own).passed
    largest = max(float(np.abs(item[0]).max()) for item in plan.float_run.outputs)
    judgement = candidate(plan, networks.on_one_scale(own, largest))
    failed = {gate.name for gate in judgement.gates if not gate.passed}
    assert {"score shift", "AP drop"} <= failed, judgement
    assert judgement.gates[1].value > 0.1


def test_choice_of_the_best_rows_inside_the_graph_stays_float(tmp_path: Path) -> None:
    """TopK and GatherElements before the outputs: nothing behind the last layers is read in int8."""
    plain, top = FloatGraph(networks.colours()), FloatGraph(networks.colours(top=32))
    assert int8_region(top).sources == int8_region(plain).sources
    kinds = {top.graph.node[index].op_type for index, _ in int8_region(top).reads}
    assert kinds == {"Conv"}


@needs_quick
def test_network_with_its_best_rows_inside_holds_the_gates(tmp_path: Path) -> None:
    """Rows come in another order than the float network's: they are matched before they are compared."""
    plan = plan_of(bundle_of(tmp_path, networks.colours(top=32), rows=32))
    assert plan.graph.picks_rows
    found = search(plan, QUICK)
    assert found.floating == frozenset()
    assert all(gate.passed for gate in found.judgement.gates)
    assert values(found)["score shift"] < 0.01


def test_best_rows_by_rounded_scores_are_caught(tmp_path: Path) -> None:
    """The same with the scores in int8 before TopK: they tie, and other rows come out."""
    import onnx
    from onnx import helper, numpy_helper

    plan = plan_of(bundle_of(tmp_path, networks.colours(top=32), rows=32), ranges="minmax")
    model = onnx.load_from_string(plan.quantization(frozenset()).graph)
    at, sigmoid = next((i, node) for i, node in enumerate(model.graph.node) if node.op_type == "Sigmoid")
    name = sigmoid.output[0]
    sigmoid.output[0] = f"{name}_before"
    rounding = [
        helper.make_node("QuantizeLinear", [f"{name}_before", "coarse", "none"], [f"{name}_int8"]),
        helper.make_node("DequantizeLinear", [f"{name}_int8", "coarse", "none"], [name]),
    ]
    for offset, node in enumerate(rounding, 1):
        model.graph.node.insert(at + offset, node)
    model.graph.initializer.extend([
        numpy_helper.from_array(np.asarray(np.float32(20 / 127)), "coarse"),
        numpy_helper.from_array(np.asarray(np.int8(0)), "none"),
    ])  # fmt: skip
    assert not candidate(plan, model.SerializeToString()).passed


class FakeTarget:
    """A target on ONNX Runtime whose int8 is bent until enough layers are in floating point."""

    PRECISIONS = ("fp32", "int8")

    def __init__(self, enough: Any, *, runs: bool = True) -> None:
        self.enough, self.reason = enough, None if runs else "no such chip"
        self.tried: list[frozenset[str]] = []
        self.sessions = 0

    def probe(self) -> str | None:
        return self.reason

    def build(self, bundle: Bundle, _precision: str, _tell: Any, quantization: Quantization | None = None) -> Any:
        if quantization is None:
            return Built(files={"graph": bundle.graph()})
        self.tried.append(quantization.floating)
        return Built(files={"graph": quantization.graph}, options={"bent": not self.enough(quantization.floating)})

    def load(self, bundle: Bundle, artifact: Any, **_: Any) -> Any:
        graph = bytes(bundle.file(artifact, "graph"))
        session = load_target("reference").load(bundle.replace(add={bundle.manifest.graph: graph}), sets.PORTABLE)
        self.sessions += 1
        fake = self

        class Bent:
            info = dataclasses.replace(session.info, target="fake", precision=artifact.precision)

            def infer(self, pixels: Any, _out: Any = None) -> Any:
                boxes, scores = session.infer(pixels)
                return boxes, scores * np.float32(0.5 if artifact.options.get("bent") else 1)

            def close(self) -> None:
                session.close()
                fake.sessions -= 1

        return Bent()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(enough: Any, **options: Any) -> FakeTarget:
        target = FakeTarget(enough, **options)
        monkeypatch.setattr(search_module, "load_target", lambda name: target if name == "fake" else load_target(name))
        return target

    return install


def with_order(plan: Plan, more: int = 0) -> list[str]:
    """Give a plan a made order of sensitivity, that of the layers and of some that there are not; return it."""
    order = [layer.weight for layer in plan.layers] + [f"made{index}" for index in range(more)]
    vars(plan)["sensitivity"] = {name: 1.0 / (index + 1) for index, name in enumerate(order)}
    return order


@pytest.mark.parametrize("needed", [1, 5, 8, 23])
def test_search_finds_the_fewest_of_the_most_sensitive_layers(
    trained: Trained, fake: Any, monkeypatch: pytest.MonkeyPatch, needed: int
) -> None:
    monkeypatch.setattr(search_module, "LEAST_WORK", 0.0)
    plan = plan_of(trained.bundle, ranges="minmax")
    order = with_order(plan, more=30)
    target = fake(lambda floating: len(floating) >= needed)
    found = search(plan, "fake")
    assert found.floating == frozenset(order[:needed])
    assert target.tried[0] == frozenset()
    assert len(target.tried) == len(set(target.tried)), "none is tried twice"
    assert all(tried == frozenset(order[: len(tried)]) for tried in target.tried)
    assert found.built.options == {"bent": False}
    assert target.sessions == 0, "every engine is closed"


def test_search_that_cannot_hold_says_what_it_measured_and_what_to_type(trained: Trained, fake: Any) -> None:
    plan = plan_of(trained.bundle, ranges="minmax")
    with_order(plan)
    target = fake(lambda _: False)
    with pytest.raises(GateError) as caught:
        search(plan, "fake")
    said = str(caught.value)
    assert caught.value.exit_code == 3
    assert f"int8 loses more than the gates allow on {sets.VAL} validation images" in said
    assert "all 9 layers int8: AP drop" in said
    assert "score shift 0.4" in said
    assert "(bound <= 0.02) FAILED" in said
    assert "most sensitive layers in floating point" in said
    assert "build --precision fp16, calibrate on other images (--calib), or train for it: edgekd distill --qat" in said
    assert target.sessions == 0
    assert all(plan.share_of_work(floating) >= LEAST_WORK for floating in target.tried), "less is no int8"


def test_int8_of_less_than_half_of_the_work_is_no_int8(trained: Trained, fake: Any) -> None:
    """The first layer that would go back does most of the work: it does not."""
    plan = plan_of(trained.bundle, ranges="minmax")
    order = with_order(plan)
    heavy = dataclasses.replace(plan.layers[0], work=10 * sum(layer.work for layer in plan.layers))
    plan.layers = (heavy, *plan.layers[1:])
    target = fake(lambda floating: len(floating) >= 1)
    with pytest.raises(GateError, match="loses more than the gates allow"):
        search(plan, "fake")
    assert target.tried == [frozenset()]
    assert order


def test_network_of_one_layer_is_int8_or_refused(trained: Trained, fake: Any) -> None:
    plan = plan_of(trained.bundle, ranges="minmax")
    with_order(plan)
    only = plan.layers[0].weight
    plan.layers = plan.layers[:1]
    vars(plan)["sensitivity"] = {only: 1.0}
    fake(lambda floating: bool(floating))
    with pytest.raises(GateError, match="loses more than the gates allow"):
        search(plan, "fake")


def test_network_without_layers_is_refused(trained: Trained) -> None:
    from ..conformance.detectors import Graph
    from ..quantization.graphs import model

    g = Graph(0)
    bare = trained.bundle.replace(add={"graph.onnx": model(g, g.op("Relu", "images"))})
    with pytest.raises(GateError, match="nothing to be int8"):
        plan_of(bare)


def test_race_runs_every_engine_in_turn(trained: Trained) -> None:
    from edgekd._int8 import race

    calls: list[str] = []

    class Counting:
        def __init__(self, name: str) -> None:
            self.name = name

        def infer(self, _pixels: Any, _out: Any = None) -> Any:
            calls.append(self.name)
            return ()

    found = race.race({"fp32": Counting("fp32"), "int8": Counting("int8")}, np.zeros((1, 3, 4, 4), np.float32), 3)  # type: ignore[dict-item]
    assert {name: len(samples) for name, samples in found.items()} == {"fp32": 3, "int8": 3}
    assert calls[-6:] == ["fp32", "int8"] * 3
    assert race.median_ms([3.0, 1.0, 2.0]) == 2.0
    times = {"fp32": [4.0], "fp16": [3.0], "int8": [2.0]}
    assert race.fastest_rival(times) == ("fp16", 1.5)


def test_anomaly_network_is_judged_on_the_half_it_was_not_searched_on(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report's run is of other images than the search's."""
    plan = plan_of(trained.bundle, ranges="minmax")
    part = dataclasses.replace(plan.judges.search, samples=plan.judges.search.samples[:5])
    plan.judges = dataclasses.replace(plan.judges, report=part)
    shown: list[int] = []

    def counted(session: Any, manifest: Any, images: Any, **options: Any) -> Any:
        shown.append(len(images))
        return run_set(session, manifest, images, **options)

    monkeypatch.setattr(search_module, "run_set", counted)
    found = search(plan, UNRUN)
    assert shown == [sets.VAL, sets.VAL, 5, 5], "int8 and float in the search, float and int8 for the report"
    assert found.reported is not found.judgement


def test_bounds_of_the_plan_decide(trained: Trained) -> None:
    plan = plan_of(trained.bundle, ranges="minmax")
    plan.bounds = Bounds(0.5, score_shift=1e-9)
    with_order(plan)
    with pytest.raises(GateError, match=r"score shift \S+ \(bound <= 1e-09\) FAILED"):
        search(plan, UNRUN)


def test_scales_that_training_found_are_used_and_its_floating_layers_kept(trained: Trained) -> None:
    """`edgekd distill --qat` leaves both in the bundle; nothing is estimated then."""
    graph = FloatGraph(trained.bundle.graph())
    kept = layers_of(graph)[2].weight
    sources = int8_region(graph, {kept}).sources
    measured = plan_of(trained.bundle).scales(int8_region(graph, {kept}))
    learnt = {name: float(np.float32(1.25 * measured[root])) for name, root in sources.items()}
    manifest = trained.bundle.manifest
    told = {**manifest.provenance, "qat": {"chunk": CHUNK, "target": QUICK}}
    bundle = trained.bundle.replace(
        dataclasses.replace(manifest, provenance=told), {CHUNK: trained_chunk(QUICK, learnt, [kept])}
    )
    plan = plan_of(bundle)
    assert plan.estimator == "trained"
    found = search(plan, UNRUN)
    assert found.floating == {kept}
    written = onnx.load_from_string(plan.quantization(found.floating).graph).graph
    constants = {item.name: item for item in written.initializer}
    for name, scale in learnt.items():
        assert numpy_helper.to_array(constants[f"{name}_scale"]) == np.float32(scale)
