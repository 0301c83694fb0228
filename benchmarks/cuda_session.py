"""The GPU session end to end: what is outside the network, in launches, time and memory.

    python benchmarks/cuda_session.py                  # a GPU, its driver and pycuda; writes results/cuda_session.json
    python benchmarks/cuda_session.py --check          # a few frames, right or wrong: for compute-sanitizer

The network runs on the best engine that starts here (benchmarks/session_engines.py): TensorRT, TensorRT for RTX, ONNX
Runtime on CUDA, else a copy of outputs computed beforehand; the result says which, and why not another. Everything else
is what `Detector.predict` does on a board. It has to find what the host's own pipeline finds around the same engine,
with and without a CUDA graph, in eight threads, and after 100 000 frames host and GPU hold as much memory as before.
Time outside the network is a frame's time less that of the bare engine, both waited for; of a frame of 1080p, which
the goal is for and whose copy to the GPU is most of it, and of one as large as the network's input. Without a GPU: exit
code 4.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from machine import conditions, write

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import session_engines  # noqa: E402

from edgekd._detector import Detector, DetectorInfo  # noqa: E402
from edgekd._selftest import _OnTheHost, _same  # noqa: E402
from edgekd._selftest_board import resident_bytes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekd.targets.tensorrt._session import TensorRTSession
    from numpy.typing import NDArray

    from edgekd._bundle import Bundle

SIZE, CLASSES = 640, 80
FRAME = (1080, 1920, 3)
GOAL_MS = 0.15
THREADS = 8
WARMUP = 50
GROWTH_BYTES = 8 << 20
GROWTH_FRAMES = 100_000  # however few are timed: a leak of 100 bytes a frame has to show
CHECKED_FRAMES = 20
CHECKED_SIZE = 160


def measure(
    bundle: Bundle, frame: NDArray[np.uint8], frames: int, only: str | None = None, *, check: bool = False
) -> dict[str, Any]:
    """Run everything; `wrong` lists what was not as it should be.

    Args:
        bundle: with the portable graph.
        frame: to show.
        frames: that are timed.
        only: engine to take; None: the best that starts here.
        check: results alone, no times and no growth.
    """
    with session_engines.chosen(bundle, _outputs(bundle), only) as (session, engine, not_run):
        detector = Detector(bundle.manifest, session, DetectorInfo(session.info, "benchmark"))
        host = Detector(bundle.manifest, _OnTheHost(session), detector.info)  # type: ignore[arg-type]
        expected = host.predict(frame)
        turns = ("queued", "captured", "replayed")
        wrong = [f"{turn}: not the host's result" for turn in turns if not _same(detector.predict(frame), expected)]
        found = {
            "gpu": session.info.device, "engine": engine, "runtime": session.info.runtime, "not_run": not_run,
            "objects": len(expected), "frames": frames, "wrong": wrong,
        }  # fmt: skip
        if not check:
            small = frame[: bundle.manifest.input.height, : bundle.manifest.input.width]
            found["small_frame"] = {"frame": small.shape, **times(session, detector, small, frames)}
            found |= times(session, detector, frame, frames)
        wrong += in_threads(detector, frame, expected, max(1, frames // THREADS))
        if not check:
            found["growth_frames"] = GROWTH_FRAMES
            found["growth_bytes"] = grown(session, lambda: detector.predict(frame), GROWTH_FRAMES)
            wrong += too_much(found["growth_bytes"])
        return found


def _outputs(bundle: Bundle) -> list[NDArray[Any]]:
    """Return what the network gives for noise, for the engine that is a copy."""
    import onnxruntime

    network = onnxruntime.InferenceSession(bytes(bundle.graph()), providers=["CPUExecutionProvider"])
    spec = bundle.manifest.input
    noise = np.random.default_rng(0).normal(size=(1, 3, spec.height, spec.width)).astype(np.float32)
    return [np.ascontiguousarray(item[0]) for item in network.run(None, {spec.name: noise})]


def times(session: TensorRTSession, detector: Detector, frame: NDArray[np.uint8], frames: int) -> dict[str, Any]:
    """Time a frame as a replayed graph, the same queued kernel by kernel, and the bare engine."""
    replayed = timed(lambda: detector.predict(frame), frames)
    lane = next(iter(session._idle.values()))[0]
    graphs = len(lane._graphs)
    bare = timed(lambda: bare_engine(session, lane), frames)
    alone = timed(replayed_engine(session, lane), frames) if graphs else bare
    with session._device.current():
        lane._forget()
    with mock.patch.object(session, "_captures", new=False):  # which a lane learns when it is lent
        queued = timed(lambda: detector.predict(frame), frames)
        with mock.patch.object(lane._stream, "launch", wraps=lane._stream.launch) as launch:
            detector.predict(frame)
    lane.captures = bool(graphs)
    # Less the faster of both: what a graph saves inside the network is none of ours.
    outside = statistics.median(replayed) - min(statistics.median(bare), statistics.median(alone))
    return {
        "outside_ms": round(outside, 4), "kernels_a_frame": launch.call_count, "graphs": graphs,
        "median_ms": {
            "frame, replayed": statistics.median(replayed), "frame, queued": statistics.median(queued),
            "bare engine": statistics.median(bare), "bare engine, replayed": statistics.median(alone),
        },
        "samples_ms": {"replayed": replayed[:2000], "queued": queued[:2000], "bare": bare[:2000]},
    }  # fmt: skip


def bare_engine(session: TensorRTSession, lane: Any) -> None:
    """Run the network, or what stands for it, and wait for it."""
    with session._device.current():
        lane._enqueue()
        lane._stream.synchronize()


def replayed_engine(session: TensorRTSession, lane: Any) -> Callable[[], None]:
    """Return what runs the network alone as a graph, and waits for it."""
    with session._device.current():
        lane._stream.capture()
        lane._enqueue()
        graph = lane._stream.captured()
    lane._graphs["the engine alone"] = graph  # freed with the lane's own

    def run() -> None:
        with session._device.current():
            graph.launch()
            lane._stream.synchronize()

    return run


def timed(call: Callable[[], Any], frames: int) -> list[float]:
    """Return milliseconds of each call, after some that do not count."""
    for _ in range(WARMUP):
        call()
    samples = []
    for _ in range(frames):
        begin = time.perf_counter()
        call()
        samples.append(round(1e3 * (time.perf_counter() - begin), 5))
    return samples


def in_threads(detector: Detector, frame: NDArray[np.uint8], expected: Any, calls: int) -> list[str]:
    """Let eight threads predict at once; return what was wrong."""
    wrong: list[str] = []

    def work(number: int) -> None:
        for call in range(calls):
            if not _same(detector.predict(frame), expected):
                wrong.append(f"thread {number}, call {call}: another result")
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def grown(session: TensorRTSession, call: Callable[[], Any], frames: int) -> dict[str, int]:
    """Return by how many bytes the process and the GPU's used memory grow over so many frames."""
    for _ in range(WARMUP):
        call()
    before = held(session)
    for _ in range(frames):
        call()
    after = held(session)
    return {where: after[where] - before[where] for where in before}


def held(session: TensorRTSession) -> dict[str, int]:
    """Return the bytes that the process has, and those of the GPU that are free, as less than 0: differences count."""
    with session._device.current():
        return {"host": resident_bytes(), "gpu": -session_engines.GPU.free_bytes()}


def too_much(growth: dict[str, int]) -> list[str]:
    """Return a line for each memory that grew."""
    return [
        f"{where} memory grew by {size / 2**20:.1f} MiB over {GROWTH_FRAMES} frames"
        for where, size in growth.items()
        if size > GROWTH_BYTES
    ]


def bundle_of(size: int, classes: int) -> Bundle:
    """Return a detector of random weights with as many outputs as one that is used."""
    from edgekd._bundle import Bundle
    from tests.conformance.bundles import manifest
    from tests.conformance.detectors import detector

    spec = manifest(size, size)
    names = tuple(f"class{number}" for number in range(classes))
    rows = spec.outputs[0].shape[0]
    outputs = (spec.outputs[0], dataclasses.replace(spec.outputs[1], shape=(rows, classes)))
    whole = dataclasses.replace(spec, classes=names, outputs=outputs)
    return Bundle.create(whole, {"graph.onnx": detector(size, size, classes)})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="that are timed (default: 2000)")
    parser.add_argument("--engine", choices=session_engines.ENGINES, help="this one, whatever else would start")
    parser.add_argument("--check", action="store_true", help="a few frames, right or wrong; writes nothing")
    args = parser.parse_args()
    try:
        session_engines.GPU.start()
    except (ImportError, OSError) as error:
        print(f"no GPU to measure on: {error}", file=sys.stderr)
        return 4
    frame = np.random.default_rng(1).integers(0, 256, FRAME, np.uint8)
    if args.check:
        found = measure(bundle_of(CHECKED_SIZE, CLASSES), frame, CHECKED_FRAMES, args.engine, check=True)
        print(f"{found['engine']}: {found['wrong'] or 'nothing wrong'}")
        return 1 if found["wrong"] else 0
    found = measure(bundle_of(SIZE, CLASSES), frame, args.frames, args.engine)
    print(f"wrote {write('cuda_session', {**conditions(), 'goal_ms': GOAL_MS, 'frame': FRAME, **found})}")
    for name, reason in found["not_run"].items():
        print(f"not on {name}: {reason}")
    wrong = found["wrong"] or "nothing wrong"
    print(
        f"{found['engine']}: outside the network {found['outside_ms']:.3f} ms (goal {GOAL_MS} ms), "
        f"{found['small_frame']['outside_ms']:.3f} ms with a frame of the network's size, {wrong}"
    )
    return 1 if found["wrong"] else 0 if found["outside_ms"] <= GOAL_MS else 3


if __name__ == "__main__":
    sys.exit(main())
