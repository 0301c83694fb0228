"""A stand-in for the `tensorrt` module: the calls we make, engines that run on ONNX Runtime, messages as recorded.

The messages are those of TensorRT 8 to 10 in NVIDIA/TensorRT#2176, #564, dusty-nv/jetson-inference#426 and
marcoslucianops/DeepStream-Yolo#77.
"""

from __future__ import annotations

import enum
import json
import weakref
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from edgekd.targets.tensorrt._runtime import TensorRT

from .tensorrt_host import STREAMS, view
from .tensorrt_plugin_fake import FakePlugins

MAGIC = b"ftrt"
LAYERS = {"TopK": "TOPK", "QuantizeLinear": "QUANTIZE", "NonZero": "NON_ZERO", "NonMaxSuppression": "NMS"}
OTHER_VERSION = (
    "6: The engine plan file is not compatible with this version of TensorRT, expecting library version {} got {}, "
    "please rebuild."
)
OTHER_DEVICE = (
    "6: The engine plan file is generated on an incompatible device, expecting compute {} got compute {}, "
    "please rebuild."
)
DAMAGED = (
    "1: [stdArchiveReader.cpp::StdArchiveReader::30] Error Code 1: Serialization (Serialization assertion "
    "magicTagRead == kMAGIC_TAG failed.Magic tag does not match)"
)
NO_TACTIC = "10: Could not find any implementation for node {ForeignNode[onnx::Conv_0...Concat_9]}."
NO_START = (
    "6: [runtime.cpp::isCudaInstalledCorrectly::41] Error Code 6: Internal Error (CUDA initialization failure with "
    "error 2. Please check your CUDA installation)"
)
NULL = "pybind11::init(): factory function returned nullptr"
NO_MEMORY = "1: [defaultAllocator.cpp::allocate::19] Error Code 1: Cuda Runtime (out of memory)"
FLOAT = SimpleNamespace(name="FLOAT")
HALF = SimpleNamespace(name="HALF")


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    Severity = Severity


class Flag(enum.IntEnum):
    FP16 = 0
    INT8 = 1
    GPU_FALLBACK = 3
    TF32 = 7
    OBEY_PRECISION_CONSTRAINTS = 12


class RtxFlag(enum.IntEnum):
    TF32 = 7
    REQUIRE_USER_ALLOCATION = 21


class FakeTensorRT:
    """One installed version; `module` is what `import tensorrt` would give.

    Attributes:
        builds: engines built so far.
        calls: what was set on the last build's configuration and network.
        build_errors: logged by the next build, which then makes no engine.
        layers: that a profiler is told of at each enqueue, with milliseconds.
        run_errors: logged by the next enqueue, which then fails.
        load_errors: logged by the next engine that is deserialized, which then is none.
        start_errors: logged by the next builder or runtime, which then is none.
        dla_cores: that the board has.
        strategies: for the kernels of dynamic shapes, of each context so far that was given one.
        kernels: emulated, for a plugin that is in an engine.
        loaded_on: DLA core of each engine deserialized so far; -1 is none.
    """

    def __init__(self, version: str = "10.3.0", *, capability: int = 87, dla_cores: int = 0, rtx: bool = False) -> None:
        major, minor = (int(item) for item in version.split(".")[:2])
        self.version, self.capability, self.rtx = version, capability, rtx
        self.named = rtx or (major, minor) >= (8, 6)
        self.builds, self.dla_cores = 0, dla_cores
        self.calls: list[tuple[Any, ...]] = []
        self.build_errors: list[str] = []
        self.run_errors: list[str] = []
        self.load_errors: list[str] = []
        self.start_errors: list[str] = []
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._logger: Any = None
        self.kernels: Any = None
        self.contexts = 0
        self.strategies: list[Any] = []
        self.loaded_on: list[int] = []
        self.layers = [("/stem/Conv + /stem/Relu", 0.25), ("{ForeignNode[/head/Mul.../head/Concat]}", 0.5)]
        flags = {"EXPLICIT_BATCH": 0} if major < 10 and not rtx else {"STRONGLY_TYPED": 1}
        self.module: Any = SimpleNamespace(
            __version__=version, ILogger=ILogger, IProfiler=IProfiler, BuilderFlag=RtxFlag if rtx else Flag,
            NetworkDefinitionCreationFlag=enum.IntEnum("CreationFlag", flags),
            MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
            DataType=SimpleNamespace(FLOAT=FLOAT, HALF=HALF), DeviceType=SimpleNamespace(DLA="DLA", GPU="GPU"),
            Builder=lambda log: FakeBuilder(self, log), OnnxParser=FakeParser,
            Runtime=lambda log: FakeRuntime(self, log), float32="float32", int32="int32",
        )  # fmt: skip
        if rtx:
            self.module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="LAZY", EAGER="EAGER")
        if (major, minor) >= (10, 9):
            self.module.plugin = FakePlugins()

    def found(self) -> TensorRT:
        return TensorRT(self.module, "TensorRT-RTX" if self.rtx else "TensorRT", self.version)

    def start(self, user: Any, log: Any) -> None:
        """Take a logger as NVIDIA's does: the first, for as long as anything lives, and by a bare pointer."""
        if not self._users:
            self._logger = weakref.ref(log)
        self._users.add(user)
        if self.start_errors:
            self.say(self.start_errors)
            raise TypeError(NULL)

    def say(self, lines: list[str], severity: Severity = Severity.ERROR) -> None:
        """Log lines, and empty the list."""
        logger = self._logger()
        assert logger is not None, "logged to a logger that is gone: NVIDIA's would crash"
        while lines:
            logger.log(severity, lines.pop(0))


class FakeNetwork:
    def __init__(self, flags: int, module: Any = None) -> None:
        self.flags, self.graph, self.module = flags, b"", module
        self.layers: list[Any] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> Any:
        return self.layers[index]


class FakeLayer:
    def __init__(self, node: Any, kind: Any) -> None:
        self.type = SimpleNamespace(name=LAYERS.get(node.op_type, node.op_type.upper()))
        self.name = node.name or node.output[0]
        self.precision: Any = None
        self.set_output_types: list[Any] = []
        self._output = SimpleNamespace(dtype=kind)

    def get_output(self, index: int) -> Any:
        assert index == 0
        return self._output

    def set_output_type(self, _index: int, kind: Any) -> None:
        self.set_output_types.append(kind)


class FakeParser:
    def __init__(self, network: FakeNetwork, _log: ILogger) -> None:
        self._network, self._errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(node=lambda: -1, desc=lambda: self._errors[index])

    def parse(self, graph: bytes) -> bool:
        try:
            model = onnx.load_from_string(graph)
            onnx.checker.check_model(model)
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except Exception as error:
            self._errors.append(f"Failed to parse the ONNX model: {error}")
            return False
        unknown = [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
        plugins = getattr(self._network.module, "plugin", None)
        for node in unknown:
            names = {item.name: item.s.decode() for item in node.attribute if item.name == "plugin_namespace"}
            if plugins is None or f"{names.get('plugin_namespace')}::{node.op_type}" not in plugins.registry:
                self._errors.append(f"No importer registered for op: {node.op_type}. Plugin not found")
                return False
        halves = {item.name for item in inferred.value_info if item.type.tensor_type.elem_type == 10}
        self._network.graph = graph
        self._network.layers = [
            FakeLayer(node, HALF if node.output[0] in halves else FLOAT) for node in model.graph.node
        ]
        return True


class FakeBuilder:
    def __init__(self, fake: FakeTensorRT, log: Any) -> None:
        self._fake = fake
        fake.start(self, log)
        self.num_DLA_cores = fake.dla_cores
        fake.calls.clear()

    def create_network(self, flags: int) -> FakeNetwork:
        self._fake.calls.append(("flags", flags))
        return FakeNetwork(flags, self._fake.module)

    def create_builder_config(self) -> Any:
        calls = self._fake.calls
        return SimpleNamespace(
            set_memory_pool_limit=lambda pool, size: calls.append((pool, size)),
            clear_flag=lambda flag: calls.append(("clear", flag.name)),
            set_flag=lambda flag: calls.append(("set", flag.name)),
            create_timing_cache=lambda content: None if content.startswith(b"bad") else FakeTimings(content),
            set_timing_cache=lambda cache, ignore_mismatch: (
                calls.append(("timings", cache.content)) or not ignore_mismatch
            ),
            add_optimization_profile=lambda profile: calls.append(("profile", profile.shapes)),
            can_run_on_DLA=lambda layer: layer.type.name == "CONV" and layer.get_output(0).dtype is HALF,
        )

    def create_optimization_profile(self) -> Any:
        profile = SimpleNamespace(shapes=None)
        profile.set_shape = lambda name, *shapes: setattr(profile, "shapes", (name, *shapes))
        return profile

    def build_serialized_network(self, network: FakeNetwork, config: Any) -> bytes | None:
        self._fake.builds += 1
        self._fake.calls += [
            (name, getattr(config, name)) for name in ("default_device_type", "DLA_core") if hasattr(config, name)
        ]
        self._fake.calls.append(("layers", network.layers))
        if self._fake.build_errors:
            self._fake.say(list(self._fake.build_errors))
            return None
        about = {"version": self._fake.version, "capability": self._fake.capability}
        return MAGIC + json.dumps(about).encode() + b"\0" + network.graph


class FakeTimings:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"t"


class FakeRuntime:
    """Takes an engine for a DLA core as NVIDIA's does: on the core that is set here, whatever the builder was told."""

    DLA_core = -1

    def __init__(self, fake: FakeTensorRT, log: Any) -> None:
        self._fake = fake
        fake.start(self, log)

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        head, _, graph = plan.partition(b"\0")
        problem = self._problem(head)
        if problem is not None:
            self._fake.say(["Using default stream in enqueue"], Severity.WARNING)
            self._fake.say([problem])
            return None
        self._fake.loaded_on.append(self.DLA_core)
        if b"edgekd_suppress" in graph:
            from .tensorrt_single_fake import SingleEngine

            return SingleEngine(self._fake, graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        named = RtxEngine if self._fake.rtx else NamedEngine
        return (named if self._fake.named else IndexedEngine)(self._fake, session)

    def _problem(self, head: bytes) -> str | None:
        if self._fake.load_errors:
            return self._fake.load_errors.pop()
        if not head.startswith(MAGIC):
            return DAMAGED
        about = json.loads(head[len(MAGIC) :])
        if about["version"] != self._fake.version:
            return OTHER_VERSION.format(self._fake.version, about["version"])
        got, here = about["capability"], self._fake.capability
        return None if got == here else OTHER_DEVICE.format(here / 10, got / 10)


class IProfiler:
    def report_layer_time(self, _name: str, _ms: float) -> None:
        raise NotImplementedError


class FakeEngine:
    """What both kinds of engine have."""

    def __init__(self, fake: FakeTensorRT, session: Any) -> None:
        self.fake, self.session = fake, session
        self.names = [item.name for item in (*session.get_inputs(), *session.get_outputs())]
        self.shapes = [
            tuple(-1 if axis == 0 or not isinstance(side, int) else side for axis, side in enumerate(item.shape))
            for item in (*session.get_inputs(), *session.get_outputs())
        ]

    def enqueue(
        self, shape: tuple[int, ...], addresses: dict[str, int], handle: int, profiler: IProfiler | None = None
    ) -> bool:
        if self.fake.run_errors:
            self.fake.say(self.fake.run_errors)
            return False
        STREAMS[handle].add(lambda: self._run(shape, addresses))
        if profiler is not None:
            for name, ms in self.fake.layers:
                STREAMS[handle].add(partial(profiler.report_layer_time, name, ms))
        return True

    def _run(self, shape: tuple[int, ...], addresses: dict[str, int]) -> None:
        source, *targets = self.names
        outputs = self.session.run(targets, {source: view(addresses[source], shape, np.float32)})
        for name, output in zip(targets, outputs, strict=True):
            view(addresses[name], output.shape, np.float32)[...] = output


class NamedEngine(FakeEngine):
    """TensorRT 8.6 and later: tensors by name."""

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[self.names.index(name)]

    def get_tensor_dtype(self, _name: str) -> Any:
        return FLOAT

    def create_execution_context(self) -> Any:
        self.fake.contexts += 1
        return NamedContext(self)


class RtxEngine(NamedEngine):
    """TensorRT for RTX: a context can be given settings."""

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="LAZY")

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        if runtime_config is not None:
            self.fake.strategies.append(runtime_config.dynamic_shapes_kernel_specialization_strategy)
        return super().create_execution_context()


class NamedContext:
    profiler: IProfiler | None = None

    def __init__(self, engine: NamedEngine) -> None:
        self._engine, self._addresses, self._shape = engine, {}, ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return name == self._engine.names[0]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.names

    def execute_async_v3(self, handle: int) -> bool:
        return self._engine.enqueue(self._shape, self._addresses, handle, self.profiler)


class IndexedEngine(FakeEngine):
    """TensorRT 8.5 as some boards have it: bindings by index."""

    @property
    def num_bindings(self) -> int:
        return len(self.names)

    def get_binding_name(self, index: int) -> str:
        return self.names[index]

    def get_binding_shape(self, index: int) -> tuple[int, ...]:
        return self.shapes[index]

    def get_binding_dtype(self, _index: int) -> Any:
        return FLOAT

    def create_execution_context(self) -> Any:
        self.fake.contexts += 1
        return IndexedContext(self)


class IndexedContext:
    profiler: IProfiler | None = None

    def __init__(self, engine: IndexedEngine) -> None:
        self._engine, self._shape = engine, ()

    def set_binding_shape(self, index: int, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return index == 0

    def execute_async_v2(self, bindings: list[int], handle: int) -> bool:
        return self._engine.enqueue(
            self._shape, dict(zip(self._engine.names, bindings, strict=True)), handle, self.profiler
        )
