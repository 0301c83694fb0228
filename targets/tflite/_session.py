"""A started LiteRT interpreter, of ai-edge-litert, else of tflite-runtime (which ends at Python 3.11 and NumPy 1)."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from edgekd._session import Outputs, SessionInfo, check_outputs, check_pixels, output_arrays
from edgekd.errors import ClosedError, SessionError, UsageError

from . import DEVICES

try:
    from ai_edge_litert.interpreter import Interpreter

    RUNTIME = f"ai-edge-litert {version('ai-edge-litert')}"
except ImportError:
    from tflite_runtime.interpreter import Interpreter

    RUNTIME = f"tflite-runtime {version('tflite-runtime')}"

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact

REBUILD = "edgekd build model.bin --target tflite"
NOTICE = b"Created TensorFlow Lite XNNPACK delegate for CPU."  # printed by C++ at the first interpreter of a process


class TFLiteSession:
    """A model of batch 1 on the CPU; a batch of B runs one after another.

    An interpreter serves one call at a time, so callers queue at a lock: a second interpreter would hold the weights a
    second time. Who wants parallel calls opens a session each.
    """

    def __init__(self, bundle: Bundle, artifact: Artifact, *, device: str, threads: int) -> None:
        """Read `model.tflite` of the artifact and plan its memory."""
        if device.lower() not in ("auto", *DEVICES):
            raise UsageError(f"the tflite target has no device {device!r}; possible: auto, {', '.join(DEVICES)}")
        self._input = bundle.manifest.input
        self._outputs = bundle.manifest.outputs
        self._interpreter: Any = _start(bytes(bundle.file(artifact, "model.tflite")), threads)
        runner = self._interpreter.get_signature_runner()
        (self._input_index,) = (item["index"] for item in runner.get_input_details().values())
        details = runner.get_output_details()
        check_outputs(
            {name: tuple(item["shape"][1:].tolist()) for name, item in details.items()}, self._outputs, REBUILD
        )
        self._output_indices = [details[spec.name]["index"] for spec in self._outputs]
        self._lock = threading.Lock()
        compute = "int8" if artifact.precision == "int8" else "fp32"
        self._info = SessionInfo("tflite", artifact.precision, compute, "cpu", RUNTIME)

    @property
    def info(self) -> SessionInfo:
        """What runs; `compute` is fp32 also for fp16 artifacts, whose weights XNNPACK widens when it starts."""
        return self._info

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        """Run the network on `(B, 3, H, W)` float32; see `edgekd._session.Session.infer`."""
        check_pixels(pixels, self._input)
        outputs = output_arrays(len(pixels), self._outputs, out)
        with self._lock:
            if self._interpreter is None:
                raise ClosedError("this session was closed; load the bundle again")
            try:
                for row in range(len(pixels)):
                    self._interpreter.set_tensor(self._input_index, pixels[row : row + 1])
                    self._interpreter.invoke()
                    for index, output in zip(self._output_indices, outputs, strict=True):
                        output[row] = self._interpreter.get_tensor(index)[0]
            except (RuntimeError, ValueError) as error:
                raise SessionError(f"LiteRT failed: {error}") from error
        return outputs

    def close(self) -> None:
        """Free the engine, once a running call has ended; a second call does nothing."""
        with self._lock:
            self._interpreter = None


def _start(model: bytes, threads: int) -> Any:
    try:
        with _without_notice():
            interpreter = Interpreter(model_content=model, num_threads=threads or None)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise SessionError(f"{RUNTIME} cannot start this artifact: {error}. To rebuild it: {REBUILD}") from error
    return interpreter


_said = threading.Event()
_redirecting = threading.Lock()


@contextlib.contextmanager
def _without_notice() -> Iterator[None]:
    """Drop the XNNPACK notice from the process's stderr and pass on every other byte; needed once a process.

    `load` prints nothing, and LiteRT has no switch for this line from Python.
    """
    with _redirecting:
        if _said.is_set():
            yield
            return
        sys.stderr.flush()
        try:
            real = os.dup(2)
        except OSError:  # a daemon without a stderr
            yield
            return
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(real, 2)
                held.seek(0)
                for line in held:
                    if NOTICE in line:
                        _said.set()
                    else:
                        os.write(real, line)
                os.close(real)
