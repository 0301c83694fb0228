"""One lane: an execution context of a fixed batch, its memory, its stream, and the graphs captured on it.

Frames go in by page-locked memory, which the GPU reads where it lies if it shares the host's; then letterbox, network
and suppression run on one stream, and one small block comes back. A lane serves one thread at a time.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgekd import geometry
from edgekd._session import LayerTime
from edgekd.errors import SessionError

from . import _jobs
from ._results import Results
from ._shared import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgekd._manifest import InputSpec, OutputSpec
    from edgekd._session import Found, Frame, Outputs, Request

    from ._device import Device, Graph, Memory
    from ._runtime import Context, Engine

GRAPHS = 8  # captured at most: one for each size of frames and each set of thresholds
FLOAT_BYTES = 4
LOG = logging.getLogger("edgekd")


class _Placed(NamedTuple):
    """A frame in the lane's memory, and where the letterbox puts it."""

    offset: int
    shape: tuple[int, int, int]
    swap: bool
    place: tuple[geometry.Placement, int, int]


class Lane:
    """See the top of this module. Every call is made with the device's context current.

    `captures`: whether frames are captured; false from the first that does not let itself be.
    """

    def __init__(
        self, device: Device, engine: Engine, spec: InputSpec, outputs: Sequence[OutputSpec], batch: int
    ) -> None:
        """Allocate what depends on the network alone; what depends on frames and thresholds comes with the first."""
        self.batch = batch
        self._device, self._spec, self._outputs = device, spec, tuple(outputs)
        self._memory: list[Memory] = []
        self.captures = True
        self._graphs: OrderedDict[Any, Graph] = OrderedDict()
        self._last: Any = None
        self._context: Context | None = None
        self._frames: Shared | None = None
        self._results: Results | None = None
        self._stream = device.stream()
        try:
            self._pixels = self._allocate(3 * spec.height * spec.width * FLOAT_BYTES)
            self._tensors = [self._allocate(int(np.prod(item.shape)) * FLOAT_BYTES) for item in outputs]
            classes = outputs[1].shape[1] if outputs[1].shape else 1  # an anomaly network has one score and no rows
            self._allowed = device.pin(_jobs.aligned(classes))
            self._memory.append(self._allowed)
            addresses = {item.name: memory.address for item, memory in zip(outputs, self._tensors, strict=True)}
            shape = (batch, 3, spec.height, spec.width)
            self._context = engine.context(spec.name, shape, {spec.name: self._pixels.address, **addresses})
        except BaseException:
            self.close()
            raise

    def infer(self, pixels: NDArray[np.float32], outputs: Outputs) -> None:
        """Run the network alone on up to `batch` images, into float32 arrays of as many."""
        self._stream.upload(self._pixels.address, pixels)
        self._enqueue()
        for array, memory in zip(outputs, self._tensors, strict=True):
            self._stream.download(array, memory.address)
        self._stream.synchronize()

    def bare_ms(self, pixels: NDArray[np.float32], runs: int) -> list[float]:
        """Time the network alone, waited for, as a graph where it lets itself be captured: what a frame pays for it."""
        self._stream.upload(self._pixels.address, pixels)
        self._enqueue()
        self._stream.synchronize()
        graph = None
        if self.captures:
            with contextlib.suppress(SessionError):
                graph = self._record(self._enqueue)
        launch = self._enqueue if graph is None else graph.launch
        samples = []
        try:
            for _ in range(runs):
                begin = time.perf_counter()
                launch()
                self._stream.synchronize()
                samples.append(1e3 * (time.perf_counter() - begin))
        finally:
            if graph is not None:
                graph.free()
        return samples

    def layer_times(self, pixels: NDArray[np.float32], runs: int) -> list[LayerTime]:
        """Run the network alone with TensorRT's clocks; the lane is to be closed afterwards."""
        assert self._context is not None
        self._stream.upload(self._pixels.address, pixels)
        self._enqueue()
        self._stream.synchronize()
        found = self._context.watch()
        for _ in range(runs):
            self._enqueue()
            self._stream.synchronize()
        times: dict[str, float] = {}
        for name, ms in found:
            times[name] = times.get(name, 0.0) + ms / runs
        return [LayerTime(name, "layer", ms) for name, ms in times.items() if ms]

    def detect(self, frames: Sequence[Frame], request: Request) -> list[Found]:
        """Run the whole pipeline on up to `batch` frames.

        Work that is seen for the first time is queued kernel by kernel, which also lets TensorRT settle; the second
        time in a row it is captured; from then on its graph is replayed.
        """
        placed, results = self._place(frames), self._room(request)
        if request.classes is not None:
            allowed = self._allowed.array[: self._outputs[1].shape[1]]
            allowed[...] = 0
            allowed[list(request.classes)] = 1
        key = (tuple((item.offset, item.shape, item.swap) for item in placed), request)
        graph = self._graphs.get(key)
        if graph is None and key == self._last and self.captures:
            graph = self._capture(key, placed, request)
        self._last = key
        if graph is None:
            self._queue(placed, request)
        else:
            graph.launch()
        self._stream.synchronize()
        return results.read(request, [item.place[0] for item in placed])

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        self._forget()
        if self._context is not None:
            self._context.close()
            self._context = None
        for held in (self._frames, self._results):
            if held is not None:
                held.free()
        self._frames = self._results = None
        while self._memory:
            self._memory.pop().free()
        self._stream.free()

    def _allocate(self, size: int) -> Memory:
        memory = self._device.allocate(self.batch * max(size, 1))
        self._memory.append(memory)
        return memory

    def _forget(self) -> None:
        """Free the graphs: addresses in them are about to change."""
        while self._graphs:
            self._graphs.popitem()[1].free()
        self._last = None

    def _place(self, frames: Sequence[Frame]) -> list[_Placed]:
        """Copy the frames, one after another, into page-locked memory, which grows and is kept."""
        placed, size = [], 0
        for pixels, swap in frames:
            height, width, channels = pixels.shape
            place = geometry.place(height, width, self._spec.height, self._spec.width)
            placed.append(_Placed(size, (height, width, channels), swap, place))
            size += _jobs.aligned(pixels.size)
        if self._frames is None or len(self._frames.array) < size:
            self._forget()
            if self._frames is not None:
                self._frames.free()
            self._frames = None  # so that a failed allocation leaves nothing that was freed
            self._frames = Shared(self._device, size)
        for (pixels, _), item in zip(frames, placed, strict=True):
            there = self._frames.array[item.offset : item.offset + pixels.size]
            np.copyto(there.reshape(pixels.shape), pixels)
        return placed

    def _room(self, request: Request) -> Results:
        """Return room for the results of a request; it grows and is kept."""
        if self._results is None or not self._results.fits(request):
            self._forget()
            if self._results is not None:
                self._results.free()
            self._results = None
            self._results = Results(self._device, self._outputs, self.batch, request)
        return self._results

    def _capture(self, key: Any, placed: Sequence[_Placed], request: Request) -> Graph | None:
        """Capture what `_queue` queues; None, and never again, if anything in it does not let itself be captured."""
        if len(self._graphs) == GRAPHS:
            self._graphs.popitem(last=False)[1].free()
        try:
            graph = self._record(lambda: self._queue(placed, request))
        except SessionError as error:
            LOG.warning("edgekd: no CUDA graph, so every frame is queued kernel by kernel: %s", error)
            self.captures = False
            return None
        self._graphs[key] = graph
        return graph

    def _record(self, queue: Callable[[], None]) -> Graph:
        """Return the graph of what is queued; whatever fails, the stream captures no more."""
        self._stream.capture()
        try:
            queue()
        except BaseException:
            with contextlib.suppress(SessionError):  # a capture that failed is no graph
                self._stream.captured().free()
            raise
        return self._stream.captured()

    def _queue(self, placed: Sequence[_Placed], request: Request) -> None:
        """Queue the pipeline; it is the same for every frame of one size, so a graph may hold it."""
        assert self._frames is not None
        assert self._results is not None
        last = placed[-1]
        self._frames.upload(self._stream, last.offset + int(np.prod(last.shape)))
        image_bytes = 3 * self._spec.height * self._spec.width * FLOAT_BYTES
        launches = [
            _jobs.letterbox(
                self._frames.address + item.offset, item.shape, item.place, self._spec,
                self._pixels.address + row * image_bytes, swap=item.swap,
            )
            for row, item in enumerate(placed)
        ]  # fmt: skip
        for launch in launches:
            self._stream.launch(*launch)
        self._enqueue()
        for launch in _jobs.suppress(self._suppression(request)):
            self._stream.launch(*launch)
        self._results.download(self._stream, request)

    def _suppression(self, request: Request) -> dict[str, Any]:
        assert self._results is not None
        boxes, scores = (memory.address for memory in self._tensors)
        rows, classes = self._outputs[1].shape
        return {
            "boxes": boxes, "scores": scores, "allowed": 0 if request.classes is None else self._allowed.address,
            "batch": self.batch, "rows": rows, "columns": self._outputs[0].shape[1], "classes": classes,
            "max_candidates": request.max_candidates, "max_det": request.max_det, "conf": request.conf,
            "iou": request.iou, **self._results.fields(request),
        }  # fmt: skip

    def _enqueue(self) -> None:
        assert self._context is not None
        self._context.enqueue(self._stream.handle)
