"""The whole pipeline on the GPU: letterbox, network and suppression on one stream, replayed as a CUDA graph."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from edgekd._session import SessionInfo, check_outputs, check_pixels, output_arrays
from edgekd.errors import ClosedError, SessionError, UsageError

from . import DEVICES, _boards, _device, _runtime
from ._engines import largest_batch, open_engine
from ._jobs import MAX_CANDIDATES
from ._lane import Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._session import Found, Frame, LayerTime, Outputs, Request

LANES = 2  # of one batch size: while the GPU works for one thread, another's frames are copied
STAGED_BYTES = 64 << 20  # of frames copied at once; larger ones go one by one
REBUILD = "edgekd build model.bin --target tensorrt"
MOVES = re.compile("^Reformatting CopyNode | to nvm$| copy finish$")  # between GPU and DLA, as TensorRT names it
WAITS = " from nvm"


class TensorRTSession:
    """An engine with lanes for threads and for batches of 1, 2, 4 and 8; smaller batches are filled up.

    A CUDA graph is bound to its context and that to its shapes, so every batch size has contexts of its own.
    """

    def __init__(
        self, bundle: Bundle, artifact: Artifact, *, device: str, mode: str = "latency", cache: Path | None = None
    ) -> None:
        """Open the GPU, and the engine that it built before or builds now."""
        if mode != "latency":
            raise UsageError(f"mode={mode!r} changes nothing on TensorRT, whose calls overlap anyway; leave it out")
        index, dla = device_index(device), dla_core(device)
        tensorrt = _runtime.find()
        self._manifest = bundle.manifest
        self._device = _device.open_device(index)
        try:
            with self._device.current():
                opened = open_engine(
                    tensorrt, self._device, bundle, artifact, _boards.l4t(), cache,
                    board=_boards.device_tree_model(), dla=dla,
                )  # fmt: skip
                self._engine, self._on_gpu = opened.engine, (None if dla is None else opened.on_gpu)
                try:
                    self._check()
                except SessionError:
                    self._engine.close()
                    raise
        except BaseException:
            self._device.close()
            raise
        self._single = not tensorrt.shares_profiles
        self._batch = largest_batch(tensorrt, dla)
        self._idle: dict[int, list[Lane]] = {}
        self._made: dict[int, int] = {}
        self._captures = True
        self._busy = 0
        self._changed = threading.Condition()
        self._closed = False
        runtime = f"{tensorrt.name} {tensorrt.version}"
        where = f"{self._device.name} (SM{self._device.capability})"
        if self._on_gpu is not None:
            where = f"DLA {dla} of {where}, which has {len(self._on_gpu)} layers left to it"
        self._info = SessionInfo("tensorrt", artifact.precision, artifact.precision, where, runtime)

    @property
    def info(self) -> SessionInfo:
        """What runs."""
        return self._info

    @property
    def parallel(self) -> int:
        """Lanes of one batch size."""
        return 1 if self._single else LANES

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        """Run the network alone on `(B, 3, H, W)` float32; see `edgekd._session.Session.infer`."""
        self._check_open()
        check_pixels(pixels, self._manifest.input)
        outputs = output_arrays(len(pixels), self._manifest.outputs, out)
        step = self._batch
        for start in range(0, len(pixels), step):
            rows = slice(start, start + step)
            with self._lane(len(pixels[rows])) as lane:
                lane.infer(pixels[rows], tuple(array[rows] for array in outputs))
        return outputs

    def detect(self, frames: Sequence[Frame], request: Request) -> list[Found]:
        """Find objects in frames; see `edgekd._session.PipelineSession.detect`."""
        self._check_open()
        if request.max_candidates > MAX_CANDIDATES:
            raise UsageError(
                f"the bundle's manifest lets {request.max_candidates} candidates an image reach the suppression; on "
                f"the GPU {MAX_CANDIDATES} can. Load with device='cpu', or make the bundle with predict.max_candidates "
                f"of {MAX_CANDIDATES} or less"
            )
        most = max(1, min(self._manifest.outputs[0].shape[0], request.max_candidates))
        request = replace(request, max_det=min(request.max_det, most))  # room for more than there can be is not made
        found: list[Found] = []
        for group in _groups(frames, self._batch):
            with self._lane(len(group)) as lane:
                found += lane.detect(group, request)
        return found

    @property
    def left_over(self) -> tuple[str, ...]:
        """Layers that the DLA leaves to the GPU; none without one."""
        return self._on_gpu or ()

    def bare_ms(self, pixels: NDArray[np.float32], runs: int) -> list[float]:
        """Time the network alone on a lane; see `edgekd._session.BareSession.bare_ms`."""
        self._check_open()
        check_pixels(pixels, self._manifest.input)
        with self._lane(1) as lane:
            return lane.bare_ms(pixels[:1], runs)

    def layer_times(self, pixels: NDArray[np.float32], runs: int) -> list[LayerTime]:
        """Run a lane of its own with TensorRT's clocks; see `edgekd._session.LayeredSession.layer_times`."""
        check_pixels(pixels, self._manifest.input)
        with self._changed:
            self._check_open()
            if self._single and any(self._made.values()):
                raise SessionError(
                    "TensorRT before 10 lends one context: time layers on a session that did nothing before"
                )
            self._busy += 1  # `close` waits for it
        try:
            with self._device.current():
                lane = Lane(self._device, self._engine, self._manifest.input, self._manifest.outputs, 1)
                try:
                    times = lane.layer_times(pixels[:1], runs)
                finally:
                    lane.close()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
        return times if self._on_gpu is None else [_placed(item, self._on_gpu) for item in times]

    def close(self) -> None:
        """Wait for the calls that are under way, then free everything; a second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._busy == 0)
        with self._device.current():
            for lanes in self._idle.values():
                for lane in lanes:
                    lane.close()
            self._engine.close()
        self._idle.clear()
        self._device.close()

    def _check(self) -> None:
        """Refuse an engine that is not of this bundle."""
        tensors = self._engine.tensors()
        shapes = {name: shape for name, (shape, _) in tensors.items()}
        check_outputs(shapes, self._manifest.outputs, REBUILD)
        odd = [f"{name} is {kind}" for name, (_, kind) in tensors.items() if kind != "FLOAT"]
        spec = self._manifest.input
        expected = {spec.name, *(item.name for item in self._manifest.outputs)}
        if odd or set(tensors) != expected or shapes[spec.name] != (3, spec.height, spec.width):
            raise SessionError(
                f"the engine's tensors are not the bundle's: {shapes}{', ' if odd else ''}{', '.join(odd)}; expected "
                f"FLOAT {', '.join(sorted(expected))}. To rebuild it: {REBUILD}"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this session was closed; load the bundle again")

    @contextmanager
    def _lane(self, count: int) -> Iterator[Lane]:
        """Lend a lane for `count` images, with the context current; wait where all are lent."""
        batch = 1
        while batch < count:
            batch *= 2
        lane = self._take(batch)
        healthy = False
        try:
            with self._device.current():
                if lane is None:
                    lane = Lane(self._device, self._engine, self._manifest.input, self._manifest.outputs, batch)
                lane.captures &= self._captures
                try:
                    yield lane
                    healthy = True
                finally:
                    if not lane.captures:  # or a capture whose failure costs a frame would be tried for ever
                        self._captures = False
                    if not healthy:  # its stream may hold anything: the next call gets another
                        lane.close()
        finally:
            with self._changed:
                self._busy -= 1
                if lane is not None and healthy:
                    self._idle.setdefault(batch, []).append(lane)
                else:
                    self._made[batch] -= 1
                self._changed.notify_all()

    def _take(self, batch: int) -> Lane | None:
        """Return an idle lane, or None where the caller may make one."""
        most = 1 if self._single else LANES
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle.get(batch) or self._made.get(batch, 0) < most)
            self._check_open()
            self._busy += 1
            if self._idle.get(batch):
                return self._idle[batch].pop()
            self._made[batch] = self._made.get(batch, 0) + 1
            return None


def _groups(frames: Sequence[Frame], most: int) -> Iterator[Sequence[Frame]]:
    """Split frames into runs of at most `most` and of about `STAGED_BYTES`."""
    start, size = 0, 0
    for index, (pixels, _) in enumerate(frames):
        if index > start and (index - start == most or size + pixels.size > STAGED_BYTES):
            yield frames[start:index]
            start, size = index, 0
        size += pixels.size
    if frames:
        yield frames[start:]


def device_index(device: str) -> int:
    """Return the number of the GPU that a spelling means; 0 where it has none.

    Raises:
        UsageError: no such spelling.
    """
    wanted = device.lower()
    name, _, number = wanted.partition(":")
    if wanted == "auto" or (wanted in DEVICES and not number) or dla_core(device) is not None:
        return 0
    if f"{name}:*" in DEVICES and number.isascii() and number.isdigit():
        return int(number)
    raise UsageError(f"TensorRT has no device {device!r}; possible: auto, {', '.join(DEVICES)}")


def dla_core(device: str) -> int | None:
    """Return the number of the DLA core that a spelling means, or None where it means none."""
    name, colon, number = device.lower().partition(":")
    if name != "dla" or (colon and not (number.isascii() and number.isdigit())):
        return None
    return int(number or 0)


def _placed(item: LayerTime, on_gpu: Sequence[str]) -> LayerTime:
    """Say where a layer ran: TensorRT names what it fused after the layers in it, and a DLA's part as one.

    The names of layers begin alike ("Mul_1", "Mul_12"), so whole ones count. What brings data back waits for the DLA.
    """
    if MOVES.search(item.name):
        return item._replace(kind="copy")
    names = "|".join(map(re.escape, on_gpu))
    here = names and re.search(rf"(?<![\w/])(?<!\w\.)(?:{names})(?![\w/]|\.(?!\.))", item.name)
    return item._replace(kind="GPU" if here and not item.name.endswith(WAITS) else "DLA")
