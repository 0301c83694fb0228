"""Engines: kept by key, built again when anything differs, refused with words that help."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import shutil
import subprocess
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from edgekd.targets.tensorrt import _ahead, _compile, _engines, _kernels, _known_bad, _memory, _runtime, _store
from edgekd.targets.tensorrt._session import TensorRTSession
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import edgekd
from edgekd import errors
from edgekd._bundle import Bundle
from edgekd._detector import load
from edgekd.errors import BuildError, SessionError, TargetUnavailableError, UsageError

from ..conformance import bundles
from . import tensorrt_fake
from .tensorrt_fake import FakeTensorRT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Board


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return bundles.written("tensorrt", "fp32", tmp_path)


def start(path: Path) -> TensorRTSession:
    with Bundle.read(path) as bundle:
        return TensorRTSession(bundle, bundle.manifest.artifacts[0], device="auto")


def engines(path: Path) -> list[Path]:
    return sorted(path.with_name(f"{path.name}.engines").glob("*.engine"))


def test_engine_is_built_once_and_kept_beside_the_bundle(board: Board, path: Path) -> None:
    before = path.read_bytes()
    for _ in range(3):
        start(path).close()
    assert board.tensorrt.builds == 1
    assert path.read_bytes() == before
    (kept,) = engines(path)
    assert kept.name.startswith("fp32-sm87-")
    assert not [item for item in kept.parent.iterdir() if item.suffix == ".tmp"]


def test_engine_goes_to_the_cache_that_is_named(board: Board, path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for _ in range(2):
        load(path, device="tensorrt", cache=cache).close()
    assert board.tensorrt.builds == 1
    assert len(list(cache.glob("*.engine"))) == 1
    assert not engines(path)


def test_throughput_is_refused_for_calls_overlap_anyway(board: Board, path: Path) -> None:
    with pytest.raises(UsageError, match="mode='throughput' changes nothing on TensorRT"):
        load(path, device="tensorrt", mode="throughput")


@pytest.mark.parametrize("damage", ["cut", "empty", "bit of the plan", "bit of the head", "garbage", "tail"])
def test_damaged_engine_is_built_again(board: Board, path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    start(path).close()
    (kept,) = engines(path)
    good = kept.read_bytes()
    flipped = bytearray(good)
    flipped[-9 if damage == "bit of the plan" else 5] ^= 4
    kept.write_bytes(
        {"cut": good[:-1], "empty": b"", "garbage": b"\n\xff" * 99, "tail": good + b"\0"}.get(damage, flipped)
    )
    start(path).close()
    assert board.tensorrt.builds == 2
    assert "is damaged, so it is built again" in caplog.text
    assert kept.read_bytes() == good
    start(path).close()
    assert board.tensorrt.builds == 2


@pytest.mark.parametrize("change", ["version", "capability", "precision"])
def test_other_version_or_gpu_has_an_engine_of_its_own(
    board: Board, path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    start(path).close()
    if change == "version":
        board.tensorrt = FakeTensorRT("10.3.1")
    elif change == "capability":
        board.tensorrt, board.capability = FakeTensorRT(capability=110), 110
    else:
        bundles.built("tensorrt", "fp16").bundle.write(path)
    start(path).close()
    assert len(engines(path)) == 2
    if change != "precision":
        assert "but none for TensorRT" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "meaning"),
    [
        ({"version": "8.6.1"}, "another TensorRT: it has to be built again here"),
        ({"capability": 86}, "another GPU: it has to be built again here"),
    ],
)
def test_engine_that_tensorrt_does_not_take_is_built_again(
    board: Board, path: Path, wrong: dict[str, Any], meaning: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is right and the plan is another's: what a cache copied from elsewhere may be."""
    start(path).close()
    (kept,) = engines(path)
    other = FakeTensorRT(**{"version": "10.3.0", **wrong})
    with Bundle.read(path) as bundle:
        graph = bytes(bundle.file(bundle.manifest.artifacts[0], "model.onnx"))
    order = _compile.Order(graph, "images", (3, bundles.HEIGHT, bundles.WIDTH), "fp32")
    plan = _compile.compile_engine(other.found(), order, lambda _: None).plan
    key = _engines.key_of(board.tensorrt.found(), board.devices[-1], graph, "fp32", "")
    _engines.write(kept, key, _engines.Kept(plan, ()))
    start(path).close()
    assert board.tensorrt.builds == 2
    assert meaning in caplog.text
    assert "please rebuild" in caplog.text


def test_every_field_of_the_key_changes_the_file_name() -> None:
    key = _engines.Key("ab", "TensorRT 10.3.0", 87, "Orin", 16, "Jetson AGX Orin", "36.4.3", "fp32", (1, 1, 8))
    others = {"graph": "ac", "tensorrt": "TensorRT-RTX 10.3.0", "capability": 86, "gpu": "Xavier",
              "multiprocessors": 14, "board": "Jetson Orin NX", "l4t": "36.4.4",
              "precision": "fp16", "batches": (1, 1, 4), "dla": 0}  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(key)}
    names = {
        key.file_name(),
        *(dataclasses.replace(key, **{name: value}).file_name() for name, value in others.items()),
    }
    assert len(names) == 1 + len(others)


@pytest.mark.parametrize("change", ["multiprocessors", "model"])
def test_board_with_the_same_gpu_name_has_engine_and_timings_of_its_own(board: Board, path: Path, change: str) -> None:
    """CUDA calls the GPU of AGX Orin, Orin NX and Orin Nano "Orin", and each has other best tactics."""
    start(path).close()
    setattr(board, change, {"multiprocessors": 16, "model": "NVIDIA Jetson Orin NX"}[change])
    start(path).close()
    start(path).close()
    assert board.tensorrt.builds == 2
    assert len(engines(path)) == 2
    assert len(list(path.with_name(f"{path.name}.engines").glob("timings-*.cache"))) == 2


def test_what_build_compiled_is_not_compiled_again_and_lies_beside_the_bundle(board: Board, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    bundles.portable().write(path)
    edgekd.build(path, targets=["tensorrt"], precisions=["fp32", "fp16"])
    assert board.tensorrt.builds == 2
    for precision in ("fp32", "fp16"):
        edgekd.load(path, device="tensorrt", precision=precision).close()
    assert board.tensorrt.builds == 2
    shutil.rmtree(tmp_path / "cache")  # another user's starts find those beside the bundle
    for precision in ("fp32", "fp16"):
        edgekd.load(path, device="tensorrt", precision=precision).close()
    assert board.tensorrt.builds == 2


def test_read_only_folder_of_the_bundle_leads_to_the_users_cache(
    board: Board, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    real = Path.mkdir
    monkeypatch.setattr(
        Path, "mkdir", lambda self, *a, **k: refuse(self) if self.name.endswith(".engines") else real(self, *a, **k)
    )
    start(path).close()
    assert engines(path) == []
    assert len(list((tmp_path / "cache" / "edgekd" / "engines").glob("*.engine"))) == 1
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TargetUnavailableError, match=r"cannot make the folder .*Permission denied"):
        _store.engine_folder(path)


def test_engine_when_the_folder_beside_the_bundle_is_read_only_then_the_one_in_it_is_taken(
    board: Board, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine of a system image that is read-only, or of the user that flashed."""
    start(path).close()
    monkeypatch.setattr(_store.os, "access", lambda *_: False)
    start(path).close()
    assert board.tensorrt.builds == 1
    engines(path)[0].write_bytes(b"damaged")
    for _ in range(2):
        start(path).close()
    assert board.tensorrt.builds == 2


def test_engine_when_memory_is_too_full_to_load_it_then_it_is_kept_and_not_built_again(
    board: Board, path: Path
) -> None:
    start(path).close()
    board.tensorrt.load_errors = [tensorrt_fake.NO_MEMORY]
    with pytest.raises(SessionError, match=r"does not take the engine: the memory is full(.|\n)*out of memory"):
        start(path)
    assert board.devices[-1].closed
    start(path).close()
    assert board.tensorrt.builds == 1


def test_timings_when_they_cannot_be_read_then_the_build_goes_on_without(
    board: Board, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, such as root's."""
    start(path).close()
    engines(path)[0].unlink()
    real = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self.suffix == ".cache":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    start(path).close()
    assert ("timings", b"") in board.tensorrt.calls
    assert "cannot be read, so the build takes all its time: Permission denied" in caplog.text


def test_full_disk_costs_the_cache_and_not_the_session(
    board: Board, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise errors.BundleError("cannot write: No space left on device")

    monkeypatch.setattr(_engines, "write_file", full)
    with contextlib.closing(start(path)) as session:
        assert len(session.infer(bundles.pixels(1))) == 2
    assert "the next start builds it again: cannot write: No space left on device" in caplog.text


def test_timings_are_kept_and_given_to_the_next_build(board: Board, path: Path) -> None:
    start(path).close()
    folder = path.with_name(f"{path.name}.engines")
    (timings,) = folder.glob("timings-*.cache")
    engines(path)[0].unlink()
    start(path).close()
    assert ("timings", b"t") in board.tensorrt.calls
    timings.write_bytes(b"bad")
    engines(path)[0].unlink()
    start(path).close()
    assert ("timings", b"") in board.tensorrt.calls, "what TensorRT does not take is left out"
    assert board.tensorrt.builds == 3


def test_build_settings_keep_float32_exact(board: Board, path: Path) -> None:
    start(path).close()
    assert ("clear", "TF32") in board.tensorrt.calls
    (workspace,) = (item[1] for item in board.tensorrt.calls if item[0] == "workspace")
    assert 0 < workspace <= _compile.WORKSPACE_BYTES


def test_tensorrt_8_is_held_to_the_graphs_types_layer_by_layer(board: Board) -> None:
    board.tensorrt = FakeTensorRT("8.6.2")
    bundle, artifact = bundles.built("tensorrt", "fp16")[:2]
    TensorRTSession(bundle, artifact, device="auto").close()
    assert {("set", "FP16"), ("set", "OBEY_PRECISION_CONSTRAINTS")} <= {
        item for item in board.tensorrt.calls if item[0] == "set"
    }
    (layers,) = (item[1] for item in board.tensorrt.calls if item[0] == "layers")
    kinds = {layer.type.name: layer.precision.name for layer in layers}
    assert kinds["CONV"] == "HALF"
    assert kinds["SOFTPLUS"] == "FLOAT"
    assert all(layer.set_output_types == [layer.precision] for layer in layers)


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (tensorrt_fake.NO_TACTIC, "want of workspace"),
        (tensorrt_fake.NO_MEMORY, "memory is full"),
        ("new words", "said"),
    ],
)
def test_refused_build_gives_the_vendors_words_and_their_meaning(
    board: Board, path: Path, said: str, meaning: str
) -> None:
    board.tensorrt.build_errors = [said]
    with pytest.raises(SessionError) as caught:
        start(path)
    assert said in str(caught.value)
    assert meaning in str(caught.value)
    assert board.devices[-1].closed
    assert engines(path) == []


def test_tensorrt_when_it_does_not_start_then_its_words_are_ours_and_nothing_is_built(board: Board, path: Path) -> None:
    board.tensorrt.start_errors = [tensorrt_fake.NO_START]
    with pytest.raises(SessionError, match=r"does not start: the driver is not usable here(.|\n)*error 2"):
        start(path)
    start(path).close()
    board.tensorrt.start_errors = [tensorrt_fake.NO_START]
    with pytest.raises(TargetUnavailableError, match="does not start: the driver is not usable here"):
        start(path)
    assert board.tensorrt.builds == 1
    assert board.devices[-1].closed


def test_errors_when_two_engines_live_and_the_first_goes_then_the_second_is_heard(board: Board, path: Path) -> None:
    """TensorRT keeps the first logger it is given, by a bare pointer, as long as anything of its lives."""
    first = start(path)
    with contextlib.closing(start(path)) as second:
        for _ in range(2):
            board.tensorrt.run_errors = [tensorrt_fake.NO_MEMORY]
            with pytest.raises(SessionError, match=r"memory is full(.|\n)*out of memory"):
                second.infer(bundles.pixels(1))
            if first is not None:
                first.close()
            first = None
            gc.collect()


def test_log_when_an_engine_is_collected_while_one_begins_to_listen_then_it_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector runs in any thread, between any two lines; a thread of its own, so that a failure ends."""
    logger = _runtime.Log(FakeTensorRT().module).logger

    class Collecting(set[Any]):
        def add(self, log: Any) -> None:
            super().add(log)
            logger.log(tensorrt_fake.Severity.ERROR, "freed outside its context")

    monkeypatch.setattr(_runtime, "_LISTENING", Collecting())
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.extend(_runtime.Log(FakeTensorRT().module).errors), daemon=True)
    thread.start()
    thread.join(10)
    assert heard == ["freed outside its context"]


@pytest.mark.parametrize(
    ("version", "layers", "jetson", "refused"),
    [
        ("11.3.0", (), True, True), ("11.4.0", (), True, True), ("11.4.1", (), True, False),
        ("11.3.0", (), False, False),
        ("10.3.0", ("QUANTIZE", "TOPK", "CONV"), True, True), ("10.3.0", ("TOPK",), True, False),
        ("10.4.0", ("QUANTIZE", "TOPK"), True, False), ("8.5.2", (), True, False),
    ],
)  # fmt: skip
def test_known_bad_versions_are_refused_with_what_to_do(version, layers, jetson, refused) -> None:
    tensorrt = FakeTensorRT(version).found()
    context = pytest.raises(BuildError, match="source: ") if refused else contextlib.nullcontext()
    with context:
        _known_bad.apply(tensorrt, layers, jetson=jetson, progress=lambda _: None)


def test_known_bad_that_only_costs_time_is_said_and_rtx_has_none() -> None:
    said: list[str] = []
    tensorrt = FakeTensorRT("10.3.0").found()
    _known_bad.apply(tensorrt, ["NON_ZERO"], jetson=True, progress=said.append)
    assert "6.5 ms" in said[0]
    rtx = dataclasses.replace(tensorrt, name="TensorRT-RTX")
    _known_bad.apply(rtx, ["QUANTIZE", "TOPK", "NON_ZERO"], jetson=True, progress=said.append)
    assert len(said) == 1


def test_known_bad_rows_are_sound() -> None:
    for row in _known_bad.KNOWN_BAD:
        assert row.since < row.until
        assert row.action in (_known_bad.REFUSE, _known_bad.SAY)
        assert row.source


def test_preflight_refuses_with_what_to_do_and_caps_the_workspace(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    for free_mib, expected in ((900, None), (1200, 64), (2000, 300), (30_000, 1024)):
        meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable:   {free_mib * 1024} kB\n")
        if expected is None:
            with pytest.raises(
                TargetUnavailableError, match=r"900 MiB of memory are free.*about 926 MiB.*swapon.*copy"
            ):
                _memory.preflight(27 << 20, 1 << 30, tmp_path, meminfo, tmp_path / "none")
        else:
            workspace = _memory.preflight(27 << 20, 1 << 30, tmp_path, meminfo, tmp_path / "none")
            assert abs(workspace / 2**20 - expected) < 40
    meminfo.write_text("odd")
    assert _memory.preflight(1, 7, tmp_path, meminfo) == 7
    assert _memory.preflight(1, 7, tmp_path, tmp_path / "none") == 7


SWAPFILE = "/swapfile                               file\t\t{}\t\t{}\t\t-2\n"
ZRAM = "/dev/zram0                              partition\t1984348\t\t0\t\t5\n"


@pytest.mark.parametrize(
    ("swaps", "said"),
    [
        (SWAPFILE.format(4194300, 0), ""), (ZRAM, "300 MiB of memory are free"),
        (ZRAM + SWAPFILE.format(4194300, 3900000), "300 MiB of memory and 287 MiB of swap are free"),
    ],
)  # fmt: skip
def test_preflight_when_swap_was_added_as_it_says_then_the_build_may_start(
    tmp_path: Path, swaps: str, said: str
) -> None:
    """zram is part of the memory that is short, and the workspace has to be memory."""
    meminfo, table = tmp_path / "meminfo", tmp_path / "swaps"
    meminfo.write_text(f"MemAvailable:   {300 * 1024} kB\n")
    table.write_text(f"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n{swaps}")
    context = pytest.raises(TargetUnavailableError, match=said) if said else contextlib.nullcontext()
    with context:
        assert _memory.preflight(27 << 20, 1 << 30, tmp_path, meminfo, table) == 64 << 20


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.sampled_from(["", ".26", ".dev1", "+cuda12"]))
def test_parse_version_reads_the_first_three_numbers(major: int, minor: int, patch: int, tail: str) -> None:
    assert _runtime.parse_version(f"{major}.{minor}.{patch}{tail}") == (major, minor, patch)
    assert _runtime.parse_version(f"{major}.{minor}") == (major, minor, 0)


@pytest.mark.parametrize("text", ["", "ten", "10", "v10.3"])
def test_parse_version_of_something_else_says_so(text: str) -> None:
    with pytest.raises(TargetUnavailableError, match="expected something like"):
        _runtime.parse_version(text)


def test_find_takes_tensorrt_first_and_refuses_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {"tensorrt": FakeTensorRT("10.3.0").module}

    def import_module(name: str) -> Any:
        if name not in modules:
            raise ImportError(f"No module named {name!r}")
        return modules[name]

    monkeypatch.setattr(_runtime.importlib, "import_module", import_module)
    assert (_runtime.find().name, _runtime.find().version) == ("TensorRT", "10.3.0")
    modules["tensorrt"].__version__ = "8.2.1"
    with pytest.raises(TargetUnavailableError, match=r"8\.2\.1 is too old: 8\.5 \(JetPack 5\.1\)"):
        _runtime.find()
    modules["tensorrt"] = ModuleType("tensorrt")
    with pytest.raises(
        TargetUnavailableError, match=r"no TensorRT can be imported:(.|\n)*has no attribute '__version__'"
    ):
        _runtime.find()
    modules.clear()
    with pytest.raises(TargetUnavailableError, match=r"no TensorRT can be imported:(.|\n)*tensorrt_rtx_bindings: "):
        _runtime.find()


needs_rtx = pytest.mark.skipif(not _ahead.available(), reason="TensorRT-RTX is not installed")


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_real_builder_and_runtime_speak_the_facade(precision: str, tmp_path: Path) -> None:
    """TensorRT-RTX without a GPU: it builds, keeps timings, and says in its own words why it does not load."""
    rtx = _ahead._load()
    assert (rtx.strongly_typed, rtx.shares_profiles, rtx.rtx) == (True, True, True)
    bundle, artifact = bundles.built("tensorrt", precision)[:2]
    graph = bytes(bundle.file(artifact, "model.onnx"))
    order = _compile.Order(graph, "images", (3, bundles.HEIGHT, bundles.WIDTH), precision, chip="SM86")
    done = _compile.compile_engine(rtx, order, lambda _: None)
    again = _compile.compile_engine(rtx, dataclasses.replace(order, timings=done.timings), lambda _: None)
    assert len(again.plan) > 10_000
    _compile.compile_engine(rtx, dataclasses.replace(order, timings=b"garbage"), lambda _: None)
    for plan in (b"garbage" * 99, done.plan[: len(done.plan) // 2]):
        with pytest.raises(SessionError, match="does not take the engine"):
            rtx.load(plan)


def _sized_by_data() -> bytes:
    """Return a graph whose output is as long as its input has values that are not zero."""
    shape = ["b", 3, bundles.HEIGHT, bundles.WIDTH]
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["images"], ["where"]), helper.make_node("Relu", ["images"], ["same"])],
        "sized_by_data",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("where", TensorProto.INT64, [4, "n"]),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, shape),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_layers_that_need_memory_while_they_run_are_left_it() -> None:
    fake = FakeTensorRT("1.2.0", rtx=True)
    order = _compile.Order(_sized_by_data(), "images", (3, bundles.HEIGHT, bundles.WIDTH), "fp32")
    _compile.compile_engine(fake.found(), order, lambda _: None)
    assert ("set", "REQUIRE_USER_ALLOCATION") not in fake.calls


def test_kernels_without_nvcc_say_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_kernels.shutil, "which", lambda _: None)
    monkeypatch.setattr(_kernels, "TOOLKIT", tmp_path / "none")
    with pytest.raises(TargetUnavailableError, match=r"SM87 and there is no nvcc: .*build_fatbin\.py .*sm87\.fatbin"):
        _kernels.image(87)


@pytest.mark.skipif(_kernels.shutil.which("nvcc") is None, reason="no nvcc")
def test_kernels_are_compiled_once_for_this_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = _kernels.image(87)
    assert b"edgekd_letterbox_packed" in code
    monkeypatch.setattr(_kernels, "_compile", lambda *_: pytest.fail("compiled again"))
    assert _kernels.image(87) == code
    assert [item.suffix for item in (tmp_path / "edgekd" / "kernels").iterdir()] == [".fatbin"]


@pytest.mark.skipif(_kernels.shutil.which("nvcc") is None, reason="no nvcc")
def test_kernels_that_the_toolkit_of_a_board_warns_of_are_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "edgekd_cuda.cu"
    source.write_text('extern "C" __global__ void warned_of() { int never_used; }\n')
    monkeypatch.setattr(_kernels.build_fatbin, "SOURCE", source)
    assert b"warned_of" in _kernels.image(87)


@pytest.fixture
def nvcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Callable[[], Any]]:
    """A compiler that does what is in the list, one thing a call, between writing its file and ending."""
    meanwhile: list[Callable[[], Any]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        Path(command[-1]).write_bytes(b"code")
        if meanwhile:
            meanwhile.pop()()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_kernels.shutil, "which", lambda _: "nvcc")
    monkeypatch.setattr(_kernels.subprocess, "run", run)
    return meanwhile


@pytest.mark.parametrize("compiled", [_kernels.image, _kernels.ptx])
def test_processes_that_compile_at_once_do_not_share_a_file(
    nvcc: list[Callable[[], Any]], tmp_path: Path, compiled: Callable[[int], bytes]
) -> None:
    nvcc.append(lambda: compiled(87))
    assert compiled(87) == b"code"
    assert len(list((tmp_path / "edgekd" / "kernels").iterdir())) == 1, "nothing is left over"


def test_kernels_that_cannot_be_compiled_or_kept_are_an_error_of_ours(nvcc: list[Callable[[], Any]]) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    nvcc.append(full)
    with pytest.raises(TargetUnavailableError, match=r"cannot keep .*sm87\.fatbin: .*No space left on device"):
        _kernels.image(87)


def test_other_flags_are_other_kernels(nvcc: list[Callable[[], Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    _kernels.image(87)
    monkeypatch.setattr(_kernels.build_fatbin, "FLAGS", [*_kernels.build_fatbin.FLAGS, "-lineinfo"])
    nvcc.append(lambda: None)
    _kernels.image(87)
    assert nvcc == [], "compiled again"
