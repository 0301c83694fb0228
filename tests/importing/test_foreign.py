"""What graphs are taken, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import edgekd
from edgekd._bundle import Bundle
from edgekd.errors import UsageError

from .conftest import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Network

ROWS = np.random.default_rng(3).uniform(0.1, 0.4, (1, 84, 8)).astype(np.float32)


def imported(path: Path, photo: Path, tmp_path: Path, **options: Any) -> Bundle:
    edgekd.import_model(path, tmp_path / "model.bin", head="yolox", classes=NAMES, images=photo, **options)
    return Bundle.read(tmp_path / "model.bin")


def run(graph: bytes, images: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize(
    "shape", [(1, 3, 64, 64), (1, 64, 64, 3), ("n", 3, 64, 64), (1, 3, "h", "w"), (1, "h", "w", 3)]
)
def test_inputs_of_every_layout_become_one(
    shape: tuple[Any, ...], kind: int, network: Network, photo: Path, tmp_path: Path
) -> None:
    size = 64 if "h" in shape else None
    bundle = imported(network({"out": ROWS}, shape=shape, kind=kind), photo, tmp_path, size=size)
    model = onnx.load_from_string(bundle.graph())
    (image,) = model.graph.input
    assert image.name == "images"
    assert [side.dim_value for side in image.type.tensor_type.shape.dim][1:] == [3, 64, 64]
    assert image.type.tensor_type.elem_type == TensorProto.FLOAT
    boxes, scores = run(bundle.graph(), np.zeros((1, 3, 64, 64), np.float32))
    assert (boxes.shape, boxes.dtype, scores.dtype) == ((1, 84, 4), np.float32, np.float32)
    np.testing.assert_allclose(
        scores, ROWS[..., 4:5] * ROWS[..., 5:], rtol=2e-3 if kind == TensorProto.FLOAT16 else 1e-6
    )


def test_channels_stay_channels(tmp_path: Path, photo: Path) -> None:
    """A network that looks at its first channel alone sees the first of the manifest's order, in both layouts."""
    found = []
    for shape, index in (([1, 3, 64, 64], 1), ([1, 64, 64, 3], 3)):
        nodes = [
            helper.make_node("Gather", ["x", "zero"], ["channel"], axis=index),
            helper.make_node("ReduceMax", ["channel"], ["peak"], keepdims=0),
            helper.make_node("Mul", ["rows", "peak"], ["out"]),
        ]
        constants = [
            onnx.numpy_helper.from_array(np.array(0), "zero"),
            onnx.numpy_helper.from_array(ROWS, "rows"),
        ]
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 84, 8])
        graph = helper.make_graph(nodes, "g", [image], [out], constants)
        path = tmp_path / "x.onnx"
        path.write_bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        )
        bundle = imported(path, photo, tmp_path, std=(255, 255, 255))
        pixels = np.zeros((1, 3, 64, 64), np.float32)
        pixels[0, 0, 5, 7], pixels[0, 1] = 0.5, 1.0
        found.append(run(bundle.graph(), pixels))
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(found[0][1][0], (0.5 * ROWS[0, :, 4:5]) * (0.5 * ROWS[0, :, 5:]), rtol=1e-6)


@pytest.mark.parametrize("opset", [11, 13, 17, 19])
def test_opsets(opset: int, network: Network, photo: Path, tmp_path: Path) -> None:
    bundle = imported(network({"out": ROWS}, opset=opset), photo, tmp_path)
    model = onnx.load_from_string(bundle.graph())
    assert model.opset_import[0].version == max(17, opset)


def batch_of(bundle: Bundle) -> int | str:
    dim = onnx.load_from_string(bundle.graph()).graph.input[0].type.tensor_type.shape.dim[0]
    return dim.dim_param or dim.dim_value


def reshaped(*shape: int, repeat: bool = False) -> tuple[onnx.NodeProto, ...]:
    """Return nodes from "raw" `(1, 84, 8)` over a Reshape to "out"; `repeat`: with a constant joined on."""
    target = helper.make_node("Constant", [], ["shape"], value=onnx.numpy_helper.from_array(np.array(shape)))
    if not repeat:
        return target, helper.make_node("Reshape", ["raw", "shape"], ["out"])
    joined = onnx.numpy_helper.from_array(np.zeros((1, 84, 1), np.float32))
    return (
        target,
        helper.make_node("Reshape", ["raw", "shape"], ["part"]),
        helper.make_node("Constant", [], ["extra"], value=joined),
        helper.make_node("Concat", ["part", "extra"], ["out"], axis=2),
    )


def test_a_graph_for_one_image_is_opened_where_nothing_changes(network: Network, photo: Path, tmp_path: Path) -> None:
    model = onnx.load(network({"raw": ROWS.reshape(1, 8, 84)}, weight=1e-3))
    model.graph.node.extend(reshaped(1, 84, -1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 84, 8]))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    bundle = imported(tmp_path / "net.onnx", photo, tmp_path)
    assert batch_of(bundle) == "batch"
    pixels = np.random.default_rng(0).random((3, 3, 64, 64), np.float32)
    together = run(bundle.graph(), pixels)
    for index in range(3):
        for got, alone in zip(together, run(bundle.graph(), pixels[index : index + 1]), strict=True):
            np.testing.assert_allclose(got[index], alone[0], rtol=1e-6)


def test_a_graph_that_stays_for_one_image_takes_a_list(network: Network, photo: Path, tmp_path: Path) -> None:
    model = onnx.load(network({"raw": ROWS[:, :, :7].reshape(1, 7, 84)}, weight=1e-3))
    model.graph.node.extend(reshaped(1, 84, 7, repeat=True))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 84, 8]))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    bundle = imported(tmp_path / "net.onnx", photo, tmp_path)
    assert batch_of(bundle) == 1
    bundle.close()
    with edgekd.load(tmp_path / "model.bin", device="reference") as detector:
        dark, bright = (np.full((64, 64, 3), value, np.uint8) for value in (0, 255))
        together = detector.predict([dark, bright, dark], conf=0.0)
        alone = [detector.predict(image, conf=0.0) for image in (dark, bright, dark)]
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first.boxes, second.boxes)
        np.testing.assert_array_equal(first.scores, second.scores)
    assert together[0].scores[0] < together[1].scores[0]


def test_the_same_file_gives_the_same_graph(network: Network, photo: Path, tmp_path: Path) -> None:
    graphs = [imported(network({"out": ROWS}), photo, tmp_path).graph() for _ in range(2)]
    assert graphs[0] == graphs[1]


NMS = helper.make_node("NonMaxSuppression", ["b", "s"], ["kept"])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"shape": (1, 3, 64, 64), "extra": (NMS,)}, {}, r"suppresses boxes by itself \(NonMaxSuppression\)"),
        ({"shape": (1, 4, 64, 64)}, {}, r"no \(1, 3, H, W\)"),
        ({"shape": (2, 3, 64, 64)}, {}, r"input \[2, 3, 64, 64\] of .* is no \(1, 3, H, W\)"),
        ({"shape": (1, 3, "h", "w")}, {}, "takes images of any size; say which .* --size 640 or 480x640"),
        ({}, {"size": 96}, "takes images of height 64, asked for 96; leave --size out"),
        ({}, {"size": (64, 32)}, "takes images of width 64, asked for 32"),
        ({}, {"mean": (1.0, 2.0)}, "mean should be three numbers"),
        ({"weight": 0.1}, {}, "scores run from .* no probabilities: another head"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: dict[str, Any], options: dict[str, Any], message: str, network: Network, photo: Path, tmp_path: Path
) -> None:
    inputs = {"b": np.zeros((1, 9, 4)), "s": np.zeros((1, 3, 9))} if "extra" in given else {"out": ROWS}
    path = network(inputs, **given)
    with pytest.raises(UsageError, match=message):
        imported(path, photo, tmp_path, **options)
    assert not (tmp_path / "model.bin").exists()


def test_an_output_without_a_batch_is_refused(network: Network, photo: Path, tmp_path: Path) -> None:
    model = onnx.load(network({"out": ROWS}))
    model.graph.node.append(helper.make_node("ReduceSum", ["out"], ["count"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("count", TensorProto.FLOAT, []))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=r"output count of .* has the shape \[\]"):
        imported(tmp_path / "net.onnx", photo, tmp_path)


@pytest.mark.parametrize("size", [0, -1, 16385, 99999, (64, 99999), (64,), (64, 64.0)])
def test_sizes_that_no_input_has_are_refused(size: Any, network: Network, photo: Path, tmp_path: Path) -> None:
    path = network({"out": ROWS}, shape=(1, 3, "h", "w"))
    with pytest.raises(UsageError, match=r"size should be one side or .* each 1 to 16384 pixels, got "):
        imported(path, photo, tmp_path, size=size)


@pytest.mark.parametrize("content", [b"", b"\x08\x07", b"no onnx at all", b"PK\x03\x04"])
def test_files_that_are_no_onnx_are_refused(content: bytes, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"net\.onnx is not a sound ONNX model"):
        imported(path, photo, tmp_path)


def test_missing_files_are_named(photo: Path, tmp_path: Path, network: Network) -> None:
    with pytest.raises(UsageError, match=r"no file at .*absent\.onnx"):
        imported(tmp_path / "absent.onnx", photo, tmp_path)
    with pytest.raises(UsageError, match="cannot read class names"):
        edgekd.import_model(
            network({"out": ROWS}), tmp_path / "m.bin", head="yolox", classes=tmp_path / "x.txt", images=photo
        )


def test_classes_images_and_heads_are_checked(network: Network, photo: Path, tmp_path: Path) -> None:
    path = network({"out": ROWS})
    good: dict[str, Any] = {"head": "yolox", "classes": NAMES, "images": photo}
    for wrong, message in (
        ({"classes": ()}, "at least one, got 0"),
        ({"classes": ("a", "a", "b")}, "should be different"),
        ({"classes": ("a", "b")}, r"wants one output of shape \(84, 7\); found out \(84, 8\)"),
        ({"head": "yolov99"}, "no head 'yolov99'; possible: nanodet, rtdetr"),
        ({"images": []}, "no image was named"),
        ({"images": tmp_path / "absent.png"}, "no image at"),
    ):
        with pytest.raises(UsageError, match=message):
            edgekd.import_model(path, tmp_path / "model.bin", **{**good, **wrong})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image in"):
        edgekd.import_model(path, tmp_path / "model.bin", **{**good, "images": tmp_path / "empty"})


@pytest.mark.parametrize("name", ["net.onnx", "weights.data", "names.txt", "photo.png", "later.png", "net.toml"])
def test_a_bundle_is_not_written_over_what_it_is_made_of(
    name: str, network: Network, photo: Path, tmp_path: Path
) -> None:
    model = onnx.load(network({"out": ROWS}))
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (tmp_path / "later.png").write_bytes(photo.read_bytes())
    pictures = [*["photo.png"] * 4, "later.png"]  # the last is not of the golden set, and still the user's
    (tmp_path / "net.toml").write_text(f'head = "yolox"\nclasses = "names.txt"\nimages = {pictures}\n')
    other = tmp_path / "other.bin"
    other.symlink_to(name)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for out in (tmp_path / name, other):
        with pytest.raises(UsageError, match=rf"{out.name} is a file that the import reads; give the bundle another"):
            edgekd.import_model(path, out, sidecar=tmp_path / "net.toml")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    edgekd.import_model(path, tmp_path / "model.bin", sidecar=tmp_path / "net.toml")
    edgekd.import_model(path, tmp_path / "model.bin", sidecar=tmp_path / "net.toml")  # an earlier bundle may go
