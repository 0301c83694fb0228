"""Engines kept on the device that built them: `<bundle>.engines/`, one file a key. The bundle is never rewritten.

A file is one line of JSON (its key, and the SHA-256 of the rest) and then TensorRT's plan. Whatever does not fit, byte
for byte, is built again: a cache can be deleted, copied to a twin board or cut off by a power failure at any time.
Of processes that want engines of one folder at once one builds, and the others wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgekd._container import write_file
from edgekd.errors import BuildError, BundleError, SessionError

from . import _packed
from ._compile import WORKSPACE_BYTES, Order, compile_engine
from ._memory import preflight
from ._runtime import short_of_memory
from ._store import beside, engine_folder, user_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgekd._bundle import Bundle
    from edgekd._manifest import Artifact
    from edgekd._target import Progress

    from ._device import Device
    from ._runtime import Engine, TensorRT

BATCH = 8  # images at most in one call of the engine
LOCK = "build.lock"  # it stays: who removed it would part those who wait on it from those who come later
LOG = logging.getLogger("edgekd")


@dataclass(frozen=True)
class Key:
    """All that an engine depends on; another value of any field is another engine.

    Attributes:
        graph: SHA-256 of the typed graph.
        tensorrt: name and version.
        capability: of the GPU, times ten.
        gpu: its name; two GPUs of one capability have other best tactics.
        multiprocessors: of the GPU; CUDA names every Orin "Orin", and a power mode may switch some off.
        board: as the device tree names it; "" elsewhere.
        l4t: the board's L4T, such as "36.4.3"; "" elsewhere.
        precision: of the artifact.
        batches: least, usual and largest.
        dla: number of the DLA core it is for, or None.
    """

    graph: str
    tensorrt: str
    capability: int
    gpu: str
    multiprocessors: int
    board: str
    l4t: str
    precision: str
    batches: tuple[int, int, int]
    dla: int | None = None

    def line(self) -> str:
        """Return canonical JSON."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    def file_name(self) -> str:
        """Return a name that says the essentials and is different for every key."""
        short = hashlib.sha256(self.line().encode()).hexdigest()[:16]
        where = f"sm{self.capability}" if self.dla is None else f"dla{self.dla}"
        return f"{self.precision}-{where}-{short}.engine"

    def timings_name(self) -> str:
        """Return the name of the timings that every build of this TensorRT on this GPU shares."""
        here = f"{self.tensorrt} {self.gpu} {self.multiprocessors} {self.board} {self.l4t}"
        return f"timings-{hashlib.sha256(here.encode()).hexdigest()[:16]}.cache"


class Opened(NamedTuple):
    """An engine, and the names of the layers that its DLA leaves to the GPU; none without a DLA."""

    engine: Engine
    on_gpu: tuple[str, ...]


class Kept(NamedTuple):
    """What a file of the cache holds."""

    plan: bytes
    on_gpu: tuple[str, ...]


def largest_batch(tensorrt: TensorRT, dla: int | None) -> int:
    """Return how many images one call takes: a DLA's shapes are fixed, and TensorRT 8's contexts share no profile."""
    return BATCH if tensorrt.shares_profiles and dla is None else 1


def key_of(
    tensorrt: TensorRT,
    device: Device,
    graph: bytes,
    precision: str,
    l4t: str,
    *,
    board: str = "",
    dla: int | None = None,
) -> Key:
    """Return the key of the engine that this device needs."""
    batches = (1, 1, largest_batch(tensorrt, dla))
    version = f"{tensorrt.name} {tensorrt.version}"
    digest = hashlib.sha256(graph).hexdigest()
    gpu = (device.capability, device.name, device.multiprocessors)
    return Key(digest, version, *gpu, board, l4t, precision, batches, dla)


def open_engine(
    tensorrt: TensorRT,
    device: Device,
    bundle: Bundle,
    artifact: Artifact,
    l4t: str,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    board: str = "",
    dla: int | None = None,
) -> Opened:
    """Return the engine of an artifact on this device: the kept one, or a new one, which is then kept.

    Args:
        tensorrt: what is installed.
        device: its context is current.
        bundle: holds the typed graph.
        artifact: names it.
        l4t: the board's L4T, "" elsewhere.
        cache: a folder for engines; None: the one beside the bundle.
        progress: told each stage; None: the log of "edgekd", as a warning, since a build takes minutes.
        board: as the device tree names it, "" elsewhere.
        dla: number of the DLA core to use; None: the GPU alone.

    Raises:
        SessionError: it cannot be built, the memory is too full to load it, or TensorRT does not take what it built.
        TargetUnavailableError: too little memory is free to build, or no folder can be made.
    """
    tell = progress or (lambda line: LOG.warning("edgekd: %s", line))
    graph = typed_graph(bundle, artifact)
    key = key_of(tensorrt, device, graph, artifact.precision, l4t, board=board, dla=dla)
    folder = engine_folder(bundle.path) if cache is None else cache
    mine = folder / key.file_name()
    before = _stamp(mine)
    for place in (mine, *(_elsewhere(bundle, mine) if cache is None else ())):
        found = _opened(tensorrt, place, key, tell, mine)
        if found is not None:
            return found
    with _alone(folder / LOCK, f"the {key.precision} engine of {bundle.path or bundle.manifest.name}", tell):
        if _stamp(mine) != before:  # somebody else built it meanwhile
            found = _opened(tensorrt, mine, key, tell, mine)
            if found is not None:
                return found
        kept = _make(tensorrt, key, graph, bundle, folder, tell)
        engine = tensorrt.load(kept.plan, dla)
        _keep(mine, key, kept, tell)
    return Opened(engine, kept.on_gpu)


def _elsewhere(bundle: Bundle, mine: Path) -> Iterator[Path]:
    """Yield where else the engine lies: beside a bundle that is read-only, or where `edgekd build` put it.

    What `build` tries is no file yet, so its engines go to the user's cache.
    """
    if bundle.path is not None and beside(bundle.path) != mine.parent:
        yield beside(bundle.path) / mine.name
    users = user_place("engines") / mine.name
    if users != mine and _stamp(users) is not None:  # of the engines of other bundles there nothing is to be said
        yield users


def _opened(tensorrt: TensorRT, place: Path, key: Key, tell: Progress, mine: Path) -> Opened | None:
    """Return the engine of a file, or None where there is none that TensorRT takes."""
    kept = read(place, key, tell)
    if kept is None:
        return None
    try:
        engine = tensorrt.load(kept.plan, key.dla)
    except SessionError as error:
        if short_of_memory(error):  # a build wants more still, and the engine is good
            raise
        tell(f"{place} is not taken, so it is built again: {error}")
        return None
    if place != mine and place.parent == user_place("engines"):  # another user starts the bundle, or it is copied
        _keep(mine, key, kept, tell)
    return Opened(engine, kept.on_gpu)


def _keep(path: Path, key: Key, kept: Kept, tell: Progress) -> None:
    """Write an engine; one that cannot be kept is used all the same."""
    try:
        write(path, key, kept)
    except BundleError as error:
        tell(f"the engine is not kept, so the next start builds it again: {error}")


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what is different once a file was written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextlib.contextmanager
def _alone(path: Path, what: str, tell: Progress) -> Iterator[None]:
    """Let one process at a time build in a folder: two builds want twice the memory, and a small board kills one.

    Where no lock can be had (a file system that is read-only or has none, Windows) the build goes on without.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_locked(path, what, tell))
        except (ImportError, OSError) as error:
            tell(f"{path} cannot be locked, so another process may build at the same time: {error}")
        yield


@contextlib.contextmanager
def _locked(path: Path, what: str, tell: Progress) -> Iterator[None]:
    """Hold a lock, which the kernel takes from a process that ends, however it ends; the file says who holds it."""
    import fcntl

    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)  # read-only: it may be another user's
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waits for {_text(path) or 'another process'}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):  # a note for the line above: losing it loses nothing
            path.write_text(f"process {os.getpid()}, which builds {what}", encoding="utf-8")
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # a child that was forked meanwhile has the handle too
        os.close(handle)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def typed_graph(bundle: Bundle, artifact: Artifact) -> bytes:
    """Return the ONNX that TensorRT compiles.

    Raises:
        SessionError: it is damaged.
    """
    packed = _packed.NAME in artifact.files
    content = bytes(bundle.file(artifact, _packed.NAME if packed else "model.onnx"))
    return _packed.unpack(content) if packed else content


def read(path: Path, key: Key, tell: Progress) -> Kept | None:
    """Return what is kept, or None where there is nothing or it is damaged."""
    try:
        head, _, plan = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        others = sorted(item.name for item in path.parent.glob(f"{key.precision}-*.engine"))
        if others:
            tell(f"{path.parent} has {', '.join(others)}, but none for {key.tensorrt}, SM{key.capability}, this graph")
        return None
    except OSError as error:
        tell(f"{path} cannot be read, so it is built again: {error.strerror}")
        return None
    kept = Kept(plan, _layers_of(head))
    if head.decode(errors="replace") != _head(key, kept):
        tell(f"{path} is damaged, so it is built again")
        return None
    return kept


def write(path: Path, key: Key, kept: Kept) -> None:
    """Keep a plan: whole or not at all.

    Raises:
        BundleError: it cannot be written.
    """
    write_file(path, [_head(key, kept).encode(), b"\n", kept.plan])


def _head(key: Key, kept: Kept) -> str:
    digest = hashlib.sha256(json.dumps(kept.on_gpu).encode() + kept.plan).hexdigest()
    return json.dumps({"key": key.line(), "on_gpu": kept.on_gpu, "sha256": digest})


def _layers_of(head: bytes) -> tuple[str, ...]:
    """Return the layers that a head lists; whether they are to be believed its hash says."""
    try:
        listed = json.loads(head)["on_gpu"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def _make(tensorrt: TensorRT, key: Key, graph: bytes, bundle: Bundle, folder: Path, tell: Progress) -> Kept:
    workspace = preflight(len(graph), WORKSPACE_BYTES, folder)
    tell(f"{key.tensorrt} builds the {key.precision} engine for {key.gpu} (SM{key.capability}); this can take minutes")
    timings = folder / key.timings_name()
    spec = bundle.manifest.input
    order = Order(
        graph, spec.name, (3, spec.height, spec.width), key.precision, key.batches, workspace,
        jetson=bool(key.l4t), timings=_timings(timings, tell), dla=key.dla,
    )  # fmt: skip
    start = time.perf_counter()
    try:
        done = compile_engine(tensorrt, order, tell)
    except BuildError as error:  # whoever starts a session expects a session's error
        raise SessionError(str(error)) from error
    size, seconds = len(done.plan) / 2**20, time.perf_counter() - start
    tell(f"engine of {size:.1f} MiB, {done.layers} layers, {seconds:.1f} s; kept in {folder}")
    if done.timings:
        try:
            write_file(timings, [done.timings])
        except BundleError as error:
            tell(f"the timings of this build are not kept: {error}")
    if key.dla is not None:
        tell(f"DLA {key.dla} leaves {len(done.on_gpu)} of them to the GPU: {', '.join(done.on_gpu) or 'none'}")
    return Kept(done.plan, done.on_gpu)


def _timings(path: Path, tell: Progress) -> bytes:
    """Return what an earlier build wrote; nothing where there is none, or another user's that cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        tell(f"{path} cannot be read, so the build takes all its time: {error.strerror}")
        return b""
