"""Files of a target's own format: what is taken, what the bundle then is, and what is said of the others."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgekd
from edgekd._bundle import Bundle
from edgekd._golden import golden_outputs
from edgekd._target import load_target
from edgekd.cli.main import main
from edgekd.errors import BundleError, GateError, TargetUnavailableError, UsageError

from .conftest import NAMES
from .litert_models import ROW, Writer, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Network

openvino = pytest.importorskip("openvino")

SHAPE = (1, 3, 64, 96)
ROWS = np.random.default_rng(3).uniform(0.1, 0.4, (1, 126, 8)).astype(np.float32)
CELLS = [(x, y, stride) for stride in (8, 16, 32) for y in range(64 // stride) for x in range(96 // stride)]


def as_ir(model: Path, folder: Path, *, half: bool = False) -> Path:
    """Convert an ONNX file to `net.xml` and `net.bin`."""
    path = folder / "net.xml"
    openvino.save_model(openvino.Core().read_model(model), path, compress_to_fp16=half)
    return path


def imported(path: Path, photo: Path, tmp_path: Path, **options: Any) -> Path:
    out = tmp_path / "model.bin"
    edgekd.import_model(path, out, **{"head": "yolox", "classes": NAMES, "images": photo, **options})
    return out


def light_of(bundle: Bundle) -> float:
    """Return the mean of the first channel of a row of the golden image, as the network sees it."""
    from edgekd._golden import golden_pixels

    return float(golden_pixels(bundle, bundle.manifest.golden[0])[0, 0, ROW].mean())


def first_channel(folder: Path, shape: tuple[int, ...], weight: float) -> Path:
    """Write an ONNX file whose output is ROWS plus `weight` times the mean of the first channel of a row."""
    channel = shape.index(3)
    nodes = [
        helper.make_node("Gather", ["x", "zero"], ["first"], axis=channel),  # (1, H, W)
        helper.make_node("Gather", ["first", "row"], ["line"], axis=1),
        helper.make_node("ReduceMean", ["line"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "weight"], ["light"]),
        helper.make_node("Add", ["rows", "light"], ["out"]),
    ]
    held = {"zero": np.array(0), "row": np.array(ROW), "weight": np.float32(weight), "rows": ROWS}
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 126, 8])
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "g", [image], [out], constants)
    path = folder / "net.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def assert_decoded(path: Path, target: str, rows: Callable[[Bundle], np.ndarray]) -> None:
    """Check golden outputs and those of the artifact against YOLOX's definition."""
    with Bundle.read(path) as bundle:
        (artifact,) = bundle.manifest.artifacts
        assert (artifact.target, bundle.manifest.graph) == (target, None)
        raw = rows(bundle)[0]
        centre = np.array([[(x + row[0]) * s, (y + row[1]) * s] for row, (x, y, s) in zip(raw, CELLS, strict=True)])
        half = np.array([np.exp(row[2:4]) * s / 2 for row, (_, _, s) in zip(raw, CELLS, strict=True)])
        boxes, scores = golden_outputs(bundle, bundle.manifest.golden[0])
        np.testing.assert_allclose(boxes[0], np.concatenate([centre - half, centre + half], axis=1), atol=2e-3)
        np.testing.assert_allclose(scores[0], raw[:, 4:5] * raw[:, 5:], atol=2e-4)
    report = edgekd.verify(path)
    assert [item.status for item in report.artifacts] == ["passed"]


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (1, 64, 96, 3)])
def test_ir_of_both_layouts_sees_the_first_channel(shape: tuple[int, ...], photo: Path, tmp_path: Path) -> None:
    model = as_ir(first_channel(tmp_path, shape, 1e-3), tmp_path)
    out = imported(model, photo, tmp_path, color="rgb", mean=(10, 20, 30))
    assert_decoded(out, "openvino", lambda bundle: ROWS + 1e-3 * light_of(bundle))
    with edgekd.load(out) as detector:
        assert detector.info.session.target == "openvino"
        assert len(detector.predict([photo, photo], conf=0.01)) == 2


@pytest.mark.parametrize(
    ("shape", "kind", "half"),
    [
        (("n", 3, 64, 96), TensorProto.FLOAT, False),
        ((1, 3, "h", "w"), TensorProto.FLOAT, True),
        ((1, 64, 96, 3), TensorProto.FLOAT16, False),
    ],
)
def test_ir_of_open_sizes_and_half_precision(
    shape: tuple[Any, ...], kind: int, half: bool, network: Network, photo: Path, tmp_path: Path
) -> None:
    model = as_ir(network({"out": ROWS}, shape=shape, kind=kind), tmp_path, half=half)
    narrow = half or kind == TensorProto.FLOAT16
    out = imported(model, photo, tmp_path, size=(64, 96))
    assert_decoded(out, "openvino", lambda _: ROWS.astype(np.float16).astype(np.float32) if narrow else ROWS)
    with Bundle.read(out) as bundle:
        assert bundle.manifest.artifacts[0].precision == ("fp16" if narrow else "fp32")


def test_ir_finds_what_the_onnx_file_finds(network: Network, photo: Path, tmp_path: Path) -> None:
    """Every head decodes as in the portable graph: names of tensors that meet do no harm."""
    outputs = {"boxes": np.random.default_rng(1).uniform(4, 60, (1, 20, 4)), "scores": ROWS[:, :20, :3]}
    head = edgekd.GenericHead(boxes="boxes", scores="scores", layout="cxcywh")
    found = []
    for path in (network(outputs, shape=SHAPE), as_ir(network(outputs, shape=SHAPE), tmp_path)):
        with edgekd.load(imported(path, photo, tmp_path, head=head)) as detector:
            found.append(detector.predict(photo, conf=0.05))
    assert len(found[0]) == len(found[1]) > 0
    np.testing.assert_allclose(found[0].boxes, found[1].boxes, atol=1e-3)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (1, 64, 96, 3)])
def test_tflite_of_both_layouts_sees_the_first_channel(shape: tuple[int, ...], photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    path = tmp_path / "net.tflite"
    path.write_bytes(written({"out": ROWS}, shape, weight=1e-3))
    out = imported(path, photo, tmp_path, color="rgb", mean=(10, 20, 30))
    assert_decoded(out, "tflite", lambda bundle: ROWS + 1e-3 * light_of(bundle))
    with edgekd.load(out) as detector:
        assert detector.info.session.target == "tflite"
        assert len(detector.predict([photo, photo], conf=0.01)) == 2


@pytest.fixture
def bare(network: Network, photo: Path, tmp_path: Path) -> Path:
    """A bundle without a portable graph."""
    return imported(as_ir(network({"out": ROWS}, shape=SHAPE), tmp_path), photo, tmp_path)


def test_bundle_without_a_graph_says_what_it_cannot(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = r"has no portable graph to build from: .* holds openvino fp32 alone\. .*edgekd import model\.onnx"
    for targets, precisions in ((["tflite"], ["fp32"]), ("all", ["fp32"]), (["openvino"], ["int8"])):
        with pytest.raises(BundleError, match=why):
            edgekd.build(bare, targets=targets, precisions=precisions)
    for options in ({"device": "reference"}, {"device": "tflite"}, {"precision": "fp16"}):
        with pytest.raises(UsageError, match=why):
            edgekd.load(bare, **options)
    with pytest.raises(UsageError, match=why):
        edgekd.verify(bare, ["reference"])
    with pytest.raises(UsageError, match=why):
        edgekd.selftest(bare, target="tflite")
    with Bundle.read(bare) as bundle, pytest.raises(BundleError, match=why):
        bundle.graph()
    assert main(["inspect", str(bare)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"portable +- +- +none: imported", shown)
    assert "golden: what the file gave on OpenVINO" in shown
    assert "net.bin: " in shown


def test_import_says_where_the_bundle_runs(
    network: Network, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar = tmp_path / "net.toml"
    sidecar.write_text(f'head = "yolox"\nclasses = {list(NAMES)}\nimages = "{photo.name}"\n')
    model = as_ir(network({"out": ROWS}, shape=SHAPE), tmp_path)
    assert main(["import", str(model), "--sidecar", str(sidecar), "-o", str(tmp_path / "model.bin")]) == 0
    assert "It runs on openvino fp32 alone: there is no portable graph" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "model.bin"), "--json", str(photo)]) == 0
    assert main(["import", str(model), "--sidecar", str(sidecar), "-o", str(tmp_path / "net.bin")]) == 2
    assert "net.bin is a file that the import reads; give the bundle another name" in capsys.readouterr().err


def test_network_that_changes_when_it_is_joined_is_refused(
    network: Network, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden set does not come from the joined network, so that a wrong join is seen."""
    from edgekd.targets.openvino._foreign import ForeignIR

    right = ForeignIR.join

    def wrong(self: ForeignIR, decoder: Any) -> Any:
        graph = onnx.load_from_string(decoder.graph)
        next(item for item in graph.graph.initializer if item.name == "one_half").CopyFrom(
            numpy_helper.from_array(np.array(0.4, np.float32), "one_half")
        )
        return right(self, dataclasses.replace(decoder, graph=graph.SerializeToString()))

    monkeypatch.setattr(ForeignIR, "join", wrong)
    with pytest.raises(GateError, match=r"joined with the decoding of its head, .* is another network: boxes differ"):
        imported(as_ir(network({"out": ROWS}, shape=SHAPE), tmp_path), photo, tmp_path)
    assert not (tmp_path / "model.bin").exists()


def suppressing(folder: Path) -> Path:
    """Write an IR that ends in suppression."""
    from openvino import opset9

    boxes = opset9.parameter([1, 3, 64, 96], np.float32, "x")
    rows = opset9.reshape(opset9.reduce_mean(boxes, np.array([1, 2, 3])), np.array([1, 1, 1]), special_zero=False)
    near = opset9.broadcast(rows, np.array([1, 9, 4]))
    scores = opset9.broadcast(rows, np.array([1, 3, 9]))
    kept = opset9.non_max_suppression(near, scores, np.array(5), np.array(0.5, np.float32))
    path = folder / "net.xml"
    openvino.save_model(openvino.Model([kept.output(1)], [boxes], "g"), path)
    return path


def quantized(folder: Path) -> Path:
    """Write an IR with FakeQuantize."""
    from openvino import opset13

    image = opset13.parameter([1, 3, 64, 96], np.float32, "x")
    limits = [np.float32(value) for value in (0, 255, 0, 255)]
    path = folder / "net.xml"
    openvino.save_model(openvino.Model([opset13.fake_quantize(image, *limits, 256)], [image], "g"), path)
    return path


IR: dict[str, tuple[Callable[[Path, Any], Path], dict[str, Any], str]] = {
    "channels": (
        lambda folder, net: as_ir(net({"out": ROWS}, shape=(1, 4, 64, 96)), folder), {},
        r"input input \[1, 4, 64, 96\] of .* is no \(1, 3, H, W\)",
    ),
    "size": (
        lambda folder, net: as_ir(net({"out": ROWS}, shape=SHAPE), folder), {"size": 96},
        "takes images of height 64, asked for 96",
    ),
    "any size": (
        lambda folder, net: as_ir(net({"out": ROWS}, shape=(1, 3, "h", "w")), folder), {}, "takes images of any size",
    ),
    "head": (
        lambda folder, net: as_ir(net({"out": ROWS}, shape=SHAPE), folder), {"head": "yolov8"},
        r"wants one output of shape \(7, 126\); found out \(126, 8\)",
    ),
    "scores": (
        lambda folder, net: as_ir(net({"out": ROWS + 2}, shape=SHAPE), folder), {},
        "scores run from .* no probabilities",
    ),
    "suppression": (lambda folder, _: suppressing(folder), {}, r"suppresses boxes by itself \(NonMaxSuppression\)"),
    "quantized": (lambda folder, _: quantized(folder), {}, r"is quantized \(FakeQuantize\): .*receipt"),
    "missing": (lambda folder, _: folder / "none.xml", {}, r"no file at .*none\.xml; an OpenVINO model is two files"),
}  # fmt: skip


@pytest.mark.parametrize("case", IR)
def test_ir_that_does_not_fit_is_refused(case: str, network: Network, photo: Path, tmp_path: Path) -> None:
    write, options, message = IR[case]
    with pytest.raises(UsageError, match=message):
        imported(write(tmp_path, network), photo, tmp_path, **options)
    assert not (tmp_path / "model.bin").exists()


def test_ir_without_weights_or_sense_is_refused(network: Network, photo: Path, tmp_path: Path) -> None:
    path = as_ir(network({"out": ROWS}, shape=SHAPE), tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(UsageError, match=r"no file at .*net\.bin"):
        imported(path, photo, tmp_path)
    path.with_suffix(".bin").write_bytes(b"")
    path.write_text("<net/>")
    with pytest.raises(UsageError, match=r"net\.xml is not a sound OpenVINO model"):
        imported(path, photo, tmp_path)


def int8(folder: Path) -> bytes:
    writer = Writer((1, 64, 96, 3)).outputs({"out": ROWS}, 0.0)
    writer.tensor("weights", (4,), np.zeros(4, np.int8), "INT8")
    return writer.data()


def with_suppression(folder: Path) -> bytes:
    writer = Writer((1, 64, 96, 3)).outputs({"out": ROWS}, 0.0)
    code = writer.schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = writer.schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"TFLite_Detection_PostProcess", 1
    writer.model.operatorCodes.append(code)
    return writer.data()


def of_any_size(folder: Path) -> bytes:
    writer = Writer((1, 64, 96, 3)).outputs({"out": ROWS}, 0.0)
    writer.main.tensors[0].shapeSignature = [-1, -1, -1, 3]
    return writer.data()


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (lambda _: written({"out": ROWS}, (1, 64, 96, 4)), {}, r"input image \[1, 64, 96, 4\] of .* is no"),
        (
            lambda _: written({"out": ROWS}, (1, 64, 96, 3)),
            {"size": (64, 32)},
            "takes images of width 96, asked for 32",
        ),
        (lambda _: written({"out": ROWS}, (1, 64, 96, 3)), {"head": "yolov5"}, r"found out \(126, 8\)"),
        (of_any_size, {}, "takes images of any size"),
        (int8, {}, r"is quantized \(INT8\): .*Import the float model"),
        (with_suppression, {}, r"suppresses boxes by itself \(TFLite_Detection_PostProcess\)"),
        (lambda _: b"\x18\x00\x00\x00TFL3 and no more", {}, "cannot start"),
        (lambda _: b"PK\x03\x04", {}, "is not a LiteRT model: it lacks the mark TFL3"),
    ],
)
def test_tflite_that_does_not_fit_is_refused(
    write: Callable[[Path], bytes], options: dict[str, Any], message: str, photo: Path, tmp_path: Path
) -> None:
    pytest.importorskip("litert_torch")
    path = tmp_path / "net.tflite"
    path.write_bytes(write(tmp_path))
    with pytest.raises(UsageError, match=message):
        imported(path, photo, tmp_path, **options)


def test_target_that_cannot_build_here_is_said(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_target("tflite"), "probe_build", lambda: "the converter lacks a screw")
    with pytest.raises(TargetUnavailableError, match=r"cannot import .*net\.tflite here: the converter lacks a screw"):
        imported(tmp_path / "net.tflite", photo, tmp_path)
