"""From the typed graph to an engine, by the TensorRT that is installed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.errors import BuildError

from . import _dla, _known_bad
from ._runtime import Log, explain

if TYPE_CHECKING:
    from edgekd._target import Progress

    from ._runtime import TensorRT

WORKSPACE_BYTES = 1 << 30
SIZED_BY_DATA = frozenset(("NON_ZERO", "NMS", "TRIP_LIMIT"))  # need memory while they run


@dataclass(frozen=True)
class Order:
    """What to compile and how.

    Attributes:
        graph: typed ONNX.
        name: of its input.
        shape: (3, height, width) of the input.
        precision: "fp32", "fp16" or "int8"; the graph holds the types, TensorRT 8 has to be told as well.
        batches: least, usual and largest batch.
        workspace_bytes: that a layer may take at most.
        chip: compute capability to compile for without a GPU ("SM86", TensorRT-RTX only); "": the GPU that is here.
        jetson: whether this is a board with L4T.
        timings: what an earlier build wrote; empty: none.
        dla: number of the DLA core that takes what it can; None: all on the GPU.
    """

    graph: bytes
    name: str
    shape: tuple[int, int, int]
    precision: str
    batches: tuple[int, int, int] = (1, 1, 8)
    workspace_bytes: int = WORKSPACE_BYTES
    chip: str = ""
    jetson: bool = False
    timings: bytes = b""
    dla: int | None = None


@dataclass(frozen=True)
class Compiled:
    """An engine, the timings that later builds can use, and what is known of the network.

    Attributes:
        plan: the engine.
        timings: for later builds.
        layers: how many the network has.
        on_gpu: names of those that a DLA does not take; empty without one.
    """

    plan: bytes
    timings: bytes
    layers: int
    on_gpu: tuple[str, ...] = ()


def compile_engine(tensorrt: TensorRT, order: Order, progress: Progress) -> Compiled:
    """Compile.

    Raises:
        BuildError: the parser refused the graph, the version is known to get it wrong, there is no such DLA, or no
            engine came out; with TensorRT's words.
    """
    trt = tensorrt.module
    log = Log(trt)
    try:
        builder = trt.Builder(log.logger)
    except TypeError as error:  # what pybind11 makes of a null pointer
        raise BuildError(f"{tensorrt.name} {tensorrt.version} does not start: {explain(log.errors)}") from error
    if order.dla is not None:
        _dla.check(tensorrt, builder, order.dla, order.precision)
    typed = tensorrt.strongly_typed if order.dla is None else _dla.typed(tensorrt)
    network = builder.create_network(_network_flags(tensorrt, typed=typed))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(order.graph):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        listed = "\n  ".join(f"node {item.node()}: {item.desc()}" for item in errors)
        raise BuildError(f"{tensorrt.name}'s parser refused the graph:\n  {listed}")
    layers = {network.get_layer(index).type.name for index in range(network.num_layers)}
    _known_bad.apply(tensorrt, layers, jetson=order.jetson, progress=progress)
    config = _config(tensorrt, builder, network, order, typed=typed)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION") and not layers & SIZED_BY_DATA:
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # else TensorRT for RTX may allocate during a capture
    on_gpu = () if order.dla is None else _dla.left_on_gpu(network, config)
    cache = _timing_cache(config, order.timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{tensorrt.name} {tensorrt.version} made no engine: {explain(log.errors)}")
    timings = bytes(cache.serialize()) if cache is not None else b""
    return Compiled(bytes(plan), timings, int(network.num_layers), on_gpu)


def _network_flags(tensorrt: TensorRT, *, typed: bool) -> int:
    """Return flags of `create_network`; TensorRT 8 must be told that the batch is explicit."""
    known = tensorrt.module.NetworkDefinitionCreationFlag
    if typed:
        return int(1 << int(known.STRONGLY_TYPED))
    return int(1 << int(known.EXPLICIT_BATCH)) if hasattr(known, "EXPLICIT_BATCH") else 0


def _config(tensorrt: TensorRT, builder: Any, network: Any, order: Order, *, typed: bool) -> Any:
    trt = tensorrt.module
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits instead of float32's 23: Ampere has it on by default
    if not typed and order.precision == "fp16":
        _keep_types(trt, network, config)
    if not typed and order.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)  # TensorRT 8 does not look at QuantizeLinear otherwise
    if order.dla is not None:
        _dla.choose(trt, config, order.dla)
    if order.chip:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, order.chip), 0)
    profile = builder.create_optimization_profile()
    profile.set_shape(order.name, *((batch, *order.shape) for batch in order.batches))
    config.add_optimization_profile(profile)
    return config


def _keep_types(trt: Any, network: Any, config: Any) -> None:
    """Hold a network that is not strongly typed (TensorRT 8, DLA) to the graph's types, layer by layer."""
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.get_output(0).dtype
        if kind in (trt.DataType.FLOAT, trt.DataType.HALF):
            layer.precision = kind
            layer.set_output_type(0, kind)


def _timing_cache(config: Any, timings: bytes) -> Any:
    """Start from earlier timings; from none if TensorRT does not take those."""
    for content in (timings, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return cache
    return None
