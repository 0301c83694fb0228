"""One face for TensorRT 8.5 to 11 and TensorRT for RTX: what a session and a build need, whichever is installed.

What an installation can do is read off what its module offers; its version number decides only what no module says.
"""

from __future__ import annotations

import importlib
import re
import threading
import weakref
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from edgekd.errors import SessionError, TargetUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

MODULES = (("tensorrt", "tensorrt"), ("tensorrt_rtx_bindings", "tensorrt_rtx_bindings.tensorrt_rtx"))
OLDEST = (8, 5, 0)
MEMORY = r"out of memory|could not be allocated|OutOfMemory|cudaErrorMemoryAllocation"


class Advice(NamedTuple):
    """A vendor's message, and what it means to the user."""

    pattern: str
    meaning: str


ADVICE = (
    Advice(
        r"not compatible with this version of TensorRT|Version tag does not match|stdVersionRead|magicTag",
        "the engine is of another TensorRT: it has to be built again here",
    ),
    Advice(r"incompatible device", "the engine is of another GPU: it has to be built again here"),
    Advice(
        MEMORY,
        "the memory is full: close other programs, stop the desktop (sudo systemctl isolate multi-user.target), or add "
        "swap",
    ),
    Advice(
        r"Could not find any implementation for node",
        "no tactic fits, mostly for want of workspace memory: free memory and try again, or build --precision fp32",
    ),
    Advice(
        r"CUDA initialization failure|CUDA driver version is insufficient",
        "the driver is not usable here: in a container start it with --runtime nvidia; else reinstall JetPack's driver",
    ),
)
"""Recorded messages of TensorRT 8 to 10, from issue trackers, with their meaning; the first that fits counts."""


def short_of_memory(error: Exception) -> bool:
    """Whether it is for want of memory that TensorRT refused, and no fault of the engine."""
    return re.search(MEMORY, str(error)) is not None


def explain(errors: Sequence[str]) -> str:
    """Return what TensorRT logged, preceded by what it means if that is known."""
    said = "\n  ".join(errors) or "it logged no reason"
    meaning = next((item.meaning for item in ADVICE for line in errors if re.search(item.pattern, line)), None)
    return f"{meaning}. TensorRT said:\n  {said}" if meaning else f"TensorRT said:\n  {said}"


class Log:
    """The errors that TensorRT logged while this one lived; nothing is printed.

    TensorRT holds one logger a process, the first that it is given, while any object of its lives: of two engines the
    second's own would hear nothing, and the first's must not go with its engine. So there is one for all, for good.
    """

    def __init__(self, module: Any) -> None:
        self.errors: list[str] = []
        with _ONE_AT_A_TIME:
            self.logger = _logger(module.ILogger)
            _LISTENING.add(self)


_LISTENING: weakref.WeakSet[Log] = weakref.WeakSet()
_ONE_AT_A_TIME = threading.RLock()  # an engine that is collected meanwhile, in this thread, may log as it goes


@cache
def _logger(interface: Any) -> Any:
    class Told(interface):  # type: ignore[misc]  # its base is known at run time only
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            if severity <= interface.Severity.ERROR:
                with _ONE_AT_A_TIME:
                    for log in _LISTENING:
                        log.errors.append(message)

    return Told()


@dataclass(frozen=True)
class TensorRT:
    """An installed TensorRT.

    Attributes:
        module: its Python module.
        name: "TensorRT" or "TensorRT-RTX"; their version numbers have nothing to do with each other.
        version: as it says itself, such as "10.3.0".
    """

    module: Any
    name: str
    version: str

    @property
    def rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return self.name == "TensorRT-RTX"

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Major, minor, patch."""
        return parse_version(self.version)

    @property
    def strongly_typed(self) -> bool:
        """Whether a network can keep to the types of its graph (TensorRT 9 and later)."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def shares_profiles(self) -> bool:
        """Whether several contexts may use one optimization profile; before TensorRT 10 each wanted its own."""
        return self.rtx or self.numbers >= (10, 0, 0)

    def load(self, plan: bytes, dla: int | None = None) -> Engine:
        """Deserialize an engine.

        Args:
            plan: what a build made.
            dla: number of the DLA core that it runs on; the plan holds none, and TensorRT would take core 0.

        Raises:
            SessionError: this TensorRT does not take it; with its words and what they mean.
            TargetUnavailableError: it does not even start.
        """
        log = Log(self.module)
        try:
            runtime = self.module.Runtime(log.logger)
        except TypeError as error:  # what pybind11 makes of a null pointer
            raise TargetUnavailableError(f"{self.name} {self.version} does not start: {explain(log.errors)}") from error
        if dla is not None:
            runtime.DLA_core = dla
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise SessionError(f"{self.name} {self.version} does not take the engine: {explain(log.errors)}")
        return Engine(self, runtime, engine, log)


def parse_version(text: str) -> tuple[int, int, int]:
    """Return (major, minor, patch) of "8.6.2.3", "10.3.0", "11.4" ...

    Raises:
        TargetUnavailableError: it does not begin with two numbers.
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise TargetUnavailableError(f"TensorRT says its version is {text!r}; expected something like 10.3.0")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def find(modules: Sequence[tuple[str, str]] = MODULES) -> TensorRT:
    """Import what is installed: TensorRT first, then TensorRT for RTX.

    Args:
        modules: package and module of each that may be taken, the first that can be imported counts.

    Raises:
        TargetUnavailableError: none can be imported, or it is older than 8.5.
    """
    problems = []
    for package, path in modules:
        try:
            module: ModuleType = importlib.import_module(path)
            version = str(importlib.import_module(package).__version__)
        except (ImportError, OSError, AttributeError) as error:  # of a folder that pip left behind, no version
            problems.append(f"{package}: {error}")
            continue
        found = TensorRT(module, "TensorRT" if package == "tensorrt" else "TensorRT-RTX", version)
        if not found.rtx and found.numbers < OLDEST:
            raise TargetUnavailableError(
                f"TensorRT {version} is too old: 8.5 (JetPack 5.1) is the first that works. JetPack 4 boards can run "
                "the bundle with device='cpu'"
            )
        return found
    raise TargetUnavailableError("no TensorRT can be imported:\n  " + "\n  ".join(problems))


class Engine:
    """A deserialized engine: its tensors, and contexts of it."""

    def __init__(self, tensorrt: TensorRT, runtime: Any, engine: Any, log: Log) -> None:
        """Tie them together; the runtime lives as long as its engine."""
        self.tensorrt, self.log = tensorrt, log
        self._runtime, self._engine = runtime, engine
        self._settings = _settings(tensorrt.module, engine)
        self._one_at_a_time = threading.Lock()  # NVIDIA promises threads their own contexts, not to make them at once
        self.named = hasattr(engine, "num_io_tensors")
        count = engine.num_io_tensors if self.named else engine.num_bindings
        self.names = [engine.get_tensor_name(i) if self.named else engine.get_binding_name(i) for i in range(count)]

    def tensors(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape, without the batch, and type ("FLOAT", "HALF", ...) of every input and output, by name."""
        found = {}
        for index, name in enumerate(self.names):
            if self.named:
                shape, kind = self._engine.get_tensor_shape(name), self._engine.get_tensor_dtype(name)
            else:
                shape, kind = self._engine.get_binding_shape(index), self._engine.get_binding_dtype(index)
            found[name] = (tuple(int(side) for side in shape)[1:], str(kind.name))
        return found

    def context(self, source: str, shape: tuple[int, ...], addresses: Mapping[str, int]) -> Context:
        """Return a new context.

        Args:
            source: name of the input.
            shape: of the input, with the batch; it never changes.
            addresses: of every input and output, by name; they never change either.

        Raises:
            SessionError: TensorRT makes none, mostly for want of memory.
        """
        before = len(self.log.errors)
        with self._one_at_a_time:
            context = self._engine.create_execution_context(*self._settings)
        if context is None:
            raise SessionError(f"TensorRT makes no execution context: {explain(self.log.errors[before:])}")
        return Context(self, context, (source, shape), addresses)

    def close(self) -> None:
        """Let the engine go before its runtime."""
        self._settings = ()
        self._engine = None
        self._runtime = None


def _settings(module: Any, engine: Any) -> tuple[Any, ...]:
    """Return what a context is made with; none but for TensorRT for RTX.

    That compiles a shape's kernels in the background while others run, and a graph captured meanwhile would keep those.
    """
    strategy = getattr(module, "DynamicShapesKernelSpecializationStrategy", None)
    if strategy is None or not hasattr(engine, "create_runtime_config"):
        return ()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
    return (config,)


class Context:
    """One execution context with its shapes and addresses; used by one thread at a time."""

    def __init__(
        self, engine: Engine, context: Any, image: tuple[str, tuple[int, ...]], addresses: Mapping[str, int]
    ) -> None:
        """Set what never changes; `execute_async_v3` where there is one, else bindings by index (TensorRT 8.5)."""
        self._log, self._context = engine.log, context
        self._module = engine.tensorrt.module
        (source, shape), names = image, engine.names
        self._named = engine.named and hasattr(context, "execute_async_v3")
        self._bindings = [addresses[name] for name in names]
        if self._named:
            done = [bool(context.set_input_shape(source, shape))]
            done += [bool(context.set_tensor_address(name, addresses[name])) for name in names]
        else:
            done = [bool(context.set_binding_shape(names.index(source), shape))]
        if not all(done):
            raise SessionError(f"TensorRT refused the input shape {shape}: {explain(self._log.errors)}")

    def enqueue(self, handle: int) -> None:
        """Queue the network on a stream.

        Raises:
            SessionError: TensorRT refused; with its words.
        """
        before = len(self._log.errors)
        if self._named:
            done = self._context.execute_async_v3(handle)
        else:
            done = self._context.execute_async_v2(self._bindings, handle)
        if not done:
            raise SessionError(f"TensorRT did not run the network: {explain(self._log.errors[before:])}")

    def watch(self) -> list[tuple[str, float]]:
        """Let TensorRT report layers from now on; return the list that (name, ms) of each run are added to.

        The context then waits for every layer: it is of no use for anything else any more.
        """
        found: list[tuple[str, float]] = []

        class Reported(self._module.IProfiler):  # type: ignore[name-defined,misc]  # its base is known at run time only
            def __init__(self) -> None:
                super().__init__()

            def report_layer_time(self, name: str, ms: float) -> None:
                found.append((name, ms))

        self._profiler = Reported()  # TensorRT keeps a bare pointer
        self._context.profiler = self._profiler
        return found

    def close(self) -> None:
        """Let it go."""
        self._context = None
