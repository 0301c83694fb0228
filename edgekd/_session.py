"""`Session`: a started engine of one target. It knows no label, no threshold and no file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .errors import SessionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._manifest import InputSpec, OutputSpec
    from .geometry import Placement

Outputs = tuple[NDArray[np.float32], ...]
"""What an engine returns, in the order of `Manifest.outputs`, float32: boxes `(B, N, 4|5)` and scores `(B, N, C)`, or
maps `(B, 1, h, w)` and scores `(B,)` of an anomaly network."""


@dataclass(frozen=True)
class SessionInfo:
    """What runs, for `det.info` and the receipts. `compute` is the arithmetic actually used ("fp32", "bf16", ...)."""

    target: str
    precision: str
    compute: str
    device: str
    runtime: str  # name and version of the vendor runtime


class Session(Protocol):
    """A started engine.

    One session may be used from several threads: a session whose runtime is not thread-safe guards itself with a lock.
    """

    @property
    def info(self) -> SessionInfo:
        """What runs."""
        ...

    @property
    def parallel(self) -> int:
        """How many calls of one image at once are worth it; more are taken, and get no further."""
        ...

    def infer(self, pixels: NDArray[np.float32], out: Outputs | None = None) -> Outputs:
        """Run the network on a batch.

        Args:
            pixels: `(B, 3, H, W)` float32, C-contiguous, B >= 1; read, and not written.
            out: float32 arrays to write to and return, `(B, *shape)` for each of the manifest's outputs; None: new
                ones. Fresh pages for a detector's outputs cost as much as its suppression: a loop keeps its own.

        Returns:
            Float32 arrays owned by the caller.

        Raises:
            UsageError: wrong shape or dtype (says got and expected).
            ClosedError: after `close`.
            SessionError: the vendor runtime failed.
        """
        ...

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        ...


Frame = tuple[NDArray[np.uint8], bool]
"""An image `(H, W, 1|3|4)` as the user has it, and whether its channels come in the reverse of the network's order."""


@dataclass(frozen=True)
class Request:
    """What a detection is asked for, checked: thresholds and limits as `predict` takes them; `classes` None: all."""

    conf: float
    iou: float
    max_det: int
    max_candidates: int
    classes: tuple[int, ...] | None


class Found(NamedTuple):
    """What is in one frame.

    Attributes:
        boxes: `(K, 4|5)` float32 in network pixels, best score first.
        scores: `(K,)` float32.
        labels: `(K,)` int64.
        placement: where the letterbox put the frame.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    placement: Placement


@runtime_checkable
class PipelineSession(Session, Protocol):
    """A session that also letterboxes and suppresses where its engine runs; detectors then leave all to it."""

    def detect(self, frames: Sequence[Frame], request: Request) -> list[Found]:
        """Find objects, to the bit as `ops.letterbox` and `ops.suppress` around `infer` would.

        Args:
            frames: at least one; they may differ in size. They are read before this returns, and not written.
            request: for all of them.

        Returns:
            One a frame, owned by the caller.

        Raises:
            UsageError: the engine's suppression cannot do what is asked.
            ClosedError: after `close`.
            SessionError: the vendor runtime failed.
        """
        ...


class LayerTime(NamedTuple):
    """One layer as the runtime runs it.

    Attributes:
        name: the runtime's, which holds the names of the graph's nodes that it consists of.
        kind: what it does, in the runtime's words.
        ms: mean over the runs.
    """

    name: str
    kind: str
    ms: float


@runtime_checkable
class LayeredSession(Session, Protocol):
    """A session whose runtime tells how long each layer takes."""

    def layer_times(self, pixels: NDArray[np.float32], runs: int) -> list[LayerTime]:
        """Run the network by itself with the runtime's own clocks on, apart from every other call of the session.

        Args:
            pixels: `(1, 3, H, W)` float32.
            runs: to take the mean of, at least 1; one more goes before them.

        Returns:
            In the order in which they ran; layers that took no time are left out.

        Raises:
            UsageError: wrong shape or dtype.
            ClosedError: after `close`.
            SessionError: the vendor runtime failed.
        """
        ...


@runtime_checkable
class BareSession(Session, Protocol):
    """A session that runs its network where the pixels already lie, and nothing else."""

    @property
    def left_over(self) -> tuple[str, ...]:
        """Layers that run on another chip than the one that was asked for."""
        ...

    def bare_ms(self, pixels: NDArray[np.float32], runs: int) -> list[float]:
        """Return the milliseconds of each run of the network alone, waited for; the copies are not in them.

        Args:
            pixels: `(1, 3, H, W)` float32.
            runs: at least 1; one more goes before them.

        Raises:
            UsageError: wrong shape or dtype.
            ClosedError: after `close`.
            SessionError: the vendor runtime failed.
        """
        ...


MODES = ("latency", "throughput")
"""What `load` may be asked to make the best of: one call, or several at once."""
MAX_THREADS = 1024  # of a CPU that an engine may be asked to use


def check_mode(mode: str) -> None:
    """Refuse what is none of `MODES`.

    Raises:
        UsageError: it is none; says which there are.
    """
    if mode not in MODES:
        raise UsageError(f"mode should be one of {', '.join(MODES)}; got {mode!r}")


def check_threads(threads: int) -> None:
    """Refuse a number of CPU threads that no engine has; engines themselves hang, crash or take another.

    Raises:
        UsageError: it is none; says what is possible.
    """
    whole = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
    if not whole or not 0 <= threads <= MAX_THREADS:
        raise UsageError(
            f"threads should be a whole number from 0 to {MAX_THREADS}, got {threads!r}; 0 leaves it to the engine"
        )


def cpu_threads(threads: int) -> int:
    """Return `threads`, or for 0 the CPUs that this process may run on."""
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_pixels(pixels: NDArray[np.float32], spec: InputSpec) -> None:
    """Refuse what `Session.infer` cannot take, before any vendor code sees it.

    Raises:
        UsageError: not C-contiguous float32 of shape `(B, 3, height, width)` with B >= 1; says got and expected.
    """
    expected = f"a C-contiguous float32 array of shape (B, 3, {spec.height}, {spec.width}) with B >= 1"
    inner = (3, spec.height, spec.width)
    if not isinstance(pixels, np.ndarray):
        raise UsageError(f"infer: expected {expected}, got {type(pixels).__name__}")
    if pixels.dtype != np.float32 or pixels.ndim != 4 or pixels.shape[1:] != inner or not len(pixels):
        raise UsageError(f"infer: expected {expected}, got {pixels.dtype} of shape {pixels.shape}")
    if not pixels.flags.c_contiguous:
        raise UsageError(f"infer: expected {expected}, got strides {pixels.strides}; try np.ascontiguousarray")


def output_arrays(batch: int, specs: Sequence[OutputSpec], out: Outputs | None) -> Outputs:
    """Return `out` if it fits a batch, or new arrays if it is None.

    Raises:
        UsageError: not C-contiguous float32 of the shapes the manifest says; says got and expected.
    """
    if out is None:
        return tuple(np.empty((batch, *spec.shape), np.float32) for spec in specs)
    expected = [(batch, *spec.shape) for spec in specs]
    fits = [array.dtype == np.float32 and array.flags.c_contiguous for array in out]
    if [array.shape for array in out] != expected or not all(fits):
        got = [f"{array.dtype} of shape {array.shape}" for array in out]
        raise UsageError(f"infer: expected C-contiguous float32 outputs of shapes {expected}, got {got}")
    return out


def check_outputs(shapes: Mapping[str, tuple[int, ...]], specs: Sequence[OutputSpec], rebuild: str) -> None:
    """Refuse an engine whose outputs are not the manifest's: it was built from another network.

    Args:
        shapes: the engine's output shapes by name, without the batch.
        specs: the manifest's outputs.
        rebuild: what to type to make a right one.

    Raises:
        SessionError: an output is missing or has another shape.
    """
    for spec in specs:
        if shapes.get(spec.name) != spec.shape:
            got = f"has shape {shapes[spec.name]}" if spec.name in shapes else f"is not among {', '.join(shapes)}"
            expected = f"the manifest says {spec.shape}. To rebuild it: {rebuild}"
            raise SessionError(f"the artifact's output {spec.name!r} {got}; {expected}")
