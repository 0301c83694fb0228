"""A DLA beside the GPU: what is asked of the builder, what is left to the GPU, and who has none."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from edgekd.targets.tensorrt import _session
from edgekd.targets.tensorrt._session import TensorRTSession, dla_core

from edgekd._bundle import Bundle
from edgekd._detector import load
from edgekd._session import LayerTime
from edgekd.errors import SessionError

from ..conformance import bundles
from .tensorrt_fake import FakeTensorRT

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Board

TYPED = 1 << 1  # STRONGLY_TYPED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return bundles.written("tensorrt", "fp16", tmp_path)


def start(path: Path, device: str = "dla:1") -> contextlib.closing[TensorRTSession]:
    with Bundle.read(path) as bundle:
        return contextlib.closing(TensorRTSession(bundle, bundle.manifest.artifacts[0], device=device))


def tried(path: Path, device: str = "dla:1") -> None:
    with start(path, device):
        pass


@pytest.mark.parametrize(("version", "flags"), [("8.5.2", 1), ("8.6.2", 1), ("10.3.0", 0), ("11.4.1", TYPED)])
def test_builder_is_told_in_the_words_of_its_version(board: Board, path: Path, version: str, flags: int) -> None:
    """Before TensorRT 11 a DLA network is not strongly typed but held to its types layer by layer; since then it is."""
    board.tensorrt = FakeTensorRT(version, dla_cores=2)
    with start(path) as session:
        assert len(session.infer(bundles.pixels(3))) == 2
    calls = board.tensorrt.calls
    assert ("flags", flags) in calls
    assert {("default_device_type", "DLA"), ("DLA_core", 1), ("set", "GPU_FALLBACK")} <= {
        c for c in calls if c[0] != "layers"
    }
    held = {("set", "FP16"), ("set", "OBEY_PRECISION_CONSTRAINTS")} & {c for c in calls if c[0] == "set"}
    assert len(held) == (0 if flags == TYPED else 2)
    (profile,) = (c[1] for c in calls if c[0] == "profile")
    assert {shape[0] for shape in profile[1:]} == {1}, "a DLA's shapes are fixed"


def test_layers_left_to_the_gpu_are_named_kept_with_the_engine_and_timed(
    board: Board, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    with start(path) as session:
        first = session.info.device
    (layers,) = (c[1] for c in board.tensorrt.calls if c[0] == "layers")
    left = [each.name for each in layers if each.type.name not in ("CONV", "CONSTANT")]
    assert f"DLA 1 leaves {len(left)} of them to the GPU: {', '.join(left)}" in caplog.text
    assert first.startswith("DLA 1 of ")
    assert f"{len(left)} layers left to it" in first
    board.tensorrt.layers = [("{ForeignNode[a...b]}", 0.5), (f"PWN({left[0]})", 0.25)]
    with start(path) as session:
        assert session.info.device == first, "from the cache"
        assert [item.kind for item in session.layer_times(bundles.pixels(1), 2)] == ["DLA", "GPU"]
    assert board.tensorrt.builds == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("{ForeignNode[/stem/Conv.../head/Mul_12]}", "DLA"),  # /head/Mul and /head/Mul_1 are left over
        ("{ForeignNode[/stem/Conv.../neck.head/Mul]}", "DLA"),
        ("{ForeignNode[/head/Mul.../head/Concat]}", "GPU"),
        ("/head/Sigmoid + /head/Mul_1", "GPU"),
        ("PWN(/head/Mul_1)", "GPU"),
        ("Reformatting CopyNode for Input Tensor 0 to /head/Mul", "copy"),
        ("images to nvm", "copy"),  # recorded on an Orin: NVIDIA/TensorRT#3143
        ("images copy finish", "copy"),
        ("/head/Mul from nvm", "DLA"),
    ],
)
def test_side_of_a_layer_is_found_by_whole_names_and_copies_are_told(name: str, kind: str) -> None:
    placed = _session._placed(LayerTime(name, "layer", 1.0), ("/head/Mul", "/head/Mul_1"))
    assert placed == (name, kind, 1.0)
    assert _session._placed(LayerTime("/stem/Conv", "layer", 1.0), ()).kind == "DLA"


def test_engine_of_each_core_and_of_the_gpu_is_its_own(board: Board, path: Path) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    for device in ("auto", "dla:0", "dla:1", "dla"):
        tried(path, device)
    names = [item.name.rsplit("-", 1)[0] for item in path.with_name(f"{path.name}.engines").glob("*.engine")]
    assert sorted(names) == ["fp16-dla0", "fp16-dla1", "fp16-sm87"]


def test_engine_runs_on_the_core_that_was_asked_for_when_built_and_when_kept(board: Board, path: Path) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    for device in ("dla:1", "dla:1", "dla:0", "cuda"):
        tried(path, device)
    assert board.tensorrt.builds == 3
    assert board.tensorrt.loaded_on == [1, 1, 0, -1]


def test_list_of_layers_that_was_changed_makes_the_engine_damaged(
    board: Board, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    tried(path)
    (kept,) = path.with_name(f"{path.name}.engines").glob("*.engine")
    head, _, plan = kept.read_bytes().partition(b"\n")
    for wrong in ({**json.loads(head), "on_gpu": []}, {**json.loads(head), "on_gpu": 3}, [1]):
        kept.write_bytes(json.dumps(wrong).encode() + b"\n" + plan)
        caplog.clear()
        tried(path)
        assert "is damaged, so it is built again" in caplog.text
    assert board.tensorrt.builds == 4


@pytest.mark.parametrize(
    ("version", "cores", "says"),
    [
        ("10.3.0", 0, "no DLA core 1: this machine has 0"), ("10.3.0", 1, "no DLA core 1: this machine has 1"),
        ("10.16.2", 2, r"10\.16\.2 has no DLA"), ("11.4.0", 2, r"11\.4\.0 has no DLA"),
    ],
)  # fmt: skip
def test_machine_without_one_says_so_and_what_to_type(
    board: Board, path: Path, version: str, cores: int, says: str
) -> None:
    board.tensorrt = FakeTensorRT(version, dla_cores=cores)
    with pytest.raises(SessionError, match=says) as caught:
        tried(path)
    assert "device='cuda'" in str(caught.value)
    assert board.tensorrt.builds == 0
    assert board.devices[-1].closed


def test_another_precision_is_refused_with_what_to_type(board: Board, tmp_path: Path) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    both = bundles.written("tensorrt", "fp32", tmp_path)
    with pytest.raises(SessionError, match=r"this is the fp32 artifact.*precision='fp16'"):
        load(both, device="dla:0")


def test_results_are_those_of_the_gpu(board: Board, path: Path) -> None:
    board.tensorrt = FakeTensorRT(dla_cores=2)
    pixels = bundles.pixels(3)
    with start(path) as dla, start(path, "cuda") as gpu:
        for one, other in zip(dla.infer(pixels), gpu.infer(pixels), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("spelling", "core"), [("dla", 0), ("DLA:1", 1), ("dla:x", None), ("cuda:0", None), ("dla:", None)]
)
def test_dla_core_of_a_spelling(spelling: str, core: int | None) -> None:
    assert dla_core(spelling) == core
