"""OpenVINO's int8 against the int8 graph computed as it is written, and the compressed IR that holds it."""

from __future__ import annotations

import contextlib
import io
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgekd._manifest import Artifact
from edgekd._target import Quantization, load_target
from edgekd.errors import SessionError
from edgekd.quantization import FloatGraph, int8_region

from ..conformance import bundles
from ..conformance.anomaly_networks import anomaly_network
from ..conformance.detectors import Graph, detector
from ..quantization.graphs import model, noise, quantize, run, twice

pytest.importorskip("openvino")

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 4  # quanta of the last layer's input, as they show in its output: sums in another order round another way


def concat(g: Graph, x: str) -> tuple[str, int]:
    parts = [x, g.silu(g.conv(x, 16, 16)), g.op("Relu", g.conv(x, 16, 16))]
    return g.op("Concat", *parts, axis=1), 48


def residual(g: Graph, x: str) -> tuple[str, int]:
    branch = g.conv(g.op("Relu", g.conv(x, 16, 16)), 16, 16)
    return g.op("Relu", g.op("Add", branch, x)), 16


def pyramid(g: Graph, x: str) -> tuple[str, int]:
    coarse = g.silu(g.conv(x, 16, 16, stride=2))
    return g.op("Concat", x, twice(g, coarse), axis=1), 32


def summed_pyramid(g: Graph, x: str) -> tuple[str, int]:
    coarse = g.silu(g.conv(x, 16, 16, stride=2))
    return g.op("Add", g.conv(x, 16, 16, kernel=1), twice(g, coarse)), 16


def depthwise(g: Graph, x: str) -> tuple[str, int]:
    deep = g.op("HardSwish", g.conv(x, 16, 16, group=16))
    return g.op("Relu", g.conv(deep, 16, 16, kernel=1)), 16


def gated(g: Graph, x: str) -> tuple[str, int]:
    """A squeeze-and-excitation block."""
    narrow = g.op("Relu", g.conv(g.op("GlobalAveragePool", x), 16, 4, kernel=1))
    return g.op("Mul", x, g.op("Sigmoid", g.conv(narrow, 4, 16, kernel=1))), 16


def pooled(g: Graph, x: str) -> tuple[str, int]:
    """Pyramid pooling: what is pooled twice is joined with what is not."""
    first = g.op("MaxPool", x, kernel_shape=[5, 5], pads=[2] * 4)
    second = g.op("MaxPool", first, kernel_shape=[5, 5], pads=[2] * 4)
    return g.op("Concat", x, first, second, axis=1), 48


BLOCKS = [concat, residual, pyramid, summed_pyramid, depthwise, gated, pooled]
JOINING = [concat, pyramid, pooled]  # where OpenVINO gets signed activations wrong


def network(block: Any) -> bytes:
    g = Graph(1)
    middle, channels = block(g, g.silu(g.conv("images", 3, 16)))
    return model(g, g.conv(middle, channels, 8, kernel=1))


def lowered(graph: bytes, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return what the target's IR computes."""
    import openvino
    from edgekd.targets.openvino import _build

    spec = SimpleNamespace(name="images", height=pixels.shape[2], width=pixels.shape[3])
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(input=spec))
    files = _build.lower(bundle, "int8", lambda _: None, Quantization(graph, pixels)).files
    core = openvino.Core()
    read = core.read_model(
        zlib.decompress(files["model.xml.z"]), openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8))
    )
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, found = compiled.create_infer_request(), []
    for row in range(len(pixels)):
        request.infer({"images": pixels[row : row + 1]})
        found.append([request.get_tensor(item).data.copy() for item in compiled.outputs])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def quantum(data: bytes, quantized: bytes) -> float:
    """Return by how much an output of the last layer changes if one value that it reads changes by one."""
    graph = FloatGraph(data)
    last = graph.graph.node[-1]
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(quantized).graph.initializer}
    sources = int8_region(graph).sources
    scale = max(float(value) for name, value in stored.items() if name.removesuffix("_scale") in sources)
    assert scale > 0
    return scale * float(np.abs(graph.values(last.input[1])).max())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_int8_is_what_the_graph_says(block: Any) -> None:
    data, pixels = network(block), noise(8)
    quantized = quantize(data, pixels[:4])
    (literal,), (exact,) = run(quantized, pixels), run(data, pixels)
    (got,) = lowered(quantized, pixels)
    assert np.abs(got - literal).max() <= FEW * quantum(data, quantized)
    off, lost = (float(np.sqrt(np.mean((item - literal) ** 2))) for item in (got, exact))
    assert lost > 0.005, "else nothing was rounded"
    assert off < 0.1 * lost


@pytest.mark.parametrize("block", JOINING, ids=lambda block: block.__name__)
def test_signed_activations_behind_a_concat_are_why_they_are_shifted(
    block: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, OpenVINO has mended it, and `_build._shifted` may go."""
    from edgekd.targets.openvino import _build

    monkeypatch.setattr(_build, "_shifted", lambda graph: graph)
    data, pixels = network(block), noise(8)
    quantized = quantize(data, pixels[:4])
    (literal,), (got,) = run(quantized, pixels), lowered(quantized, pixels)
    assert np.abs(got - literal).max() > 10 * FEW * quantum(data, quantized)


@pytest.mark.parametrize(
    ("data", "bounds"), [(detector(channels=16), (0.3, 0.3)), (detector(oriented=True), (0.3, 0.3)),
    (anomaly_network(), (0.3, 0.3))], ids=["boxes", "turned", "maps"],
)  # fmt: skip
def test_whole_networks_are_as_exact_as_int8_is(data: bytes, bounds: tuple[float, float]) -> None:
    pixels = noise(4, (3, 64, 96))
    quantized = quantize(data, pixels)
    for got, literal, exact, share in zip(
        lowered(quantized, pixels), run(quantized, pixels), run(data, pixels), bounds, strict=True
    ):
        off, lost = (float(np.sqrt(np.mean((item - literal) ** 2))) for item in (got, exact))
        assert off < share * lost


def test_shifted_graph_computes_the_same_to_the_bit() -> None:
    from edgekd.targets.openvino._build import _shifted

    pixels = noise(2, (3, 64, 96))
    for data in (detector(), anomaly_network()):
        quantized = quantize(data, pixels)
        shifted = _shifted(quantized)
        for got, expected in zip(run(shifted, pixels), run(quantized, pixels), strict=True):
            np.testing.assert_array_equal(got, expected)
        stored = {item.name: item for item in onnx.load_from_string(shifted).graph.initializer}
        kinds = {name: stored[name].data_type for name in stored if name.endswith("_zero")}
        assert set(kinds.values()) == {TensorProto.UINT8, TensorProto.INT8}, "activations and weights"
        sources = int8_region(FloatGraph(data)).sources
        for name, kind in kinds.items():
            activation = name.removesuffix("_zero") in sources
            assert kind == (TensorProto.UINT8 if activation else TensorProto.INT8)
            assert set(numpy_helper.to_array(stored[name]).reshape(-1).tolist()) == {128 if activation else 0}


def test_session_of_int8_says_so_and_does_not_compute_in_bfloat16() -> None:
    build = bundles.built("openvino", "int8")
    with contextlib.closing(load_target("openvino").load(build.bundle, build.artifact)) as session:
        assert session.info.compute == "int8"
        assert session.info.precision == "int8"
    weights = len(build.bundle.file(build.artifact, "model.bin"))
    float32 = bundles.built("openvino", "fp32")
    assert weights < 0.5 * len(float32.bundle.file(float32.artifact, "model.bin"))


def repacked(xml: bytes | None, name: str = "model.xml.z") -> tuple[Any, Artifact]:
    """Return the conformance bundle with other bytes as the graph; None: its own text, as early bundles held it."""
    build = bundles.built("openvino", "fp32")
    text = zlib.decompress(build.bundle.file(build.artifact, "model.xml.z"))
    files = {name: "graph", "model.bin": build.artifact.files["model.bin"]}
    artifact = Artifact(target="openvino", precision="fp32", files=files)
    return build.bundle.replace(add={"graph": text if xml is None else xml}), artifact


def packed() -> bytes:
    build = bundles.built("openvino", "fp32")
    return bytes(build.bundle.file(build.artifact, "model.xml.z"))


def test_graph_is_stored_compressed() -> None:
    text = zlib.decompress(packed())
    assert text.lstrip().startswith(b"<?xml")
    assert len(packed()) < 0.3 * len(text)


def test_bundles_from_before_the_compression_still_load() -> None:
    bundle, artifact = repacked(None, "model.xml")
    new = bundles.built("openvino", "fp32")
    pixels = bundles.pixels(1)
    target = load_target("openvino")
    with (
        contextlib.closing(target.load(bundle, artifact, threads=1)) as old,
        contextlib.closing(target.load(new.bundle, new.artifact, threads=1)) as session,
    ):
        for got, expected in zip(old.infer(pixels), session.infer(pixels), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off"),
        (packed()[:-1], "cut off"),
        (packed()[: len(packed()) // 2], "cut off"),
        (b"garbage" * 50, "cannot be unpacked"),
        (b"\x00" + packed()[1:], "cannot be unpacked"),
        (packed()[:-4] + b"\x00\x00\x00\x00", "cannot be unpacked"),
        (zlib.compress(b"<net nothing"), "cannot start this artifact"),
        (zlib.compress(b"garbage" * 50), "is not OpenVINO IR"),
        (zlib.compress(b""), "is not OpenVINO IR"),
    ],
    ids=["empty", "a byte short", "half", "garbage", "head", "checksum", "no IR", "packed garbage", "packed nothing"],
)
def test_graph_that_cannot_be_unpacked_raises_session_error(content: bytes, message: str) -> None:
    bundle, artifact = repacked(content)
    with pytest.raises(SessionError, match=message):
        load_target("openvino").load(bundle, artifact)


def test_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.targets.openvino import _session

    assert _session.MOST_TEXT <= 1 << 28
    text = zlib.decompress(packed())
    monkeypatch.setattr(_session, "MOST_TEXT", len(text) + 1000)
    bundle, artifact = repacked(None, "model.xml")
    load_target("openvino").load(bundle, artifact).close()
    held = io.BytesIO(zlib.compress(b" " * (len(text) + 2000)))
    bundle, artifact = repacked(held.getvalue())
    with pytest.raises(SessionError, match=f"cut off, or above {len(text) + 1000} bytes"):
        load_target("openvino").load(bundle, artifact)
