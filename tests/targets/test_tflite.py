"""LiteRT against the conformance suite, and what only LiteRT does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edgekd._target import load_target
from edgekd.errors import BuildError

from ..conformance import bundles
from ..conformance.predict import RunnableTarget

if TYPE_CHECKING:
    from pathlib import Path


class TestTFLite(RunnableTarget):
    TARGET = "tflite"


@pytest.fixture
def build_module() -> Any:
    from edgekd.targets.tflite import _build

    return _build


def test_converter_that_dies_shows_its_last_lines(build_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys; print('noise\\n' * 100); print('LLVM ERROR: out of luck', file=sys.stderr); import os; os.abort()"
    )
    real = subprocess.run
    monkeypatch.setattr(build_module, "_kept", OrderedDict())
    monkeypatch.setattr(build_module.subprocess, "run", lambda _, **rest: real([sys.executable, "-c", code], **rest))
    with pytest.raises(BuildError, match=r"ended with code -6(.|\n)*LLVM ERROR: out of luck") as caught:
        load_target("tflite").build(bundles.portable(), "fp32", lambda _: None)
    assert len(str(caught.value).splitlines()) <= build_module.LAST_LINES + 1


def test_the_users_folder_is_not_imported_from(
    build_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("inspect", "onnx", "numpy"):
        (tmp_path / "user" / f"{name}.py").write_text("raise SystemExit('the file of the user ran')")
    monkeypatch.chdir(tmp_path / "user")
    with pytest.raises(BuildError, match=r"No such file or directory: '.*empty/request\.json'"):
        build_module._run_child("_quantize", tmp_path / "empty")


def test_unknown_operator_comes_back_from_the_converter_as_a_build_error() -> None:
    import onnx
    from onnx import helper

    pytest.importorskip("litert_torch")
    model = onnx.load_from_string(bundles.portable().graph())
    for node in model.graph.node:
        if node.op_type == "Softplus":
            node.CopyFrom(helper.make_node("Sinh", list(node.input), list(node.output)))
    bundle = bundles.portable().replace(add={"graph.onnx": model.SerializeToString()})
    with pytest.raises(BuildError, match="cannot translate the operators Sinh; possible: Abs"):
        load_target("tflite").build(bundle, "fp32", lambda _: None)


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64"), ("win32", "AMD64")])
def test_building_elsewhere_says_where_to_build(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    target: Any = load_target("tflite")
    monkeypatch.setattr(target, "sys", SimpleNamespace(platform=system))
    monkeypatch.setattr(target, "platform", SimpleNamespace(machine=lambda: machine, system=lambda: system))
    reason = target.probe_build()
    assert machine in reason
    assert "pip install 'edgekd[tflite-build]'" in reason
    assert "edgekd build model.bin --target tflite" in reason


def test_second_runtime_is_taken_where_the_first_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    target: Any = load_target("tflite")
    monkeypatch.setattr(target, "find_spec", lambda name: object() if name == "tflite_runtime" else None)
    assert target.probe() is None
    monkeypatch.setattr(target, "find_spec", lambda _: None)
    assert "pip install ai-edge-litert" in target.probe()


def test_session_module_falls_back_to_tflite_runtime() -> None:
    code = """
import sys, types
sys.modules["ai_edge_litert"] = None
runtime = types.ModuleType("tflite_runtime"); runtime.__path__ = []
interpreter = types.ModuleType("tflite_runtime.interpreter")
class Interpreter: pass
interpreter.Interpreter = Interpreter
sys.modules |= {"tflite_runtime": runtime, "tflite_runtime.interpreter": interpreter}
import importlib.metadata as metadata
metadata.version = lambda name: {"tflite-runtime": "2.14.0"}[name]
from edgekd.targets.tflite import _session
print(_session.RUNTIME, _session.Interpreter is Interpreter)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tflite-runtime", "2.14.0", "True"]


def test_first_runtime_that_is_broken_is_said_and_the_next_target_runs(tmp_path: Path) -> None:
    """The second runtime, which is missing, is not what anybody should install."""
    pytest.importorskip("ai_edge_litert")
    bundles.written("tflite", "fp32", tmp_path)
    broken = tmp_path / "path" / "ai_edge_litert"
    broken.mkdir(parents=True)
    (broken / "__init__.py").touch()
    (broken / "interpreter.py").write_text("raise ImportError('libgone.so: cannot open shared object file')")
    code = """
import sys, edgekd
sys.path.insert(0, sys.argv[2])
try:
    edgekd.load(sys.argv[1], device="tflite")
except edgekd.errors.TargetUnavailableError as error:
    print(error)
print(edgekd.load(sys.argv[1]).info.session.target)
"""
    words = [sys.executable, "-c", code, str(tmp_path / "tflite-fp32.bin"), str(tmp_path / "path")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "tflite fp32: a package that is installed cannot be imported: libgone.so: cannot open" in done.stdout
    assert done.stdout.splitlines()[-1] == "reference"
    assert "tflite_runtime" not in done.stdout


def test_notice_is_dropped_and_other_lines_pass(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    from edgekd.targets.tflite import _session

    _session._said.clear()
    with _session._without_notice():
        os.write(2, b"INFO: " + _session.NOTICE + b"\nWARNING: something else\n")
    assert capfd.readouterr().err == "WARNING: something else\n"
    assert _session._said.is_set()


def test_fp16_file_holds_half_the_weights() -> None:
    pytest.importorskip("litert_torch")
    sizes = {}
    for precision in ("fp32", "fp16"):
        build = bundles.built("tflite", precision)
        sizes[precision] = len(build.bundle.file(build.artifact, "model.tflite"))
    assert sizes["fp16"] < 0.8 * sizes["fp32"]


def test_throughput_lends_an_interpreter_a_thread_and_latency_one_in_all() -> None:
    pytest.importorskip("litert_torch")
    target = load_target("tflite")
    build = bundles.built("tflite", "fp32")
    with contextlib.closing(target.load(build.bundle, build.artifact, mode="throughput", threads=2)) as it:
        assert it.parallel == 2
        with it._interpreter() as first, it._interpreter() as second:  # one alone would wait for ever
            assert first is not second
    with contextlib.closing(target.load(build.bundle, build.artifact, threads=2)) as it:
        assert it.parallel == 1
        with it._interpreter():
            waiting = threading.Thread(target=it.infer, args=(bundles.pixels(1),))
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
        waiting.join(20)
        assert not waiting.is_alive()
