"""What `selftest` tries besides of a target that compiles on the board: builds, the bare engine, the exported one."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import geometry, ops
from ._preprocess import to_rgb
from ._verify import TOLERANCES, Tolerance, check_artifact, golden_samples
from .errors import GateError, HostError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

    from ._bundle import Bundle
    from ._manifest import Artifact, Suppression
    from ._session import BareSession, Outputs
    from ._target import CompilingTarget

    Found = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
DLA, DLA_PRECISION = "dla:0", "fp16"
GOAL_MS = 0.7  # outside the network, on an Orin Nano
LOOK_S = 0.02
MEMINFO = Path("/proc/meminfo")
STATM = Path("/proc/self/statm")
MIB = 1 << 20
STRADDLE = 0.05  # of an overlap, around the threshold: rounding decides there


class Outcome(NamedTuple):
    """What a check found: "passed", "failed" or "skipped", one sentence, and its numbers by name, unit last."""

    status: str
    detail: str
    figures: Mapping[str, float] = {}
    samples_ms: Sequence[float] = ()


class MemoryWatch:
    """How far the machine's available memory falls, and this process's grows, while a `with` block runs.

    On a board the GPU's memory is the machine's; that of a graphics card is not seen. `looks` says how often both were
    read: a runtime that never lets another thread run leaves it at 2, and then the peak was missed.
    """

    def __enter__(self) -> Self:
        self._available = self._least = _available_bytes()
        self._resident = self._most = resident_bytes()
        self.looks = 1
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def figures(self) -> dict[str, float]:
        """Return what was taken at most, in MiB, and the looks."""
        return {
            "machine_peak_mib": round((self._available - self._least) / MIB, 1),
            "process_peak_mib": round((self._most - self._resident) / MIB, 1), "looks": self.looks,
        }  # fmt: skip

    def _watch(self) -> None:
        while not self._done.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        self.looks += 1
        self._least = min(self._least, _available_bytes())
        self._most = max(self._most, resident_bytes())


def built(module: CompilingTarget, bundle: Bundle, artifact: Artifact, device: str) -> Outcome:
    """Build the engine into an empty folder, whatever is kept elsewhere, and watch time and memory."""
    with tempfile.TemporaryDirectory(prefix="edgekd-selftest-") as folder:
        seconds, figures, _ = _build(module, bundle, artifact, device, Path(folder))
    return Outcome(PASSED, _took(seconds, figures), {"build_s": seconds, **figures})


def offloaded(module: CompilingTarget, bundle: Bundle, artifact: Artifact) -> Outcome:
    """Build for the DLA, run the golden set on it, and name the layers that it leaves to the GPU."""
    if artifact.precision != DLA_PRECISION:
        return Outcome(SKIPPED, f"the DLA computes in float16, and this is the {artifact.precision} artifact")
    reason = module.probe_dla()
    if reason is not None:
        return Outcome(SKIPPED, reason)
    with tempfile.TemporaryDirectory(prefix="edgekd-selftest-") as folder:
        cache = Path(folder)
        seconds, figures, left = _build(module, bundle, artifact, DLA, cache)
        report = check_artifact(bundle, artifact, golden_samples(bundle), device=DLA, cache=cache)
    figures = {"build_s": seconds, **figures, "layers_left": len(left)}
    if report.score_difference is not None:
        figures["score_difference"] = report.score_difference
    detail = f"{_took(seconds, figures)}; {len(left)} layers left to the GPU: {', '.join(left) or 'none'}"
    failed = report.status == FAILED
    return Outcome(FAILED if failed else PASSED, f"{report.reason}; {detail}" if failed else detail, figures)


def outside(session: BareSession, predict_p50_ms: float, pixels: NDArray[np.float32], runs: int) -> Outcome:
    """Say what `predict` takes longer than the bare engine; a figure, no verdict."""
    samples = session.bare_ms(pixels, runs)
    bare = float(np.percentile(samples, 50))
    more = predict_p50_ms - bare
    figures = {"outside_ms": more, "predict_p50_ms": predict_p50_ms, "engine_p50_ms": bare, "goal_ms": GOAL_MS}
    detail = f"{more:.2f} ms: predict {predict_p50_ms:.2f} ms, the bare engine {bare:.2f} ms; goal {GOAL_MS} ms"
    return Outcome(PASSED, detail, {name: round(value, 4) for name, value in figures.items()}, samples)


def exported(module: CompilingTarget, bundle: Bundle, artifact: Artifact, device: str) -> Outcome:
    """Make the single engine as `edgekd export` does, and compare what it finds on the golden set with the session."""
    from ._export import export_engine

    reason = module.probe_single_engine()
    if reason is None and bundle.manifest.task != "detect":
        reason = "an anomaly network has no boxes to suppress"
    if reason is not None or bundle.path is None:
        return Outcome(SKIPPED, reason or "the bundle is no file")
    with tempfile.TemporaryDirectory(prefix="edgekd-selftest-") as folder:
        out = Path(folder) / "model.engine"
        begin = time.perf_counter()
        try:
            with MemoryWatch() as watch:
                export_engine(bundle.path, out, precision=artifact.precision)
        except (HostError, GateError) as error:
            return Outcome(SKIPPED, str(error))
        seconds = round(time.perf_counter() - begin, 3)
        plan = out.read_bytes()
    found = module.run_single_engine(plan, _letterboxed(bundle))
    with contextlib.closing(module.load(bundle, artifact, device=device)) as session:
        raw = [session.infer(pixels) for pixels, _ in golden_samples(bundle)]
    tolerance = TOLERANCES.get(artifact.precision, Tolerance(2e-2, 2.0, all_rows=False))
    figures = {"build_s": seconds, **watch.figures(), "engine_mib": round(len(plan) / MIB, 2)}
    return _judged(raw, found, bundle.manifest.predict, tolerance, figures)


def _build(
    module: CompilingTarget, bundle: Bundle, artifact: Artifact, device: str, folder: Path
) -> tuple[float, dict[str, float], tuple[str, ...]]:
    """Return seconds, memory and size of a build into a folder, and the layers left over."""
    begin = time.perf_counter()
    with MemoryWatch() as watch:
        session: Any = module.load(bundle, artifact, device=device, cache=folder)
        seconds = round(time.perf_counter() - begin, 3)
        left = tuple(session.left_over)
        session.close()
    size = max((item.stat().st_size for item in folder.glob("*.engine")), default=0)  # not the timings beside it
    return seconds, {**watch.figures(), "engine_mib": round(size / MIB, 2)}, left


def _took(seconds: float, figures: Mapping[str, float]) -> str:
    return (
        f"{seconds:.1f} s, {figures['machine_peak_mib']:.0f} MiB of the machine's memory at most, "
        f"the engine has {figures['engine_mib']:.1f} MiB"
    )


def _judged(
    raw: Sequence[Outputs],
    found: Sequence[Found],
    predict: Suppression,
    tolerance: Tolerance,
    figures: dict[str, float],
) -> Outcome:
    """Compare an engine's detections with raw outputs; what rounding may decide the other way is counted apart."""
    limits = {name: getattr(predict, name) for name in ("conf", "iou", "max_det", "max_candidates")}
    totals = {"objects": 0, "borderline": 0, "different": 0}
    worst = {"score_difference": 0.0, "box_difference_px": 0.0}
    for outputs, theirs in zip(raw, found, strict=True):
        boxes, scores = outputs[0][0], outputs[1][0]
        ours = ops.suppress(boxes, scores, **limits)
        true = np.array([_is_a_row(boxes, scores, theirs, row, tolerance) for row in range(len(theirs[1]))], bool)
        pairs, mine, others = _matched(ours, theirs, tolerance)
        totals["objects"] += len(ours[1])
        for i, j in pairs:
            apart = float(geometry.box_distances(ours[0][[i]], theirs[0][[j]])[0])
            worst["box_difference_px"] = max(worst["box_difference_px"], apart)
            worst["score_difference"] = max(worst["score_difference"], abs(float(ours[1][i]) - float(theirs[1][j])))
        genuine = (theirs[0][true], theirs[1][true], theirs[2][true])
        near = [_borderline(ours, row, genuine, predict, tolerance) for row in mine]
        near += [bool(true[row]) and _borderline(theirs, row, ours, predict, tolerance) for row in others]
        totals["borderline"] += sum(near)
        totals["different"] += len(near) - sum(near)
    detail = (
        f"{figures['build_s']:.1f} s; {totals['objects']} objects on {len(raw)} golden images, scores within "
        f"{worst['score_difference']:.1e}, boxes within {worst['box_difference_px']:.4f} px, {totals['borderline']} "
        f"borderline, {totals['different']} different"
    )
    return Outcome(FAILED if totals["different"] else PASSED, detail, {**figures, **totals, **worst})


def _is_a_row(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], found: Found, row: int, tolerance: Tolerance
) -> bool:
    """Whether a detection is a row of the raw outputs, but for rounding: else the network gave something else."""
    like = boxes[np.abs(scores[:, found[2][row]] - found[1][row]) <= tolerance.score]
    if not len(like):
        return False
    apart = geometry.box_distances(np.repeat(found[0][[row]], len(like), 0), like)
    return bool(apart.min() <= tolerance.box_px)


def _matched(ours: Found, theirs: Found, tolerance: Tolerance) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Return the pairs of rows that are one object, and the rows that only one side has."""
    free = set(range(len(theirs[1])))
    pairs, alone = [], []
    for i in range(len(ours[1])):
        near = [
            j for j in sorted(free)
            if ours[2][i] == theirs[2][j] and abs(float(ours[1][i]) - float(theirs[1][j])) <= tolerance.score
        ]  # fmt: skip
        apart = geometry.box_distances(np.repeat(ours[0][[i]], len(near), 0), theirs[0][near]) if near else np.empty(0)
        if near and float(apart.min()) <= tolerance.box_px:
            pairs.append((i, near[int(apart.argmin())]))
            free.remove(pairs[-1][1])
        else:
            alone.append(i)
    return pairs, alone, sorted(free)


def _borderline(one: Found, row: int, other: Found, predict: Suppression, tolerance: Tolerance) -> bool:
    """Whether rounding explains that only one side kept a row.

    It has about the least score, or on the other side a rival of about its score, or that overlaps by about the limit.
    """
    boxes, scores, labels = one
    if float(scores[row]) <= predict.conf + tolerance.score:
        return True
    same = other[2] == labels[row]
    if not same.any():
        return False
    overlap = (ops.iou_rotated if boxes.shape[1] == 5 else ops.iou)(boxes[[row]], other[0][same])[0]
    swapped = np.abs(other[1][same] - scores[row]) <= 2 * tolerance.score
    return bool(((overlap > predict.iou - STRADDLE) & (swapped | (overlap < predict.iou + STRADDLE))).any())


def _letterboxed(bundle: Bundle) -> list[NDArray[np.float32]]:
    """Return the golden images as the single engine takes them: `(1, 3, H, W)` float32, 0 to 255."""
    spec = bundle.manifest.input
    found = []
    for item in bundle.manifest.golden:
        rgb, _ = to_rgb(bytes(bundle.chunk(item.image)))
        pixels, _ = ops.letterbox(
            rgb, spec.height, spec.width, swap=spec.color != "rgb", mean=(0, 0, 0), std=(1, 1, 1), pad=spec.pad
        )
        found.append(np.ascontiguousarray(pixels[None], np.float32))
    return found


def _available_bytes() -> int:
    """Return the memory that the system could still give; 0 where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def resident_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")  # 64 KiB under some kernels of ARM
