"""A compiled OpenVINO model with one infer request a concurrent caller."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from edgekd._session import LayerTime, Outputs, SessionInfo, check_mode, check_outputs, check_pixels, output_arrays
from edgekd.errors import ClosedError, SessionError, TargetUnavailableError, UsageError

from . import DEVICES
from ._cache import Kept

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact

ARITHMETIC = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
MOST_TEXT = 1 << 28  # bytes of IR that a bundle may unpack to
REBUILD = "edgekd build model.bin --target openvino"
DRIVERS = "a GPU wants Intel's compute runtime (intel-opencl-icd), an NPU its driver (linux-npu-driver)"


class OpenVINOSession:
    """IR of batch 1 on one device; a batch of B runs as B requests, as many at once as the device has streams.

    An infer request serves one call at a time, so each concurrent caller takes one from a pool that grows to the
    number of callers. It reads the caller's pixels and writes the arrays that the caller gets; nothing is copied.
    """

    def __init__(
        self,
        bundle: Bundle,
        artifact: Artifact,
        *,
        device: str,
        threads: int,
        mode: str = "latency",
        cache: Path | None = None,
    ) -> None:
        """Compile the IR of the artifact, or take what was compiled before from `cache`."""
        check_mode(mode)
        _refuse_fork()
        plugin = _plugin(device)
        if threads and plugin != "CPU":
            raise UsageError(f"threads={threads} is for the CPU; device={device!r} takes threads=0 only")
        config = {**_config(plugin, artifact.precision, threads), "PERFORMANCE_HINT": mode.upper()}
        self._compiled: Any = _compile(bundle, artifact, plugin, config, cache)
        self._again = partial(_compile, bundle, artifact, plugin, {**config, "PERF_COUNT": True}, None)
        self._parallel = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._input = bundle.manifest.input
        self._outputs = bundle.manifest.outputs
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._info = SessionInfo(
            "openvino",
            artifact.precision,
            "int8" if artifact.precision == "int8" else _arithmetic(self._compiled),
            plugin.lower(),
            f"OpenVINO {openvino.__version__.split('-')[0]}",
        )

    @property
    def info(self) -> SessionInfo:
        """What runs; `compute` is what the compiled model says: fp32 for fp16 artifacts on a CPU without float16."""
        return self._info

    @property
    def parallel(self) -> int:
        """How many requests at once OpenVINO thinks the device is worth."""
        return self._parallel

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        """Run the network on `(B, 3, H, W)` float32; see `edgekd._session.Session.infer`."""
        check_pixels(pixels, self._input)
        outputs = output_arrays(len(pixels), self._outputs, out)
        requests = self._take(min(len(pixels), self._parallel))
        try:
            for start in range(0, len(pixels), len(requests)):
                rows = range(start, min(start + len(requests), len(pixels)))
                self._run(list(zip(requests, rows, strict=False)), pixels, outputs)
        except RuntimeError as error:
            raise SessionError(f"OpenVINO failed on {self._info.device}: {error}") from error
        with self._lock:
            if self._compiled is not None:
                self._idle += requests
        return outputs

    def layer_times(self, pixels: NDArray[np.float32], runs: int) -> list[LayerTime]:
        """Compile the model once more, with counters; see `edgekd._session.LayeredSession.layer_times`."""
        check_pixels(pixels, self._input)
        if self._compiled is None:
            raise ClosedError("this session was closed; load the bundle again")
        request = self._again().create_infer_request()
        found: dict[str, tuple[str, float]] = {}
        try:
            request.set_input_tensor(openvino.Tensor(pixels[:1], shared_memory=True))
            for run in range(runs + 1):
                request.infer()
                for layer in request.get_profiling_info() if run else ():
                    before = found.get(layer.node_name, ("", 0.0))[1]
                    found[layer.node_name] = (layer.node_type, before + layer.real_time.total_seconds())
        except RuntimeError as error:
            raise SessionError(f"OpenVINO failed on {self._info.device}: {error}") from error
        return [LayerTime(name, kind, 1e3 * seconds / runs) for name, (kind, seconds) in found.items() if seconds]

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        with self._lock:
            self._compiled = None
            self._idle.clear()

    def _run(self, pairs: list[tuple[Any, int]], pixels: NDArray[np.float32], outputs: Outputs) -> None:
        """Run one row of the batch on each request, all at once."""
        for request, row in pairs:
            request.set_input_tensor(openvino.Tensor(pixels[row : row + 1], shared_memory=True))
            for spec, output in zip(self._outputs, outputs, strict=True):
                request.set_tensor(spec.name, openvino.Tensor(output[row : row + 1], shared_memory=True))
        if len(pairs) == 1:
            pairs[0][0].infer()
            return
        started = []
        try:
            for request, _ in pairs:
                request.start_async()
                started.append(request)
        finally:
            _wait(started)

    def _take(self, count: int) -> list[Any]:
        with self._lock:
            if self._compiled is None:
                raise ClosedError("this session was closed; load the bundle again")
            return [self._idle.pop() if self._idle else self._compiled.create_infer_request() for _ in range(count)]


def _wait(requests: list[Any]) -> None:
    """Wait for all of them, also when one fails: each writes to the caller's arrays until it has ended."""
    with contextlib.ExitStack() as stack:
        for request in requests:
            stack.callback(request.wait)


_used_in: list[int] = []


def _refuse_fork() -> None:
    """Refuse the child of a process that used OpenVINO: now and then it would wait for one of its locks for ever."""
    if _used_in and _used_in[0] != os.getpid():
        raise SessionError(
            "OpenVINO was used before this process was forked, and its threads and locks do not survive that. Start "
            "the process by spawn: multiprocessing.get_context('spawn'), or DataLoader(multiprocessing_context="
            "'spawn'); or load the bundle only after the fork"
        )


@cache
def _core() -> Any:
    """Return the process's one Core: each would load the device plugins again."""
    _used_in.append(os.getpid())
    return openvino.Core()


def _plugin(device: str) -> str:
    """Return OpenVINO's name of a device spelling ("intel:gpu" -> "GPU"), checked against what is here."""
    wanted = device.lower()
    if wanted != "auto" and not any(
        wanted == item or (item.endswith(".*") and wanted.startswith(item[:-1])) for item in DEVICES
    ):
        raise UsageError(f"OpenVINO has no device {device!r}; possible: auto, {', '.join(DEVICES)}")
    wanted = wanted.removeprefix("intel:")
    name = "CPU" if wanted in ("auto", "openvino", "intel") else wanted.upper()
    here = _core().available_devices
    if not any(item == name or item.startswith(f"{name}.") for item in here):
        raise TargetUnavailableError(f"OpenVINO sees no {name} here, only {', '.join(here)}; {DRIVERS}")
    return name


def _hint(plugin: str, precision: str) -> str:
    """Return the arithmetic to ask for, explicitly: left alone, the CPU plugin computes fp32 models in bfloat16.

    Where float16 is missing, fp16 artifacts run in float32, not in bfloat16: with 3 bits less it moved scores of real
    detectors by up to 0.2, and fp16 promises 0.01.

    Raises:
        UsageError: the device has no float32 and the artifact is fp32.
    """
    capable = _core().get_property(plugin, "OPTIMIZATION_CAPABILITIES")
    if precision == "fp16" and "FP16" in capable:
        return "f16"
    if "FP32" not in capable:
        raise UsageError(
            f"{plugin} computes in {', '.join(capable)}, not in fp32. To build for it: edgekd build model.bin "
            "--target openvino --precision fp16; then load with precision='fp16'"
        )
    return "f32"


def _xml(bundle: Bundle, artifact: Artifact) -> bytes:
    """Return the IR's text; early bundles hold it as it is, later ones compressed."""
    if "model.xml" in artifact.files:
        return bytes(bundle.file(artifact, "model.xml"))
    inflating = zlib.decompressobj()
    try:
        text = inflating.decompress(bundle.file(artifact, "model.xml.z"), MOST_TEXT)
    except zlib.error as error:
        raise SessionError(f"the artifact's graph cannot be unpacked ({error}); rebuild it: {REBUILD}") from error
    if not inflating.eof:
        raise SessionError(f"the artifact's graph is cut off, or above {MOST_TEXT} bytes; rebuild it: {REBUILD}")
    return text


def _config(plugin: str, precision: str, threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _hint(plugin, precision)}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    return config


def _compile(bundle: Bundle, artifact: Artifact, plugin: str, config: dict[str, Any], cache: Path | None) -> Any:
    kept = None if cache is None else Kept(_core(), bundle, artifact, plugin, config, cache)
    if kept is not None and (found := kept.read()) is not None:
        return found
    xml = _xml(bundle, artifact)
    if b"<net" not in xml[:4096]:  # read_model would take ONNX bytes here as well
        raise SessionError("the artifact's graph is not OpenVINO IR; rebuild it: " + REBUILD)
    weights = np.frombuffer(bundle.file(artifact, "model.bin"), np.uint8)
    try:
        model = _core().read_model(xml, openvino.Tensor(weights))
        compiled = _core().compile_model(model, plugin, config)
    except RuntimeError as error:
        raise SessionError(
            f"OpenVINO {openvino.__version__} cannot start this artifact on {plugin}: {error}"
        ) from error
    got = {name: tuple(item.shape)[1:] for item in compiled.outputs for name in item.names}
    check_outputs(got, bundle.manifest.outputs, REBUILD)
    if kept is not None:
        kept.write(compiled)
    return compiled


def _arithmetic(compiled: Any) -> str:
    """Return the arithmetic the plugin settled on: a hint that the chip cannot follow falls back without a word."""
    kind: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return ARITHMETIC.get(kind, kind)
