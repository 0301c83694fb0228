"""The translator from ONNX to PyTorch: every operator against ONNX Runtime, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edgekd.targets.tflite._convert import translate
from edgekd.targets.tflite._static import fix_batch
from edgekd.targets.tflite._torch_from_onnx import TranslatedGraph
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BuildError
from edgekd.quantization.operators import SUPPORTED

from ..conformance.detectors import detector

IMAGE = (1, 4, 6, 8)


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def floats(*shape: int, seed: int = 1, positive: bool = False) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return np.abs(values) + np.float32(0.1) if positive else values


def scalar(value: float) -> np.ndarray[Any, Any]:
    return np.array(value, np.float32)


@dataclass
class Case:
    """One node: its operator, its constant inputs after the image (None: omitted), and its attributes."""

    op: str
    constants: list[Any] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = IMAGE
    positive: bool = False
    opset: int = 17
    outputs: int = 1

    def model(self) -> onnx.ModelProto:
        names, initializers = ["images"], []
        for index, value in enumerate(self.constants):
            names.append("" if value is None else f"c{index}")
            if value is not None:
                initializers.append(numpy_helper.from_array(value, f"c{index}"))
        outputs = [f"y{index}" for index in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, **self.attributes)
        kinds = [TensorProto.FLOAT] * self.outputs
        nodes = [node]
        if self.op == "Cast":
            kinds = [self.attributes["to"]]
        if self.op in ("Greater", "Less"):
            kinds = [TensorProto.BOOL]
        if self.op == "Where":  # its first input is a condition
            nodes.insert(0, helper.make_node("Cast", ["images"], ["condition"], to=TensorProto.BOOL))
            node.input[0] = "condition"
        graph = helper.make_graph(
            nodes,
            "one",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *self.shape[1:]])],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)],
            initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)


def factors(height: float, width: float) -> np.ndarray[Any, Any]:
    return np.array([1, 1, height, width], np.float32)


asymmetric = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
aligned = {"coordinate_transformation_mode": "align_corners"}


def conv(**attributes: Any) -> dict[str, Any]:
    return {"kernel_shape": [3, 3], **attributes}


CASES = [
    Case("Abs"),
    Case("Add", [floats(1, 4, 1, 1)]),
    Case("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("BatchNormalization", [floats(4), floats(4, seed=2), floats(4, seed=3), floats(4, positive=True)]),
    Case("Cast", [], {"to": TensorProto.INT32}),
    Case("Cast", [], {"to": TensorProto.FLOAT}),
    Case("Clip", [scalar(-0.5), scalar(0.5)]),
    Case("Clip", [None, scalar(0.1)]),
    Case("Clip"),
    Case("Concat", [floats(*IMAGE)], {"axis": 1}),
    Case("Conv", [floats(5, 4, 3, 3), floats(5)], conv(pads=[1, 1, 1, 1])),
    Case("Conv", [floats(5, 4, 3, 3)], conv(strides=[2, 2], pads=[0, 1, 1, 0])),
    Case("Conv", [floats(4, 1, 3, 3), floats(4)], conv(group=4, dilations=[2, 2], pads=[2, 2, 2, 2])),
    Case("Conv", [floats(5, 4, 3, 3)], conv(strides=[2, 2], auto_pad="SAME_UPPER")),
    Case("Conv", [floats(5, 4, 3, 3)], conv(strides=[2, 2], auto_pad="SAME_LOWER")),
    Case("Conv", [floats(5, 4, 3, 3)], conv(auto_pad="VALID")),
    Case("ConvTranspose", [floats(4, 5, 2, 2), floats(5)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("ConvTranspose", [floats(4, 5, 3, 3)], conv(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])),
    Case("DepthToSpace", [], {"blocksize": 2}),
    Case("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    Case("Cos"),
    Case("Div", [floats(1, 4, 1, 1, positive=True)]),
    Case("Dropout"),
    Case("Erf"),
    Case("Exp"),
    Case("Expand", [ints(3, 1, 4, 1, 1)]),
    Case("Flatten"),
    Case("Flatten", [], {"axis": 2}),
    Case("Gather", [ints(2, 0, -1)], {"axis": 1}),
    Case("Gather", [np.array(1, np.int64)], {"axis": 3}),
    Case("Gelu", [], {}, opset=20),
    Case("Gelu", [], {"approximate": "tanh"}, opset=20),
    Case("Gemm", [floats(8, 5), floats(5)], {"alpha": 0.5, "beta": 2.0}, shape=(1, 8)),
    Case("Gemm", [floats(5, 8)], {"transB": 1}, shape=(1, 8)),
    Case("Floor"),
    Case("GlobalAveragePool"),
    Case("GlobalMaxPool"),
    Case("Greater", [scalar(0.1)]),
    Case("HardSigmoid"),
    Case("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5}),
    Case("HardSwish"),
    Case("Identity"),
    Case("LayerNormalization", [floats(8), floats(8, seed=2)], {"axis": -1}),
    Case("LeakyRelu", [], {"alpha": 0.2}),
    Case("Less", [floats(1, 4, 1, 1)]),
    Case("Log", positive=True),
    Case("MatMul", [floats(8, 5)]),
    Case("Max", [floats(1, 4, 1, 1), floats(1, 1, 6, 8, seed=3)]),
    Case("MaxPool", [], {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
    Case("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("MaxPool", [], {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}),
    Case("Min", [floats(1, 4, 1, 1)]),
    Case("Mish", opset=18),
    Case("Mul", [floats(1, 4, 1, 1)]),
    Case("Neg"),
    Case("PRelu", [floats(4, 1, 1)]),
    Case("Pad", [ints(0, 0, 1, 2, 0, 0, 3, 4)]),
    Case("Pad", [ints(0, 1, 1, 2, 0, 1, 3, 4), scalar(0.7)]),
    Case("Pad", [ints(0, 0, 1, 2, 0, 0, 3, 4)], {"mode": "reflect"}),
    Case("Pad", [ints(0, 0, 1, 2, 0, 0, 3, 4)], {"mode": "edge"}),
    Case("Pad", [ints(1, 2, 3, 4), None, ints(2, -1)], opset=18),
    Case("Pow", [scalar(2.0)]),
    Case("Reciprocal", positive=True),
    Case("ReduceMax", [], {"axes": [1], "keepdims": 0}),
    Case("ReduceMean", [], {"axes": [2, 3]}),
    Case("ReduceMean", [ints(-1)], {"keepdims": 0}, opset=18),
    Case("ReduceMin", [], {"axes": [-1]}),
    Case("ReduceSum", [ints(1, 2)]),
    Case("ReduceSum"),
    Case("ReduceSum", [], {"axes": [1]}, opset=11),
    Case("Relu"),
    Case("Reshape", [ints(0, 2, -1, 8)]),
    Case("Resize", [None, factors(2, 2)], asymmetric),
    Case("Resize", [None, factors(2, 3)], {"nearest_mode": "round_prefer_floor"}),
    Case("Resize", [None, factors(1.5, 0.5)], asymmetric),
    Case("Resize", [None, None, ints(1, 4, 9, 20)], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}),
    Case("Resize", [None, None, ints(1, 4, 12, 16)], {"mode": "linear", **aligned}),
    Case("Sigmoid"),
    Case("Sin"),
    Case("Slice", [ints(0, 1), ints(4, 2**62), ints(1, 2), ints(2, 1)]),
    Case("Slice", [ints(-3), ints(-1), ints(-1)]),
    Case("Softmax", [], {"axis": 1}),
    Case("Softplus"),
    Case("SpaceToDepth", [], {"blocksize": 2}),
    Case("Split", [ints(1, 3)], {"axis": 1}, outputs=2),
    Case("Split", [], {"axis": 3}, outputs=2),
    Case("Split", [], {"axis": 1, "split": [1, 3]}, outputs=2, opset=11),
    Case("Sqrt", positive=True),
    Case("Squeeze", [ints(0)]),
    Case("Squeeze", shape=(1, 4, 1, 8)),
    Case("Squeeze", [], {"axes": [0]}, opset=11),
    Case("Sub", [floats(1, 4, 1, 1)]),
    Case("Tanh"),
    Case("Where", [floats(1, 4, 1, 1), scalar(0.0)]),
    Case("Transpose", [], {"perm": [0, 2, 3, 1]}),
    Case("Transpose"),
    Case("Unsqueeze", [ints(1, -1)]),
    Case("Unsqueeze", [], {"axes": [0, 2]}, opset=11),
]  # fmt: skip


def check(model: onnx.ModelProto, images: np.ndarray[Any, Any], tolerance: float = 1e-5) -> None:
    """Compare with ONNX Runtime, relative to the largest output, as the build does."""
    names = [item.name for item in model.graph.output]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = session.run(names, {session.get_inputs()[0].name: images})
    with torch.no_grad():
        got = TranslatedGraph(model, names)(torch.from_numpy(images))
    for name, wanted in zip(names, expected, strict=True):
        assert tuple(got[name].shape) == wanted.shape
        assert got[name].numpy().dtype == wanted.dtype
        largest = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(got[name].numpy(), wanted, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", CASES, ids=[f"{item.op}-{index}" for index, item in enumerate(CASES)])
def test_operator_computes_what_onnx_runtime_does(case: Case) -> None:
    check(case.model(), floats(*case.shape, seed=7, positive=case.positive))


def test_every_supported_operator_has_a_case() -> None:
    assert {case.op for case in CASES} == set(SUPPORTED)


def test_everything_the_exporter_may_write_can_be_translated() -> None:
    from edgekd.training.export import OPERATORS

    assert set(SUPPORTED) >= OPERATORS


def test_detector_computes_what_onnx_runtime_does() -> None:
    check(onnx.load_from_string(detector()), floats(1, 3, 64, 96, seed=2), tolerance=1e-4)


def test_oriented_detector_computes_what_onnx_runtime_does() -> None:
    _, (images,) = translate(detector(oriented=True), {"boxes": "xywhr", "scores": None})
    assert images.shape == (1, 3, 64, 96)


def test_unknown_operators_are_all_named_with_those_that_are_known() -> None:
    model = Case("Tan").model()
    model.graph.node.append(helper.make_node("NonZero", ["images"], ["n"]))
    with pytest.raises(BuildError, match="NonZero, Tan; possible: Abs, Add"):
        TranslatedGraph(model, ["y0"])


REFUSED = [
    (Case("Resize", [None, factors(2, 2)], {"mode": "cubic"}), "cubic"),
    (Case("Resize", [None, factors(1.5, 1.5)]), "fraction"),
    (Case("Slice", [ints(3), ints(0), ints(1), ints(-1)]), "step -1"),
    (Case("Gather", [np.array([[0, 1], [1, 2]], np.int64)], {"axis": 1}), "2-dimensional"),
    (Case("Pad", [ints(0, 1, 0, 0, 0, 1, 0, 0)], {"mode": "edge"}), "channels"),
    (Case("ConvTranspose", [floats(4, 5, 3, 3)], conv(auto_pad="SAME_UPPER")), "explicit pads"),
    (Case("ConvTranspose", [floats(4, 5, 3, 3)], conv(pads=[0, 1, 1, 0])), "symmetric"),
    (Case("AveragePool", [], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}), "symmetric"),
    (Case("Cast", [], {"to": TensorProto.DOUBLE}), "float32"),
    (Case("Conv", [floats(5, 4, 3)], {"kernel_shape": [3]}, shape=(1, 4, 8)), "images"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "said"), REFUSED, ids=[f"{item[0].op}-{item[1]}" for item in REFUSED])
def test_use_that_cannot_be_translated_says_why(case: Case, said: str) -> None:
    with pytest.raises(BuildError, match=said), torch.no_grad():
        TranslatedGraph(case.model(), ["y0"])(torch.zeros(case.shape))


def test_shape_that_depends_on_the_image_is_refused() -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["images", "whole"], ["y0"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [4])
    output = helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [output]), opset_imports=[helper.make_opsetid("", 17)]
    )
    with pytest.raises(BuildError, match="depends on the image's values"):
        TranslatedGraph(model, ["y0"])


def _shape_arithmetic() -> onnx.ModelProto:
    """images -> reshape to (batch, C, H * W), the way exporters write it: Shape, Gather, Concat."""
    nodes = [
        helper.make_node("Shape", ["images"], ["all"]),
        helper.make_node("Shape", ["images"], ["spatial"], start=2),
        helper.make_node("Slice", ["all", "zero", "two"], ["kept"]),
        helper.make_node("ReduceProd", ["spatial"], ["area"], keepdims=1),
        helper.make_node("Concat", ["kept", "area"], ["shape"], axis=0),
        helper.make_node("Reshape", ["images", "shape"], ["flat"]),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(scalar(0.5))),
        helper.make_node("Mul", ["flat", "half"], ["y0"]),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 6, 8])
    output = helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(ints(0), "zero"), numpy_helper.from_array(ints(2), "two")]
    graph = helper.make_graph(nodes, "g", [image], [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_shape_arithmetic_is_folded_away() -> None:
    model = _shape_arithmetic()
    assert [node.op_type for node in fix_batch(model).graph.node] == ["Reshape", "Mul"]
    check(model, floats(*IMAGE))


def test_dynamic_height_is_refused() -> None:
    model = _shape_arithmetic()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(BuildError, match="dynamic height or width"):
        TranslatedGraph(model, ["y0"])


def test_old_opset_is_refused() -> None:
    with pytest.raises(BuildError, match="opset 9; from 11"):
        TranslatedGraph(Case("Relu", opset=9).model(), ["y0"])


def test_translation_leaves_the_graph_alone() -> None:
    model = _shape_arithmetic()
    before = model.SerializeToString(deterministic=True)
    TranslatedGraph(model, ["y0"])
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.data
@pytest.mark.parametrize("name", ["yolox_nano_416_coco.onnx", "nanodet_m_416_coco.onnx"])
def test_published_detector_computes_what_onnx_runtime_does(name: str) -> None:
    import os

    folder = Path(os.environ.get("EDGEKD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    path = folder / "weights" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    check(onnx.load(path), floats(1, 3, 416, 416), tolerance=1e-3)  # both are 2e-4 away from float64
