"""A started ONNX Runtime session; its `run` is thread-safe and returns fresh arrays."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from edgekd._session import (
    LayerTime,
    Outputs,
    SessionInfo,
    check_mode,
    check_outputs,
    check_pixels,
    cpu_threads,
    output_arrays,
)
from edgekd.errors import ClosedError, SessionError, UsageError

from . import DEVICES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact

ERRORS_ONLY = 3
KERNEL = "_kernel_time"  # behind the name of a node in a trace
REBUILD = "export the network again; the portable graph and the manifest of one bundle belong together"


class ReferenceSession:
    """The portable graph on ONNX Runtime's CPU provider, in float32, at any batch."""

    def __init__(self, bundle: Bundle, artifact: Artifact, *, device: str, threads: int, mode: str = "latency") -> None:
        """Parse the graph; `artifact` only says what was asked for."""
        check_mode(mode)
        if device.lower() not in ("auto", *DEVICES):
            raise UsageError(f"the reference target has no device {device!r}; possible: auto, {', '.join(DEVICES)}")
        many = mode == "throughput"  # then a call runs in its caller's thread alone
        session = _start(bundle, _options(1 if many else threads))
        self._parallel = cpu_threads(threads) if many else 1
        self._session: onnxruntime.InferenceSession | None = session
        self._bundle, self._threads = bundle, threads
        self._one_image = session.get_inputs()[0].shape[0] == 1  # so some imported graphs were exported
        self._input = bundle.manifest.input
        self._outputs = bundle.manifest.outputs
        runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self._info = SessionInfo("reference", artifact.precision, "fp32", "cpu", runtime)

    @property
    def info(self) -> SessionInfo:
        """What runs."""
        return self._info

    @property
    def parallel(self) -> int:
        """One call that has every thread, or for throughput one a thread."""
        return self._parallel

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        """Run the network on `(B, 3, H, W)` float32; see `edgekd._session.Session.infer`."""
        session = self._session
        if session is None:
            raise ClosedError("this session was closed; load the bundle again")
        check_pixels(pixels, self._input)
        outputs = self._run(session, pixels)
        shapes = {spec.name: output.shape[1:] for spec, output in zip(self._outputs, outputs, strict=True)}
        check_outputs(shapes, self._outputs, REBUILD)  # here, since an ONNX graph need not declare its shapes
        if out is None:
            return tuple(outputs)
        for array, output in zip(output_arrays(len(pixels), self._outputs, out), outputs, strict=True):
            array[...] = output
        return out

    def _run(self, session: onnxruntime.InferenceSession, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        names = [spec.name for spec in self._outputs]
        batches = np.split(pixels, len(pixels)) if self._one_image else [pixels]
        try:
            found = [session.run(names, {self._input.name: batch}) for batch in batches]
        except Exception as error:  # onnxruntime's exceptions share no other base
            raise SessionError(f"ONNX Runtime failed: {error}") from error
        return found[0] if len(found) == 1 else [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def layer_times(self, pixels: NDArray[np.float32], runs: int) -> list[LayerTime]:
        """Start the graph once more, with ONNX Runtime's trace; see `edgekd._session.LayeredSession.layer_times`."""
        check_pixels(pixels, self._input)
        if self._session is None:
            raise ClosedError("this session was closed; load the bundle again")
        with tempfile.TemporaryDirectory(prefix="edgekd-layers-") as folder:  # the trace is a file or nothing
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            session = _start(self._bundle, options)
            for _ in range(runs + 1):
                self._run(session, pixels[:1])
            events = json.loads(Path(session.end_profiling()).read_bytes())
        return _layers(events, runs)

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        self._session = None


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads
    return options


def _start(bundle: Bundle, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(bundle.graph(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise SessionError(f"ONNX Runtime {onnxruntime.__version__} cannot load the portable graph: {error}") from error


def _layers(events: list[dict[str, Any]], runs: int) -> list[LayerTime]:
    """Return the layers of a trace, the first run left out."""
    times: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        name = event["name"].removesuffix(KERNEL)
        if event.get("cat") == "Node" and name != event["name"]:
            times.setdefault(name, []).append(event["dur"] / 1e3)  # microseconds
            kinds[name] = event["args"]["op_name"]
    means = {name: sum(values[-runs:]) / runs for name, values in times.items()}
    return [LayerTime(name, kinds[name], ms) for name, ms in means.items() if ms]
