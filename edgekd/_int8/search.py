"""The bounded search: all layers int8; where a gate fails, the fewest layers back to floating point until it holds."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from .._manifest import Artifact
from .._target import Quantization, load_target
from ..errors import BuildError, GateError
from . import race
from .gates import judge
from .options import ESTIMATORS
from .runs import run_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._bundle import Bundle
    from .._session import Session
    from .._target import Built, Progress
    from ..quantization import Layer, Region
    from .data import Chosen, Judges
    from .gates import Judgement
    from .options import Bounds
    from .runs import Run

COMPARED = 16  # calibration images that estimators and layers are compared on
LEAST_WORK = 0.5  # share of the multiplications that must stay int8: with less there is nothing to gain
QUICK, LONG = 15, 50  # rounds of a race: after each step, and at the end
REFERENCE = "reference"
TRAINED = "trained"  # instead of an estimator: `edgekd distill --qat` found the scales


class Plan:
    """What all targets share: ranges, reference outputs, the order of layers.

    Args:
        bundle: with the portable graph.
        chosen: calibration images.
        judges: validation images.
        bounds: of the gates.
        ranges: an estimator, or "auto".
        tell: told one short line a stage.
    """

    def __init__(
        self, bundle: Bundle, chosen: Chosen, judges: Judges, bounds: Bounds, ranges: str, tell: Progress
    ) -> None:
        from ..quantization import FloatGraph, int8_region, layers_of, measure_ranges, trained_scales

        self.bundle, self.chosen, self.judges, self.bounds, self.tell = bundle, chosen, judges, bounds, tell
        self.graph = FloatGraph(bundle.graph())
        self.layers: tuple[Layer, ...] = layers_of(self.graph)
        if not self.layers:
            raise GateError(
                "the network has no convolution or matrix product with constant weights: nothing to be int8"
            )
        self.trained: dict[str, float] | None = None
        self.kept_floating: frozenset[str] = frozenset()
        found = trained_scales(bundle)
        if found is not None:
            self.trained, self.kept_floating = found
        self.ranges = measure_ranges(self.graph, int8_region(self.graph), chosen.pixels, tell)
        self.errors: dict[str, float] = {}
        self.estimator = TRAINED if self.trained else ranges if ranges != "auto" else self._choose()

    def _choose(self) -> str:
        from ..quantization.error import choose_estimator

        self.tell("calibration: comparing estimators of ranges")
        best, self.errors = choose_estimator(
            self.graph, self.ranges, self.bundle.manifest, self.chosen.pixels[:COMPARED], ESTIMATORS
        )
        return best

    @property
    def whole(self) -> bool:
        """Whether what the search measures is what the receipt reports."""
        return self.judges.report is self.judges.search

    @cached_property
    def float_run(self) -> Run:
        """What the portable graph gives on the images of the search."""
        self.tell(f"float network on {len(self.judges.search)} validation images")
        with contextlib.closing(self.portable(self.bundle)) as session:
            return run_set(session, self.bundle.manifest, self.judges.search, whole=self.whole)

    @cached_property
    def sensitivity(self) -> dict[str, float]:
        """What each layer costs, by its weight."""
        from ..quantization.error import sensitivity

        pixels = self.chosen.pixels[:COMPARED]
        return sensitivity(self.graph, self.scales, self.bundle.manifest, pixels, self.tell)

    def quantization(self, floating: frozenset[str]) -> Quantization:
        """Return what a target needs to know, with these layers in floating point."""
        from ..quantization import int8_region, quantized_graph

        region = int8_region(self.graph, floating)
        return Quantization(quantized_graph(self.graph, region, self.scales(region)), self.chosen.pixels, floating)

    def scales(self, region: Region) -> dict[str, float]:
        """Return the scale of each source: as it was trained, or as the estimator has it."""
        if self.trained is not None:
            return {name: self.trained[name] for name in region.sources}
        return self.ranges.scales(region, self.estimator)

    def judge(self, before: Run, after: Run) -> Judgement:
        """Compare an engine's run with the float network's."""
        return judge(self.bundle.manifest, before, after, self.bounds, picks_rows=self.graph.picks_rows)

    def share_of_work(self, floating: frozenset[str]) -> float:
        """Return the share of the multiplications that is int8."""
        whole = sum(layer.work for layer in self.layers)
        return sum(layer.work for layer in self.layers if layer.weight not in floating) / max(whole, 1)

    def portable(self, bundle: Bundle) -> Session:
        """Start ONNX Runtime on a bundle's graph, one thread."""
        return start_portable(bundle)

    def session(self, target: str, built: Built, quantization: Quantization) -> Session:
        """Start the int8 engine; where the target cannot run here, its graph on ONNX Runtime's int8 kernels."""
        module = load_target(target)
        if module.probe() is not None:
            return self.portable(self.bundle.replace(add={str(self.bundle.manifest.graph): quantization.graph}))
        return start_built(self.bundle, target, "int8", built)


@dataclass(frozen=True)
class Step:
    """One try of the search.

    Attributes:
        floating: weights of the layers in floating point.
        judgement: of its gates.
        p50_ms: median latency; None where the target cannot run here.
    """

    floating: frozenset[str]
    judgement: Judgement
    p50_ms: float | None


@dataclass(frozen=True)
class Alternative:
    """Another precision of the target, on the images of the report; its size is that of its files."""

    judgement: Judgement
    size_bytes: int


@dataclass(frozen=True)
class Found:
    """What the search found for one target.

    Attributes:
        target: its name.
        built: the int8 artifact's files.
        floating: weights of the layers that stay in floating point.
        run: of the int8 engine on the images of the search, its outputs released.
        judgement: of those.
        reported: judgement on the images of the report; the same for detectors.
        report_runs: float and int8 runs on those images, their outputs released.
        steps: every try, in order.
        emulated: whether ONNX Runtime stood in for the target, which cannot run here.
        times_ms: precision -> latencies; empty where the target cannot run here.
        threads: of the engines that were timed.
        alternatives: what the target's other precisions but fp32 lose; empty where it cannot run here.
    """

    target: str
    built: Built
    floating: frozenset[str]
    run: Run
    judgement: Judgement
    reported: Judgement
    report_runs: tuple[Run, Run]
    steps: tuple[Step, ...]
    emulated: bool
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    threads: int = 1
    alternatives: dict[str, Alternative] = field(default_factory=dict)


def start_portable(bundle: Bundle) -> Session:
    """Start ONNX Runtime on a bundle's graph, one thread."""
    return load_target(REFERENCE).load(bundle, Artifact(target=REFERENCE, precision="fp32", files={}), threads=1)


def start_built(bundle: Bundle, target: str, precision: str, built: Built) -> Session:
    """Start an engine on what a target has built, one thread."""
    files = {name: f"artifacts/{target}/{precision}/{name}" for name in built.files}
    artifact = Artifact(target=target, precision=precision, files=files, options=dict(built.options))
    whole = bundle.replace(add={files[name]: content for name, content in built.files.items()})
    return load_target(target).load(whole, artifact, threads=1)


def search(plan: Plan, target: str) -> Found:
    """Build int8 for one target, with as few layers in floating point as its gates allow.

    Raises:
        GateError: no set of layers that leaves half of the work int8 holds the gates; says what was measured.
        BuildError: the target's compiler refused a graph.
    """
    return _Search(plan, target).run()


class _Search:
    """The search for one target. Beside the float network's, the outputs of one engine are in memory at a time."""

    def __init__(self, plan: Plan, target: str) -> None:
        self.plan, self.target, self.module = plan, target, load_target(target)
        self.here = self.module.probe() is None
        self.steps: list[Step] = []
        self.sizes: dict[str, int] = {}  # of the rivals
        self.best: dict[frozenset[str], tuple[Step, Built, Run]] = {}  # the smallest set so far whose gates hold

    def run(self) -> Found:
        with self._rivals() as rivals:
            best = self._fewest(rivals)
            step, built, run = self.best[best]
            reported, (before, after) = self._report(step, built, run)
            times = self._race(rivals, built, best)
            others = self._alternatives(rivals, before)
        runs = (before.released(), after)
        return Found(
            self.target, built, best, run, step.judgement, reported, runs, tuple(self.steps), not self.here, times,
            alternatives=others,
        )  # fmt: skip

    def _fewest(self, rivals: dict[str, Session]) -> frozenset[str]:
        """Return the smallest of the tried sets of floating layers whose gates hold."""
        kept = self.plan.kept_floating
        if self._try(kept, rivals):
            return kept
        found = {name: value for name, value in self.plan.sensitivity.items() if name not in kept}
        order = [*kept, *sorted(found, key=lambda name: -found[name])]
        most = max(self._most(order), len(kept))
        failing, count = len(kept), min(len(kept) + 1, most)
        while failing == count or not self._try(frozenset(order[:count]), rivals):
            if count == most:
                raise GateError(self._refusal(rivals))
            failing, count = count, min(count + max(1, count // 2), most)
        while count - failing > 1:
            middle = (failing + count) // 2
            if self._try(frozenset(order[:middle]), rivals):
                count = middle
            else:
                failing = middle
        return frozenset(order[:count])

    def _most(self, order: list[str]) -> int:
        """Return how many layers may be in floating point, the most sensitive first, for it to be int8 still."""
        allowed = [self.plan.share_of_work(frozenset(order[:count])) >= LEAST_WORK for count in range(1, len(order))]
        return next((count for count, holds in enumerate(allowed) if not holds), len(allowed))

    def _try(self, floating: frozenset[str], rivals: dict[str, Session]) -> bool:
        plan = self.plan
        quantization = plan.quantization(floating)
        built = self.module.build(plan.bundle, "int8", plan.tell, quantization)
        with contextlib.closing(plan.session(self.target, built, quantization)) as session:
            run = run_set(session, plan.bundle.manifest, plan.judges.search, whole=plan.whole)
            judgement = plan.judge(plan.float_run, run)
            p50 = None
            if self.here and (floating or not judgement.passed):  # the last race times the winner anyway
                times = race.race({**rivals, "int8": session}, plan.chosen.pixels[:1], QUICK)
                p50 = race.median_ms(times["int8"])
        step = Step(floating, judgement, p50)
        self.steps.append(step)
        if judgement.passed:  # each that passes is smaller than the one before
            self.best = {floating: (step, built, run.released())}
        failed = [str(gate) for gate in judgement.gates if not gate.passed]
        cost = "" if p50 is None else f", {p50:.2f} ms"
        what = f"{self.target} int8, {len(floating)} of {len(plan.layers)} layers in floating point{cost}"
        plan.tell(f"{what}: {'every gate holds' if judgement.passed else '; '.join(failed)}")
        return judgement.passed

    def _alternatives(self, rivals: dict[str, Session], before: Run) -> dict[str, Alternative]:
        """Measure the target's other precisions as int8 was."""
        manifest, images = self.plan.bundle.manifest, self.plan.judges.report
        found = {}
        for name, session in rivals.items():
            if name != "fp32":
                judgement = self.plan.judge(before, run_set(session, manifest, images, whole=False))
                found[name] = Alternative(judgement, self.sizes[name])
        return found

    def _refusal(self, rivals: dict[str, Session]) -> str:
        best = min(self.steps, key=lambda step: sum(not gate.passed for gate in step.judgement.gates))
        first, last = self.steps[0], self.steps[-1]
        lines = [f"int8 loses more than the gates allow on {len(self.plan.judges.search)} validation images"]
        lines += [f"  all {len(self.plan.layers)} layers int8: {_gates(first)}"]
        lines += [f"  {len(last.floating)} most sensitive layers in floating point: {_gates(last)}"]
        if best not in (first, last):
            lines += [f"  {len(best.floating)} layers in floating point: {_gates(best)}"]
        if self.plan.whole:
            for name, item in self._alternatives(rivals, self.plan.float_run).items():
                lost = "; ".join(map(str, item.judgement.gates))
                word = "holds every gate" if item.judgement.passed else "does not hold them either"
                lines += [f"  {name} ({item.size_bytes / 2**20:.2f} MiB) {word}: {lost}"]
        lines += [
            "  build --precision fp16, calibrate on other images (--calib), or train for it: edgekd distill --qat"
        ]
        return "\n  ".join(lines)

    def _report(self, step: Step, built: Built, run: Run) -> tuple[Judgement, tuple[Run, Run]]:
        """Return judgement and runs on the images of the report, which an anomaly network's search has not seen."""
        plan, manifest = self.plan, self.plan.bundle.manifest
        if plan.whole:
            return step.judgement, (plan.float_run, run)
        quantization = plan.quantization(step.floating)
        with contextlib.closing(plan.portable(plan.bundle)) as portable:
            before = run_set(portable, manifest, plan.judges.report)
        with contextlib.closing(plan.session(self.target, built, quantization)) as session:
            after = run_set(session, manifest, plan.judges.report)
        return plan.judge(before, after), (before, after.released())

    @contextlib.contextmanager
    def _rivals(self) -> Iterator[dict[str, Session]]:
        """Start what int8 has to beat: the target's other precisions; nothing where it cannot run here."""
        with contextlib.ExitStack() as stack:
            found: dict[str, Session] = {}
            for precision in self.module.PRECISIONS if self.here else ():
                if precision == "int8":
                    continue
                try:
                    found[precision] = stack.enter_context(contextlib.closing(self._rival(precision)))
                except BuildError as error:  # then it is no rival
                    self.plan.tell(f"{self.target} {precision} cannot be timed: {error}")
            yield found

    def _rival(self, precision: str) -> Session:
        bundle = self.plan.bundle
        for artifact in bundle.manifest.artifacts:
            if (artifact.target, artifact.precision) == (self.target, precision):
                self.sizes[precision] = sum(len(bundle.file(artifact, name)) for name in artifact.files)
                return self.module.load(bundle, artifact, threads=1)
        built = self.module.build(bundle, precision, self.plan.tell)
        self.sizes[precision] = sum(map(len, built.files.values()))
        return start_built(bundle, self.target, precision, built)

    def _race(self, rivals: dict[str, Session], built: Built, floating: frozenset[str]) -> dict[str, list[float]]:
        if not self.here:
            return {}
        quantization = self.plan.quantization(floating)
        with contextlib.closing(self.plan.session(self.target, built, quantization)) as session:
            return race.race({**rivals, "int8": session}, self.plan.chosen.pixels[:1], LONG)


def _gates(step: Step) -> str:
    return "; ".join(f"{gate}{'' if gate.passed else ' FAILED'}" for gate in step.judgement.gates)
