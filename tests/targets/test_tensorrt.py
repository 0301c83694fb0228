"""TensorRT: what a target that cannot run yet must do, the float16 pass, and the ahead-of-time check."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from edgekd.targets.tensorrt import _ahead
from edgekd.targets.tensorrt._half import halve
from onnx import TensorProto, helper, numpy_helper

from edgekd import geometry
from edgekd._target import load_target
from edgekd.errors import BuildError

from ..conformance import bundles
from ..conformance.detectors import Graph, detector
from ..conformance.predict import RunnableTarget

if TYPE_CHECKING:
    from edgekd._target import Target

    from .conftest import Board


class TestTensorRT(RunnableTarget):
    """The whole suite on the host device and the fake TensorRT: see conftest.py beside this file."""

    TARGET = "tensorrt"

    @pytest.fixture
    def target(self, board: Board) -> Target:
        assert board.tensorrt.version
        return load_target(self.TARGET)

    def check_bare_probe(self, reason: str) -> None:
        assert "no NVIDIA driver found" in reason


needs_rtx = pytest.mark.skipif(
    not _ahead.available(), reason="TensorRT-RTX is not installed: pip install 'edgekd[tensorrt]'"
)


def run(graph: bytes, pixels: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": pixels}))


def types(graph: bytes) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph), strict_mode=True).graph
    return {item.name: item.type.tensor_type.elem_type for item in (*inferred.value_info, *inferred.output)}


def small(kinds: list[tuple[str, dict[str, Any]]], weights: dict[str, Any], output: list[Any]) -> bytes:
    """Return images (1, 2, 4, 4) -> a chain of nodes -> y; every node takes the weights named after it as "op.0"."""
    nodes, name = [], "images"
    for index, (op, attributes) in enumerate(kinds):
        result = "y" if index == len(kinds) - 1 else f"t{index}"
        own = [item for item in weights if item.startswith(f"{op}{index}.")]
        nodes.append(helper.make_node(op, [name, *own], [result], **attributes))
        name = result
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 2, 4, 4])
    graph = helper.make_graph(
        nodes,
        "small",
        [image],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_halve_agrees_with_float32_to_a_hundredth() -> None:
    graph, pixels = detector(), bundles.pixels(2)
    boxes, scores = run(graph, pixels)
    half_boxes, half_scores = run(halve(graph), pixels)
    assert half_boxes.dtype == half_scores.dtype == np.float32
    assert 0 < np.abs(scores - half_scores).max() < 1e-2
    assert np.abs(boxes - half_boxes).max() < 0.5


def test_halve_of_an_oriented_detector_moves_no_corner_by_half_a_pixel() -> None:
    graph, pixels = detector(oriented=True), bundles.pixels(64)
    boxes, scores = run(graph, pixels)
    half_boxes, half_scores = run(halve(graph), pixels)
    assert np.abs(scores - half_scores).max() < 1e-2
    assert np.abs(boxes - half_boxes).max() > 1, "no angle jumped, so this compares no rectangles"
    assert geometry.box_distances(boxes.reshape(-1, 5), half_boxes.reshape(-1, 5)).max() < 0.5


def test_emulation_shows_the_rounding_of_activations_too() -> None:
    graph, pixels = detector(), bundles.pixels(2)
    scores, half, emulated = (run(item, pixels)[1] for item in (graph, halve(graph), halve(graph, emulate=True)))
    assert np.abs(scores - half).max() < np.abs(scores - emulated).max() < 1e-2
    kinds = {item.data_type for item in onnx.load_from_string(halve(graph, emulate=True)).graph.initializer}
    assert TensorProto.FLOAT16 not in kinds


def test_halve_keeps_the_decode_tail_in_float32() -> None:
    kinds = types(halve(detector()))
    model = onnx.load_from_string(halve(detector()))
    for node in model.graph.node:
        wanted = TensorProto.FLOAT if node.op_type in ("Softplus", "Slice", "Sub") else None
        wanted = TensorProto.FLOAT16 if node.op_type in ("Conv", "HardSwish", "Resize", "MaxPool") else wanted
        if wanted is not None:
            assert kinds[node.output[0]] == wanted, node.op_type


def test_halve_stores_weights_of_convolutions_as_float16() -> None:
    model = onnx.load_from_string(halve(detector()))
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    weights = [kinds[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert set(weights) == {TensorProto.FLOAT16}
    assert len(halve(detector(channels=32))) < 0.6 * len(detector(channels=32))


def test_halve_leaves_no_float32_weight_that_nothing_uses() -> None:
    model = onnx.load_from_string(halve(detector()))
    used = {name for node in model.graph.node for name in node.input}
    assert {item.name for item in model.graph.initializer} <= used


def test_halve_keeps_the_scales_of_resize_in_float32() -> None:
    model = onnx.load_from_string(halve(detector()))
    kinds = {item.name: item.data_type for item in model.graph.initializer}
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    assert kinds[resize.input[2]] == TensorProto.FLOAT


def test_halve_puts_an_expectation_over_edges_into_the_tail() -> None:
    # conv -> softmax over 8 bins -> 1x1 convolution with weights 0..7: the expected edge (Li et al., 2020, eq. 3)
    bins = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    graph = small(
        [("Conv", {}), ("Softmax", {"axis": 1}), ("Conv", {})],
        {"Conv0.w": noise(8, 2, 1, 1), "Conv2.w": bins},
        [1, 1, 4, 4],
    )
    kinds = types(halve(graph))
    assert kinds["t1"] == TensorProto.FLOAT
    assert kinds["t0_half"] == TensorProto.FLOAT16


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_halve_puts_a_product_with_one_column_into_the_tail(op: str) -> None:
    weights = {"Conv0.w": noise(8, 2, 4, 4), f"{op}3.w": np.arange(8, dtype=np.float32).reshape(8, 1)}
    chain = [("Conv", {}), ("Flatten", {}), ("Softmax", {}), (op, {})]
    kinds = types(halve(small(chain, weights, [1, 1])))
    assert kinds["t0_half"] == TensorProto.FLOAT16
    assert kinds["t2"] == TensorProto.FLOAT


@pytest.mark.parametrize(("op", "attributes", "shape"), [("MatMul", {}, (8, 3)), ("Gemm", {"transB": 1}, (3, 8))])
def test_halve_makes_a_product_with_several_columns_float16(
    op: str, attributes: dict[str, int], shape: tuple[int, ...]
) -> None:
    weights = {"Conv0.w": noise(8, 2, 4, 4), f"{op}2.w": noise(*shape)}
    kinds = types(halve(small([("Conv", {}), ("Flatten", {}), (op, attributes)], weights, [1, 3])))
    assert kinds["y_half"] == TensorProto.FLOAT16


def test_halve_takes_weights_that_two_nodes_share() -> None:
    g = Graph(0)
    shared = g.constant(noise(1, 3, 1, 1))
    x = g.conv(g.op("Mul", "images", shared), 3, 4, kernel=1)
    g.op("Mul", g.op("Slice", x, *(g.constant(np.array([v], np.int64)) for v in (0, 3, 1))), shared, name="y")
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 4])
    body = helper.make_graph(g.nodes, "shared", [image], [output], g.constants)
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    np.testing.assert_allclose(run(halve(graph), noise(1, 3, 4, 4))[0], run(graph, noise(1, 3, 4, 4))[0], atol=2e-2)


def test_halve_handles_constant_nodes_casts_and_a_head_without_a_tail() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array(2.0, np.float32))),
        helper.make_node("Mul", ["images", "two"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 2, 4, 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 4, 4])
    weights = [numpy_helper.from_array(noise(3, 2, 1, 1), "w")]
    body = helper.make_graph(nodes, "g", [image], [output], weights)
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    pixels = noise(2, 2, 4, 4)
    got = run(halve(graph), pixels)[0]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, run(graph, pixels)[0], atol=2e-2)


def test_halve_of_a_weight_beyond_float16_names_it() -> None:
    graph = small(
        [("Mul", {}), ("Conv", {})],
        {"Mul0.w": np.full((1,), 1e6, np.float32), "Conv1.w": noise(3, 2, 1, 1)},
        [1, 3, 4, 4],
    )
    with pytest.raises(BuildError, match=r"'Mul0\.w' holds 1e\+06; float16 ends at 65504"):
        halve(graph)


def test_halve_of_a_graph_without_convolutions_is_refused() -> None:
    with pytest.raises(BuildError, match="nothing to make float16"):
        halve(small([("Relu", {})], {}, [1, 2, 4, 4]))


def test_build_refuses_a_graph_that_float16_breaks() -> None:
    # 300 * 300 is beyond float16, though every constant fits.
    model = onnx.load_from_string(detector())
    body, scaled = list(model.graph.node), ["images", "s0", "s1", "s2", "s3"]
    scale = [
        helper.make_node("Mul", [scaled[index], factor], [scaled[index + 1]])
        for index, factor in enumerate(("large", "large", "small", "small"))
    ]
    body[0].input[0] = scaled[-1]
    del model.graph.node[:]
    model.graph.node.extend([*scale, *body])
    for name, value in (("large", 300.0), ("small", 1 / 300.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    bundle = bundles.portable().replace(add={"graph.onnx": model.SerializeToString()})
    with pytest.raises(BuildError, match="in float16 the output"):
        load_target("tensorrt").build(bundle, "fp16", lambda _: None)


@needs_rtx
def test_ahead_of_time_check_is_in_the_manifest() -> None:
    artifact = bundles.built("tensorrt", "fp16").artifact
    proof = artifact.options["ahead_of_time"]
    assert proof["chip"] == "SM86"
    assert proof["layers"] > 50
    assert proof["engine_bytes"] > 10_000
    assert artifact.options["strongly_typed"] is True
    assert artifact.tools["tensorrt-rtx"].startswith("1.")


@needs_rtx
def test_graph_that_does_not_parse_gives_the_parsers_words() -> None:
    graph = small([("Conv", {}), ("NonZero", {}), ("Cast", {"to": 1})], {"Conv0.w": noise(3, 2, 1, 1)}, [4, None])
    with pytest.raises(BuildError, match=r"parser refused the graph:\s+node \d+: .*NonZero"):
        _ahead.check(graph, "images", (2, 4, 4))


def test_build_without_tensorrt_rtx_says_that_no_parser_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.targets.tensorrt import _build

    monkeypatch.setattr(_build, "available", lambda: False)
    lines: list[str] = []
    built = load_target("tensorrt").build(bundles.portable(), "fp32", lines.append)
    assert "ahead_of_time" not in built.options
    assert any("pip install 'edgekd[tensorrt]'" in line for line in lines)


def test_fp32_file_is_the_portable_graph() -> None:
    build = bundles.built("tensorrt", "fp32")
    assert bytes(build.bundle.file(build.artifact, "model.onnx")) == build.bundle.graph()


def test_probe_when_there_is_no_driver_then_it_names_the_library_and_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = load_target("tensorrt")

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    reason = target.probe()
    assert reason is not None
    assert reason.startswith("no NVIDIA driver found (libcuda.so.1: cannot open shared object file): ")
    for typed in ("--runtime nvidia", "sudo apt-get install nvidia-l4t-cuda", "sudo ubuntu-drivers install"):
        assert typed in reason
