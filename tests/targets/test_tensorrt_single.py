"""One engine from pixels to detections: what `predict` finds, to the bit; refusals; the command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from edgekd.targets.tensorrt import _kernels, _nms_node
from edgekd.targets.tensorrt._jobs import workspace_bytes
from edgekd.targets.tensorrt._plugin import bits
from onnx import TensorProto, helper

import edgekd
from edgekd import geometry
from edgekd._bundle import Bundle
from edgekd.cli.main import main
from edgekd.errors import BuildError, MissingPackageError, TargetUnavailableError, UsageError

from ..conformance import bundles
from .tensorrt_fake import FakeTensorRT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .conftest import Board

NEWEST = "10.13.3"
PTX = b".visible .entry edgekd_suppress_block_xyxy( .visible .entry edgekd_suppress_block_xywhr("


@pytest.fixture
def thor(board: Board, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board whose TensorRT holds kernels; nvcc is not asked."""
    board.tensorrt = FakeTensorRT(NEWEST, capability=110)
    board.capability = 110
    monkeypatch.setattr(_kernels, "ptx", lambda capability: PTX if capability == 110 else b"")
    return board


def run(board: Board, engine: Path, pixels: NDArray[np.float32]) -> tuple[list[NDArray[Any]], list[str]]:
    """Return the outputs of an engine of the fake, and their names: the network on ONNX Runtime, then our kernel."""
    _, _, graph = engine.read_bytes().partition(b"\0")
    model = onnx.load_from_string(graph)
    (node,) = [item for item in model.graph.node if item.domain]
    names = [item.name for item in model.graph.output]
    model.graph.node.remove(node)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.input)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(None, {session.get_inputs()[0].name: pixels})
    return board.tensorrt.module.plugin.run(board.kernels, node, boxes, scores), names


def test_an_engine_gives_what_predict_finds(thor: Board, tmp_path: Path) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    report = edgekd.export_engine(path, tmp_path / "m.engine", conf=0.3, max_det=20, batch=4)
    images = _pictures(3)
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32))
    (counts, boxes, scores, labels, _), names = run(thor, tmp_path / "m.engine", pixels)
    assert names == list(report.outputs)
    assert [tuple(array.shape[1:]) for array in (counts, boxes, scores, labels)] == list(report.outputs.values())
    with edgekd.load(path, device="reference") as detector:
        for row, image in enumerate(images):
            found = detector.predict(image, color="rgb", conf=0.3, max_det=20)
            count = int(counts[row, 0])
            assert count == len(found) > 3
            np.testing.assert_array_equal(scores[row, :count], found.scores)
            np.testing.assert_array_equal(labels[row, :count], found.labels)
            inside = np.clip(boxes[row, :count], 0, [bundles.WIDTH, bundles.HEIGHT] * 2)  # `predict` cuts them
            np.testing.assert_allclose(inside, found.boxes, atol=1e-4)
            assert (labels[row, count:] == -1).all()
            assert not scores[row, count:].any()


def _pictures(count: int) -> NDArray[np.uint8]:
    """Pictures of the network's size, so that nothing is resized."""
    return np.random.default_rng(3).integers(0, 256, (count, bundles.HEIGHT, bundles.WIDTH, 3), np.uint8)


def test_rotated_boxes_are_suppressed_as_the_reference_does(thor: Board, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    bundles.built("tensorrt", "fp32", oriented=True).bundle.write(path)
    edgekd.export_engine(path, tmp_path / "m.engine", conf=0.2, iou=0.1, max_det=50)
    pixels = np.random.default_rng(1).random((1, 3, bundles.HEIGHT, bundles.WIDTH), np.float32) * 255
    (counts, boxes, scores, labels, _), _ = run(thor, tmp_path / "m.engine", pixels)
    with Bundle.read(path) as bundle:
        session = onnxruntime.InferenceSession(bytes(bundle.graph()), providers=["CPUExecutionProvider"])
        spec = bundle.manifest.input
    mean, std = (np.array(item, np.float32).reshape(1, 3, 1, 1) for item in (spec.mean, spec.std))
    raw = session.run(None, {spec.name: (pixels - mean) / std})
    expected = geometry.suppress(raw[0][0], raw[1][0], conf=0.2, iou=0.1, max_det=50, max_candidates=3000)
    count = int(counts[0, 0])
    assert count == len(expected[2]) > 5
    for ours, theirs in zip((boxes, scores, labels), expected, strict=True):
        np.testing.assert_array_equal(ours[0, :count], theirs)


def test_the_plugin_is_registered_once_and_its_memory_is_enough(thor: Board, tmp_path: Path) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    for _ in range(2):
        edgekd.export_engine(path, tmp_path / "m.engine")
    node = onnx.load_from_string((tmp_path / "m.engine").read_bytes().partition(b"\0")[2]).graph.node[-1]
    values = {item.name: item.i for item in node.attribute}
    with Bundle.read(path) as bundle:
        rows, columns = bundle.manifest.outputs[0].shape
    needed = thor.kernels.lib.edgekd_cuda_suppress_workspace(1, rows, columns, 3, 0, 3000)
    assert 4 * values["workspace"] == needed == workspace_bytes(1, rows, columns, 3000)


@pytest.mark.parametrize(("value", "expected"), [(0.25, 0x3E800000), (1.0, 0x3F800000), (0.0, 0), (-1.0, -0x40800000)])
def test_thresholds_travel_as_bits(value: float, expected: int) -> None:
    assert bits(value) == expected


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0"])
def test_an_older_tensorrt_says_what_it_lacks(board: Board, tmp_path: Path, version: str) -> None:
    board.tensorrt = FakeTensorRT(version)
    path = bundles.written("tensorrt", "fp32", tmp_path)
    with pytest.raises(BuildError, match=rf"TensorRT {version} cannot keep a kernel .* 10\.9 and later"):
        edgekd.export_engine(path, tmp_path / "m.engine")
    assert not (tmp_path / "m.engine").exists()


def test_without_onnx_it_says_what_to_type_before_the_gpu_is_opened(
    thor: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    monkeypatch.setattr(_nms_node, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="pip install onnx"):
        edgekd.export_engine(path, tmp_path / "m.engine")
    assert not thor.devices


def test_a_build_that_fails_leaves_no_file(thor: Board, tmp_path: Path) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    thor.tensorrt.build_errors = ["10: Could not find any implementation for node {x}."]
    with pytest.raises(BuildError, match="no tactic fits"):
        edgekd.export_engine(path, tmp_path / "m.engine")
    assert not (tmp_path / "m.engine").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"conf": -0.1}, "conf should be 0 to 1"), ({"iou": 1.5}, "iou should be 0 to 1"),
        ({"max_det": 0}, "max_det should be 1 to 4096"), ({"batch": 65}, "batch should be 1 to 64"),
        ({"conf": float("nan")}, "conf should be 0 to 1"), ({"precision": "fp16"}, "no fp16 artifact"),
    ],
)  # fmt: skip
def test_what_an_engine_could_not_refuse_is_refused_here(
    thor: Board, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    with pytest.raises(UsageError, match=message):
        edgekd.export_engine(path, tmp_path / "m.engine", **wrong)
    assert thor.tensorrt.builds == 0


def test_engine_when_there_is_no_folder_for_it_then_nothing_is_built(thor: Board, tmp_path: Path) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*none; name another, or: mkdir -p"):
        edgekd.export_engine(path, tmp_path / "none" / "m.engine")
    assert thor.tensorrt.builds == 0


def test_an_anomaly_network_has_nothing_to_suppress(thor: Board, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    bundles.built("tensorrt", "fp32", anomaly=True).bundle.write(path)
    with pytest.raises(BuildError, match="no boxes to suppress"):
        edgekd.export_engine(path, tmp_path / "m.engine")


def test_the_command_says_what_goes_in_and_out(thor: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bundles.written("tensorrt", "fp32", tmp_path)
    command = ["export", str(path), "--to", "tensorrt", "--out", str(tmp_path / "m.engine"), "--conf", "0.3"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "in   images 3x64x96, letterboxed pixels, rgb, 0 to 255, float32" in said.out
    assert "out  detection_boxes 300x4" in said.out
    assert "score above 0.3, overlap at most 0.5" in said.out
    assert "TensorRT 10.13.3 builds for host (SM110)" in said.err
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["conf"] == 0.3
    assert main([*command, "--restart", "x"]) == 2
    assert "--to tensorrt has no --restart" in capsys.readouterr().err
    assert main(["export", str(path), "--to", "rauc", "--out", str(tmp_path / "r")]) == 2
    assert "--to rauc wants --compatible" in capsys.readouterr().err
    assert main(["export", str(path), "--to", "foo", "--out", str(tmp_path / "r")]) == 2
    assert "possible: mender, rauc, swupdate, tensorrt" in capsys.readouterr().err


@pytest.mark.skipif(_kernels.shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_writes_ptx_with_both_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = _kernels.ptx(87)
    for layout in ("xyxy", "xywhr"):
        entry = code.partition(b".entry edgekd_suppress_block_%s(" % layout.encode())[2].partition(b")")[0]
        assert [word for word in entry.split() if word in (b".u64", b".u32")] == [b".u64"] * 2 + [b".u32"] * 6 + [
            b".u64"
        ] * 5
    assert [item.suffix for item in (tmp_path / "edgekd" / "kernels").iterdir()] == [".ptx"]


def test_ptx_without_nvcc_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_kernels.shutil, "which", lambda _: None)
    monkeypatch.setattr(_kernels, "TOOLKIT", tmp_path / "none")
    with pytest.raises(TargetUnavailableError, match=r"no nvcc: .*-arch=compute_110 -ptx .*compute110\.ptx"):
        _kernels.ptx(110)
