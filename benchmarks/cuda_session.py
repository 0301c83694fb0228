"""The GPU session end to end, with a network that is a copy: what is outside it, in launches, time and memory.

    python benchmarks/cuda_session.py                  # a GPU, its driver and pycuda; writes results/cuda_session.json
    python benchmarks/cuda_session.py --frames 2000    # a first look

TensorRT runs on few of the machines that have a GPU, so its engine is stood in for by one that copies outputs computed
beforehand on the GPU: everything else is what `Detector.predict` does on a board. It has to find what the host's own
pipeline finds, with and without a CUDA graph, in eight threads, and after 100 000 frames hold as much memory as before.
Time outside the network is a frame's time less that of the bare copy, both waited for. Without a GPU: exit code 4.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
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

from edgekd.targets.tensorrt import _engines, _runtime, _session  # noqa: E402

from edgekd._detector import Detector, DetectorInfo  # noqa: E402
from edgekd._selftest import _OnTheHost, _resident_bytes, _same  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from edgekd._bundle import Bundle

SIZE, CLASSES = 640, 80
FRAME = (1080, 1920, 3)
GOAL_MS = 0.15
THREADS = 8
WARMUP = 50
GROWTH_BYTES = 8 << 20


class CopyEngine:
    """What a session asks of an engine; `outputs` is what the network gives, whatever it is shown."""

    def __init__(
        self, device: Any, tensors: Mapping[str, tuple[int, ...]], source: str, outputs: list[NDArray[Any]]
    ) -> None:
        """Put the outputs of one image on the GPU."""
        self._shapes, self._source = dict(tensors), source
        stream = device.stream()
        self._memory = [device.allocate(array.nbytes) for array in outputs]
        for memory, array in zip(self._memory, outputs, strict=True):
            stream.upload(memory.address, array)
        stream.synchronize()
        stream.free()
        self._bytes = [array.nbytes for array in outputs]

    def tensors(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shapes without the batch, and types."""
        return {name: (shape, "FLOAT") for name, shape in self._shapes.items()}

    def context(self, _source: str, shape: tuple[int, ...], addresses: Mapping[str, int]) -> CopyContext:
        """Return what copies to these addresses."""
        targets = [address for name, address in addresses.items() if name != self._source]
        pairs = [
            (target + row * size, memory.address, size)
            for target, memory, size in zip(targets, self._memory, self._bytes, strict=True)
            for row in range(shape[0])
        ]
        return CopyContext(pairs)

    def close(self) -> None:
        """Free the outputs."""
        while self._memory:
            self._memory.pop().free()


class CopyContext:
    """Copies on the GPU, in the place of a network."""

    copy: Callable[[int, int, int, int], None]  # (to, source, bytes, stream)

    def __init__(self, pairs: list[tuple[int, int, int]]) -> None:
        self._pairs = pairs

    def enqueue(self, handle: int) -> None:
        """Queue them."""
        for target, source, size in self._pairs:
            type(self).copy(target, source, size, handle)

    def close(self) -> None:
        """Nothing to free."""


def on_the_gpu() -> Callable[[int, int, int, int], None]:
    """Return the driver's copy between two places of its memory."""
    from edgekd.targets.tensorrt._pycuda import Driver

    driver = Driver()

    def copy(target: int, source: int, size: int, handle: int) -> None:
        driver(
            "cuMemcpyDtoDAsync_v2", ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size),
            ctypes.c_void_p(handle),
        )  # fmt: skip

    return copy


@contextlib.contextmanager
def opened(bundle: Bundle, outputs: list[NDArray[Any]]) -> Iterator[_session.TensorRTSession]:
    """Start the session of the TensorRT target with the stand-in for its engine."""
    manifest = bundle.manifest
    spec = manifest.input
    tensors = {spec.name: (3, spec.height, spec.width)} | {item.name: item.shape for item in manifest.outputs}

    def open_engine(_tensorrt: Any, device: Any, *_: Any, **__: Any) -> _engines.Opened:
        return _engines.Opened(CopyEngine(device, tensors, spec.name, outputs), ())  # type: ignore[arg-type]

    stand_in = _runtime.TensorRT(None, "no TensorRT: a copy", "10.0.0")
    artifact = mock.Mock(precision="fp32")
    with (
        mock.patch.object(_runtime, "find", return_value=stand_in),
        mock.patch.object(_session, "open_engine", open_engine),
    ):
        session = _session.TensorRTSession(bundle, artifact, device="auto")
    with contextlib.closing(session):
        yield session


def measure(bundle: Bundle, frame: NDArray[np.uint8], frames: int) -> dict[str, Any]:
    """Run everything; `wrong` lists what was not as it should be."""
    import onnxruntime

    network = onnxruntime.InferenceSession(bytes(bundle.graph()), providers=["CPUExecutionProvider"])
    spec = bundle.manifest.input
    noise = np.random.default_rng(0).normal(size=(1, 3, spec.height, spec.width)).astype(np.float32)
    outputs = [np.ascontiguousarray(item[0]) for item in network.run(None, {spec.name: noise})]
    wrong: list[str] = []
    with opened(bundle, outputs) as session:
        detector = Detector(bundle.manifest, session, DetectorInfo(session.info, "benchmark"))
        host = Detector(bundle.manifest, _OnTheHost(session), detector.info)  # type: ignore[arg-type]
        expected = host.predict(frame)
        turns = ("queued", "captured", "replayed")
        wrong += [f"{turn}: not the host's result" for turn in turns if not _same(detector.predict(frame), expected)]
        lane = next(iter(session._idle.values()))[0]
        replayed = timed(lambda: detector.predict(frame), frames)
        bare = timed(lambda: bare_copy(session, lane), frames)
        lane._captures = False
        with session._device.current():
            lane._forget()
        queued = timed(lambda: detector.predict(frame), frames)
        with mock.patch.object(lane._stream, "launch", wraps=lane._stream.launch) as launch:
            detector.predict(frame)
        lane._captures = True
        wrong += in_threads(detector, frame, expected, max(1, frames // THREADS))
        growth = grown(detector, frame, frames)
        if growth > GROWTH_BYTES:
            wrong.append(f"memory grew by {growth / 2**20:.1f} MiB over {frames} frames")
        outside = statistics.median(replayed) - statistics.median(bare)
        return {
            "gpu": session.info.device, "objects": len(expected), "frames": frames, "wrong": wrong,
            "outside_ms": round(outside, 4), "growth_bytes": growth, "kernels_a_frame": launch.call_count,
            "median_ms": {
                "frame, replayed": statistics.median(replayed), "frame, queued": statistics.median(queued),
                "bare copy": statistics.median(bare),
            },
            "samples_ms": {"replayed": replayed[:2000], "queued": queued[:2000], "bare": bare[:2000]},
        }  # fmt: skip


def bare_copy(session: _session.TensorRTSession, lane: Any) -> None:
    """Do what stands for the network, and wait for it."""
    with session._device.current():
        lane._enqueue()
        lane._stream.synchronize()


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


def grown(detector: Detector, frame: NDArray[np.uint8], frames: int) -> int:
    """Return by how many bytes the process grows over so many frames."""
    for _ in range(WARMUP):
        detector.predict(frame)
    before = _resident_bytes()
    for _ in range(frames):
        detector.predict(frame)
    return _resident_bytes() - before


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
    parser.add_argument("--frames", type=int, default=100_000)
    args = parser.parse_args()
    try:
        CopyContext.copy = staticmethod(on_the_gpu())  # type: ignore[assignment]
    except (ImportError, OSError) as error:
        print(f"no GPU to measure on: {error}", file=sys.stderr)
        return 4
    frame = np.random.default_rng(1).integers(0, 256, FRAME, np.uint8)
    found = measure(bundle_of(SIZE, CLASSES), frame, args.frames)
    print(f"wrote {write('cuda_session', {**conditions(), 'goal_ms': GOAL_MS, 'frame': FRAME, **found})}")
    print(f"outside the network {found['outside_ms']:.3f} ms (goal {GOAL_MS}), {found['wrong'] or 'nothing wrong'}")
    return 1 if found["wrong"] else 0 if found["outside_ms"] <= GOAL_MS else 3


if __name__ == "__main__":
    sys.exit(main())
