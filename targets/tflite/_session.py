"""A started LiteRT interpreter, of ai-edge-litert, else of tflite-runtime (which ends at Python 3.11 and NumPy 1)."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgekd._session import Outputs, SessionInfo, check_mode, check_outputs, check_pixels, cpu_threads, output_arrays
from edgekd.errors import ClosedError, SessionError, UsageError

from . import DEVICES

if find_spec("ai_edge_litert") is None:
    from tflite_runtime.interpreter import Interpreter

    RUNTIME = f"tflite-runtime {version('tflite-runtime')}"
else:  # there, even if it is broken: that it is, is worth more than that the second one is missing
    from ai_edge_litert.interpreter import Interpreter

    RUNTIME = f"ai-edge-litert {version('ai-edge-litert')}"

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

    An interpreter serves one call at a time, and holds weights of its own: there is one, at which callers queue, unless
    throughput is asked for.
    """

    def __init__(self, bundle: Bundle, artifact: Artifact, *, device: str, threads: int, mode: str = "latency") -> None:
        """Read `model.tflite` of the artifact and plan its memory, as often as calls are to run at once."""
        check_mode(mode)
        if device.lower() not in ("auto", *DEVICES):
            raise UsageError(f"the tflite target has no device {device!r}; possible: auto, {', '.join(DEVICES)}")
        self._input = bundle.manifest.input
        self._outputs = bundle.manifest.outputs
        self._parallel = cpu_threads(threads) if mode == "throughput" else 1
        model = bytes(bundle.file(artifact, "model.tflite"))
        each = 1 if mode == "throughput" else threads
        self._idle: list[Any] = [_start(model, each) for _ in range(self._parallel)]
        runner = self._idle[0].get_signature_runner()
        (self._input_index,) = (item["index"] for item in runner.get_input_details().values())
        details = runner.get_output_details()
        check_outputs(
            {name: tuple(item["shape"][1:].tolist()) for name, item in details.items()}, self._outputs, REBUILD
        )
        self._output_indices = [details[spec.name]["index"] for spec in self._outputs]
        self._changed = threading.Condition()
        self._closed = False
        compute = "int8" if artifact.precision == "int8" else "fp32"
        self._info = SessionInfo("tflite", artifact.precision, compute, "cpu", RUNTIME)

    @property
    def info(self) -> SessionInfo:
        """What runs; `compute` is fp32 also for fp16 artifacts, whose weights XNNPACK widens when it starts."""
        return self._info

    @property
    def parallel(self) -> int:
        """How many interpreters there are."""
        return self._parallel

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        """Run the network on `(B, 3, H, W)` float32; see `edgekd._session.Session.infer`."""
        check_pixels(pixels, self._input)
        outputs = output_arrays(len(pixels), self._outputs, out)
        with self._interpreter() as interpreter:
            try:
                for row in range(len(pixels)):
                    interpreter.set_tensor(self._input_index, pixels[row : row + 1])
                    interpreter.invoke()
                    for index, output in zip(self._output_indices, outputs, strict=True):
                        output[row] = interpreter.tensor(index)()[0]  # a view; `get_tensor` would copy once more
            except (RuntimeError, ValueError) as error:
                raise SessionError(f"LiteRT failed: {error}") from error
        return outputs

    def close(self) -> None:
        """Free the engine; an interpreter that is at work when its call has ended. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._idle.clear()
            self._changed.notify_all()

    @contextlib.contextmanager
    def _interpreter(self) -> Iterator[Any]:
        """Lend an interpreter; wait where all are lent."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle)
            if self._closed:
                raise ClosedError("this session was closed; load the bundle again")
            interpreter = self._idle.pop()
        try:
            yield interpreter
        finally:
            with self._changed:
                if not self._closed:
                    self._idle.append(interpreter)
                    self._changed.notify()


def _start(model: bytes, threads: int) -> Any:
    try:
        return started(model, threads)
    except (RuntimeError, ValueError) as error:
        raise SessionError(f"{RUNTIME} cannot start this artifact: {error}. To rebuild it: {REBUILD}") from error


def started(model: bytes, threads: int) -> Any:
    """Return an interpreter that has planned its memory.

    Args:
        model: the file.
        threads: of the CPU; 0: LiteRT's own choice.

    Raises:
        RuntimeError: LiteRT cannot run it.
        ValueError: it is no model.
    """
    with _without_notice():
        interpreter = Interpreter(model_content=model, num_threads=threads or None)
        interpreter.allocate_tensors()
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
