"""`Target`: a module that builds and runs bundles on one kind of chip; found by folder name in `edgekd.targets`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from . import geometry
from .errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ._bundle import Bundle
    from ._manifest import Artifact
    from ._session import Session

Progress = Callable[[str], None]
"""Receives one short line per build stage."""


@dataclass(frozen=True)
class Built:
    """What `Target.build` returns.

    Attributes:
        files: name -> bytes.
        options: for `load`.
        tools: versions of what built it.
        stand_in: ONNX, float32 in and out, that rounds as the artifact does: judged in its place on a machine where the
            target cannot run; None: nothing can stand in.
    """

    files: Mapping[str, bytes]
    options: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    stand_in: bytes | None = None


@dataclass(frozen=True)
class Quantization:
    """How a network becomes int8: decided by `edgekd.quantization` and the verb `build`, carried out by a target.

    Attributes:
        graph: the portable graph with explicit QuantizeLinear and DequantizeLinear nodes: int8, symmetric, one scale a
            tensor of activations, one a channel of weights.
        pixels: `(K, 3, H, W)` float32, the calibration images as the network sees them, for targets that measure
            ranges in their own graph.
        floating: weights (initializers of the portable graph) of the layers that stay in floating point.
    """

    graph: bytes
    pixels: NDArray[np.float32]
    floating: frozenset[str] = frozenset()


class Target(Protocol):
    """What a folder under `targets/` has to offer; the module itself satisfies it, nothing is subclassed."""

    PRECISIONS: tuple[str, ...]
    """Precisions this target can build, for example ("fp32", "fp16", "int8")."""

    GRAMMAR: str | None
    """How it holds activations in int8: "int8-symmetric", "int8-asymmetric" (with zero points), None: not at all."""

    DEVICES: tuple[str, ...]
    """Spellings of `device=` that mean this target, lower case; "intel:*" matches by prefix."""

    PORTABLE: bool
    """Whether the target runs the portable graph as it is, so that no artifact has to be built for it."""

    RANK: int
    """Order in which `device="auto"` tries targets, lowest first: accelerators, CPUs, the reference."""

    def probe(self) -> str | None:
        """Say why this target cannot *run* here, with the exact install command, or None when it can."""
        ...

    def probe_build(self) -> str | None:
        """Say why this target cannot *build* here, with the exact install command, or None when it can."""
        ...

    def build(
        self, bundle: Bundle, precision: str, progress: Progress, quantization: Quantization | None = None
    ) -> Built:
        """Compile the bundle's portable graph (`bundle.graph()`, ONNX bytes) for this target.

        `quantization` is there if, and only if, the precision is "int8".
        """
        ...

    def load(
        self,
        bundle: Bundle,
        artifact: Artifact,
        *,
        device: str = "auto",
        threads: int = 0,
        mode: str = "latency",
        cache: Path | None = None,
    ) -> Session:
        """Start an engine on an artifact that `build` made.

        Args:
            bundle: holds the artifact.
            artifact: what `build` made.
            device: as the user spelled it.
            threads: CPU threads; 0: the runtime's choice.
            mode: "latency": one call gets all threads; "throughput": several calls at once share them.
            cache: a folder that exists, for what the engine compiles here; None: keep nothing.
        """
        ...


@runtime_checkable
class BoardTarget(Target, Protocol):
    """A target that knows boards."""

    def board(self, root: Path | None = None) -> tuple[str, ...]:
        """Return what `doctor` says of the board this is, one line each; empty on other machines.

        Args:
            root: of the file system; None: "/".
        """
        ...


@runtime_checkable
class CompilingTarget(Target, Protocol):
    """A target that compiles on the board itself, so that a board alone can prove what it makes.

    `load` keeps that in the cache as `*.engine`, whatever else lies there.
    """

    def probe_single_engine(self) -> str | None:
        """Say why no engine from pixels to detections can be made here, or None when one can."""
        ...

    def run_single_engine(
        self, plan: bytes, pixels: Sequence[NDArray[np.float32]]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
        """Run such an engine on images, one by one.

        Args:
            plan: the engine.
            pixels: `(1, 3, H, W)` float32 each, letterboxed, 0 to 255.

        Returns:
            Boxes `(N, 4|5)` in pixels of the network, scores `(N,)` and labels `(N,)` of each image.

        Raises:
            SessionError: the runtime does not take it, or failed.
        """
        ...

    def probe_dla(self) -> str | None:
        """Say why there is no accelerator "dla:0" beside the GPU here, or None when there is one."""
        ...


@dataclass(frozen=True)
class HeadDecoder:
    """What the head of somebody else's network means, as a graph.

    Attributes:
        graph: ONNX of batch 1 and opset 17, all float32: outputs "boxes" `(1, N, 4|5)` and "scores" `(1, N, C)`.
        takes: input of the graph -> output of the network.
        layout: of the boxes: "xyxy" or "xywhr".
    """

    graph: bytes
    takes: Mapping[str, str]
    layout: str


class ForeignNetwork(Protocol):
    """A file of a target's own format that was read and found fit: one image in, floats out, nothing suppressed."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What was read; the file that was named first."""
        ...

    @property
    def height(self) -> int:
        """Of the input, pixels."""
        ...

    @property
    def width(self) -> int:
        """Of the input, pixels."""
        ...

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Name of each output -> shape without the batch."""
        ...

    @property
    def precision(self) -> str:
        """How the file holds its weights: "fp32" or "fp16"."""
        ...

    @property
    def runtime(self) -> str:
        """Name and version of the vendor runtime."""
        ...

    def infer(self, pixels: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the file as it is, in float32.

        Args:
            pixels: `(1, 3, H, W)` float32, whatever the layout of the file.

        Returns:
            By name of output, batch first, float32.

        Raises:
            UsageError: the runtime cannot run it.
        """
        ...

    def join(self, decoder: HeadDecoder) -> Built:
        """Return the artifact: input "images" `(1, 3, H, W)`, then the network, then the decoder.

        Raises:
            BuildError: the two cannot be joined.
        """
        ...


@runtime_checkable
class ImportingTarget(Target, Protocol):
    """A target that takes files of its own format into bundles, without a portable graph."""

    SUFFIX: str
    """Of such a file, lower case: ".tflite"."""

    def read_foreign(self, path: Path, size: tuple[int, int] | None) -> ForeignNetwork:
        """Read a file.

        Args:
            path: what the user named.
            size: height and width; None: those that the file names.

        Raises:
            UsageError: it is not sound, not of one image, of another size, computes in int8, or suppresses boxes by
                itself; says what was found.
        """
        ...


def target_names() -> tuple[str, ...]:
    """Return the names of the targets in this installation, sorted: the folders of `edgekd.targets`."""
    package = importlib.import_module("edgekd.targets")
    return tuple(sorted(item.name for item in pkgutil.iter_modules(package.__path__) if item.ispkg))


def load_target(name: str) -> Target:
    """Import one target by name.

    Raises:
        UsageError: there is no such target; the message lists those that exist.
    """
    names = target_names()
    if name not in names:
        raise UsageError(f"no target {name!r}; possible: {', '.join(names)}")
    return cast(Target, importlib.import_module(f"edgekd.targets.{name}"))


def relative_error(expected: NDArray[np.float32], got: NDArray[np.float32], layout: str | None) -> float:
    """Return the largest difference of one output between two graphs, relative to its largest value (at least 1).

    Args:
        expected: `(B, N, columns)` of one graph.
        got: the same of the other.
        layout: `OutputSpec.layout`; "xywhr" boxes are compared as rectangles: where rounding moves an angle across
            +-pi/2, or swaps the sides of a square, the numbers jump and nothing is wrong.
    """
    if layout == "xywhr":
        worst = geometry.box_distances(expected.reshape(-1, 5), got.reshape(-1, 5)).max()
    else:
        worst = np.abs(expected - got).max()
    return float(worst) / max(1.0, float(np.abs(expected).max()))
