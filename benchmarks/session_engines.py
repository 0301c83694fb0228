"""What runs the network in benchmarks/cuda_session.py: the best that this machine has, and why not a better one.

In this order: TensorRT; TensorRT for RTX, where it accepts the chip; ONNX Runtime on CUDA; and a copy, on the GPU, of
outputs computed beforehand, which every GPU has. The first two go through the target's own code and nothing else:
`build`, the alias, the cache, the session. The others are put in the place of the engine alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np
from edgekd.targets.tensorrt import _engines, _runtime, _session

from edgekd._manifest import Artifact
from edgekd._target import load_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from edgekd._bundle import Bundle

CUDA = "CUDAExecutionProvider"


class Gpu:
    """The driver's calls that the device layer has no need of; another in tests."""

    def __init__(self) -> None:
        self._driver: Any = None

    def start(self) -> None:
        """Find the driver.

        Raises:
            ImportError: no pycuda.
            OSError: no driver.
        """
        from edgekd.targets.tensorrt._pycuda import Driver

        self._driver = Driver()

    def copy(self, target: int, source: int, size: int, handle: int) -> None:
        """Queue a copy between two places of the GPU's memory."""
        self._driver(
            "cuMemcpyDtoDAsync_v2", ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size),
            ctypes.c_void_p(handle),
        )  # fmt: skip

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory nobody has; a context is current."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._driver("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def queue(self, handle: int, work: Callable[[], None]) -> None:
        """Do what queues itself on a stream."""
        del handle
        work()


GPU = Gpu()


class Chosen(NamedTuple):
    """A started session, the name of what runs the network, and why what comes before it does not."""

    session: _session.TensorRTSession
    engine: str
    not_run: dict[str, str]


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

    def __init__(self, pairs: list[tuple[int, int, int]]) -> None:
        self._pairs = pairs

    def enqueue(self, handle: int) -> None:
        """Queue them."""
        for target, source, size in self._pairs:
            GPU.copy(target, source, size, handle)

    def close(self) -> None:
        """Nothing to free."""


class OrtEngine:
    """ONNX Runtime in the place of an engine; a session a context, since it is bound to a stream."""

    def __init__(self, graph: bytes, tensors: Mapping[str, tuple[int, ...]], provider: str = CUDA) -> None:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            raise ImportError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu")
        self._graph, self._shapes, self._provider = graph, dict(tensors), provider

    def tensors(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shapes without the batch, and types."""
        return {name: (shape, "FLOAT") for name, shape in self._shapes.items()}

    def context(self, source: str, shape: tuple[int, ...], addresses: Mapping[str, int]) -> OrtContext:
        """Return what reads and writes at these addresses."""
        shapes = {name: (shape[0], *rest) for name, rest in self._shapes.items()}
        return OrtContext(
            self._graph, self._provider, source, {name: (addresses[name], shapes[name]) for name in shapes}
        )

    def close(self) -> None:
        """Nothing to free."""


class OrtContext:
    """One session of ONNX Runtime with its addresses; started on the stream that first comes."""

    def __init__(
        self, graph: bytes, provider: str, source: str, places: Mapping[str, tuple[int, tuple[int, ...]]]
    ) -> None:
        self._graph, self._provider, self._source, self._places = graph, provider, source, places
        self._run: Callable[[], None] | None = None

    def enqueue(self, handle: int) -> None:
        """Queue the network."""
        if self._run is None:
            self._run = self._start(handle)
        GPU.queue(handle, self._run)

    def close(self) -> None:
        """Let the session go."""
        self._run = None

    def _start(self, handle: int) -> Callable[[], None]:
        import onnxruntime

        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 3
        # No search for the fastest convolution and no TF32: every context has to give the same bits.
        settings = {"user_compute_stream": str(handle), "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
        wanted: Any = (CUDA, settings) if self._provider == CUDA else self._provider
        session = onnxruntime.InferenceSession(self._graph, quiet, providers=[wanted])
        if session.get_providers()[0] != self._provider:  # it falls back to the CPU without an error
            raise ImportError(f"ONNX Runtime did not start {self._provider}: its CUDA or cuDNN is missing")
        place = "cuda" if self._provider == CUDA else "cpu"
        binding = session.io_binding()
        for name, (address, shape) in self._places.items():
            bind = binding.bind_input if name == self._source else binding.bind_output
            bind(name, place, 0, np.float32, shape, address)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # the lane waits for its stream
        return lambda: session.run_with_iobinding(binding, options)


def _tensors(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    spec = bundle.manifest.input
    return {spec.name: (3, spec.height, spec.width)} | {item.name: item.shape for item in bundle.manifest.outputs}


def _in_the_place(bundle: Bundle, name: str, engine: Callable[[Any], Any]) -> _session.TensorRTSession:
    """Start the session of the TensorRT target with another thing in the place of its engine."""

    def open_engine(_tensorrt: Any, device: Any, *_: Any, **__: Any) -> _engines.Opened:
        return _engines.Opened(engine(device), ())

    stand_in = _runtime.TensorRT(None, f"no TensorRT: {name}", "10.0.0")
    artifact: Any = mock.Mock(precision="fp32")
    with (
        mock.patch.object(_runtime, "find", return_value=stand_in),
        mock.patch.object(_session, "open_engine", open_engine),
    ):
        return _session.TensorRTSession(bundle, artifact, device="auto")


def _tensorrt(bundle: Bundle, which: int) -> _session.TensorRTSession:
    """Build and start as the target does on a board, by one of the packages that its alias knows."""
    found = _runtime.find(_runtime.MODULES[which : which + 1])
    result = load_target("tensorrt").build(bundle, "fp32", print)
    files = {name: f"artifacts/tensorrt/fp32/{name}" for name in result.files}
    artifact = Artifact(
        target="tensorrt", precision="fp32", files=files, options=dict(result.options), tools=dict(result.tools)
    )
    chunks = {files[name]: content for name, content in result.files.items()}
    whole = bundle.replace(dataclasses.replace(bundle.manifest, artifacts=(artifact,)), chunks)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(_runtime, "find", return_value=found):
        return _session.TensorRTSession(whole, artifact, device="auto", cache=Path(folder))


def _onnx_runtime(bundle: Bundle, _: list[NDArray[Any]]) -> _session.TensorRTSession:
    engine = OrtEngine(bytes(bundle.graph()), _tensors(bundle))
    return _in_the_place(bundle, "ONNX Runtime on CUDA", lambda _: engine)


def _copy(bundle: Bundle, outputs: list[NDArray[Any]]) -> _session.TensorRTSession:
    spec = bundle.manifest.input
    return _in_the_place(bundle, "a copy", lambda device: CopyEngine(device, _tensors(bundle), spec.name, outputs))


ENGINES: dict[str, Callable[[Any, list[NDArray[Any]]], _session.TensorRTSession]] = {
    "TensorRT": lambda bundle, _: _tensorrt(bundle, 0),
    "TensorRT-RTX": lambda bundle, _: _tensorrt(bundle, 1),
    "ONNX Runtime on CUDA": _onnx_runtime,
    "copy": _copy,
}
"""By name, the first that runs counts."""


@contextlib.contextmanager
def chosen(bundle: Bundle, outputs: list[NDArray[Any]], only: str | None = None) -> Iterator[Chosen]:
    """Start the first engine that runs the network once.

    Args:
        bundle: with the portable graph.
        outputs: of one image, for the copy.
        only: name of the one to take; what goes wrong with it is raised.
    """
    not_run: dict[str, str] = {}
    names = list(ENGINES) if only is None else [only]
    for name in names:
        try:
            session = _started(ENGINES[name], bundle, outputs)
        except Exception as error:  # of a vendor's package on a machine that nobody has seen
            if name == names[-1]:
                raise
            not_run[name] = f"{type(error).__name__}: {error}"
            continue
        with contextlib.closing(session):
            yield Chosen(session, name, not_run)
        return


def _started(
    start: Callable[[Any, list[NDArray[Any]]], _session.TensorRTSession], bundle: Bundle, outputs: list[NDArray[Any]]
) -> _session.TensorRTSession:
    """Start a session, and let it run the network: some find out only then that they cannot."""
    session = start(bundle, outputs)
    try:
        spec = bundle.manifest.input
        session.infer(np.zeros((1, 3, spec.height, spec.width), np.float32))
    except BaseException:
        session.close()
        raise
    return session
