"""OpenVINO against the conformance suite, and what only OpenVINO does."""

from __future__ import annotations

import contextlib
import hashlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from edgekd._target import load_target
from edgekd.errors import SessionError, TargetUnavailableError, UsageError

from ..conformance import bundles
from ..conformance.predict import RunnableTarget

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("openvino")


class TestOpenVINO(RunnableTarget):
    TARGET = "openvino"


def load(precision: str = "fp32", **options: Any) -> Any:
    build = bundles.built("openvino", precision)
    return contextlib.closing(load_target("openvino").load(build.bundle, build.artifact, **options))


class FakeCore:
    """Answers what a machine with an Intel GPU and NPU would."""

    capabilities: ClassVar = {"CPU": ["FP32", "BF16"], "GPU": ["FP32", "FP16"], "NPU": ["FP16", "INT8"]}
    available_devices = ("CPU", "GPU.0", "GPU.1", "NPU")

    def get_property(self, plugin: str, name: str) -> list[str]:
        assert name == "OPTIMIZATION_CAPABILITIES"
        return self.capabilities[plugin]


@pytest.fixture
def session_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    from edgekd.targets.openvino import _session

    monkeypatch.setattr(_session, "_core", FakeCore)
    return _session


@pytest.mark.parametrize(
    ("spelling", "plugin"),
    [
        ("auto", "CPU"), ("AUTO", "CPU"), ("cpu", "CPU"), ("openvino", "CPU"), ("intel", "CPU"), ("intel:cpu", "CPU"),
        ("gpu", "GPU"), ("GPU.0", "GPU.0"), ("intel:gpu", "GPU"), ("intel:GPU.1", "GPU.1"), ("npu", "NPU"),
        ("intel:npu", "NPU"),
    ],
)  # fmt: skip
def test_device_spellings_mean_openvinos_plugins(session_module: Any, spelling: str, plugin: str) -> None:
    assert session_module._plugin(spelling) == plugin


def test_device_number_that_is_not_there_is_unavailable(session_module: Any) -> None:
    with pytest.raises(TargetUnavailableError, match=r"no GPU\.7 here, only CPU, GPU\.0, GPU\.1, NPU"):
        session_module._plugin("gpu.7")


@pytest.mark.parametrize(
    ("plugin", "precision", "hint"),
    [
        ("CPU", "fp32", "f32"),
        ("CPU", "fp16", "f32"),
        ("GPU", "fp32", "f32"),
        ("GPU", "fp16", "f16"),
        ("NPU", "fp16", "f16"),
    ],
)
def test_arithmetic_is_asked_for_and_never_bfloat16(
    session_module: Any, plugin: str, precision: str, hint: str
) -> None:
    assert session_module._hint(plugin, precision) == hint


def test_fp32_artifact_on_a_device_without_fp32_says_what_to_build(session_module: Any) -> None:
    with pytest.raises(UsageError, match=r"NPU computes in FP16, INT8.*--precision fp16"):
        session_module._hint("NPU", "fp32")


def test_gpu_that_openvino_does_not_see_is_unavailable() -> None:
    import openvino

    if any(item.startswith("GPU") for item in openvino.Core().available_devices):
        pytest.skip("there is an Intel GPU here")
    with pytest.raises(TargetUnavailableError, match=r"sees no GPU here, only CPU.*intel-opencl-icd"):
        load(device="gpu")


def test_threads_on_another_device_than_the_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekd.targets.openvino import _session

    monkeypatch.setattr(_session, "_plugin", lambda _: "GPU")
    with pytest.raises(UsageError, match="threads=2 is for the CPU"):
        load(threads=2)


def test_fp32_computes_in_fp32_even_where_the_cpu_has_bfloat16() -> None:
    with load() as session:
        assert session.info.compute == "fp32"


def test_requests_are_kept_one_a_concurrent_caller() -> None:
    with load() as session:
        for _ in range(3):
            session.infer(bundles.pixels(2))
        assert len(session._idle) == 1


def test_cut_weights_raise_session_error() -> None:
    build = bundles.built("openvino", "fp32")
    name = build.artifact.files["model.bin"]
    cut = build.bundle.replace(add={name: bytes(build.bundle.chunk(name))[:100]})
    with pytest.raises(SessionError, match="cannot start this artifact on CPU"):
        load_target("openvino").load(cut, build.artifact)


def test_failing_engine_raises_session_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    with load() as session:
        broken = SimpleNamespace(set_input_tensor=lambda _: None, set_tensor=lambda *_: None, infer=fail)
        monkeypatch.setattr(session, "_idle", [broken])
        with pytest.raises(SessionError, match="OpenVINO failed on cpu: out of memory"):
            session.infer(bundles.pixels(1))
        assert len(session.infer(bundles.pixels(1))) == 2, "the broken request is not used again"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is compiled and what is taken from a cache."""
    from edgekd.targets.openvino import _session

    real, noted = _session._core(), []

    class Core:
        def __getattr__(self, name: str) -> Any:
            noted.append(name)
            return getattr(real, name)

    monkeypatch.setattr(_session, "_core", Core)
    return noted


def test_compiled_model_that_is_kept_is_not_compiled_again(compiled: list[str], tmp_path: Path) -> None:
    pixels = bundles.pixels(2)
    with load(cache=tmp_path) as session:
        expected, info = session.infer(pixels), session.info
    assert "compile_model" in compiled
    compiled.clear()
    with load(cache=tmp_path) as session:
        found = session.infer(pixels)
        assert session.info == info
    assert "compile_model" not in compiled
    assert "import_model" in compiled
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_settings_and_other_networks_are_other_files(tmp_path: Path) -> None:
    for options in ({}, {"threads": 1}, {"mode": "throughput"}, {"precision": "fp16"}):
        with load(**options, cache=tmp_path) as session:  # type: ignore[arg-type]
            session.infer(bundles.pixels(1))
    assert len(list(tmp_path.glob("*.openvino"))) == 4
    build = bundles.built("openvino", "fp32", oriented=True)
    load_target("openvino").load(build.bundle, build.artifact, cache=tmp_path).close()
    assert len(list(tmp_path.glob("*.openvino"))) == 5


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other key", "right hash of garbage"])
def test_damaged_cache_is_compiled_again_and_repaired(
    compiled: list[str], tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with load(cache=tmp_path) as session:
        expected = session.infer(bundles.pixels(1))
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    head, _, blob = whole.partition(b"\n")
    garbage = b"garbage" * 100
    told = {**json.loads(head), "sha256": hashlib.sha256(garbage).hexdigest()}
    kept.write_bytes({
        "cut": whole[: len(whole) // 2],
        "flipped": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
        "empty": b"",
        "other key": head.replace(b"CPU", b"GPU") + b"\n" + blob,
        "right hash of garbage": json.dumps(told).encode() + b"\n" + garbage,
    }[damage])  # fmt: skip
    compiled.clear()
    with load(cache=tmp_path) as session:
        np.testing.assert_allclose(session.infer(bundles.pixels(1))[1], expected[1], atol=1e-5)
    assert "compile_model" in compiled
    assert "the model is compiled again" in caplog.text
    compiled.clear()
    with load(cache=tmp_path):
        """It is taken."""
    assert "compile_model" not in compiled, "repaired"


def test_throughput_runs_the_rows_of_a_batch_at_once_and_in_order() -> None:
    pixels = bundles.pixels(7)
    with load() as session:
        expected = session.infer(pixels)
        assert session.parallel == 1
    with load(mode="throughput", threads=2) as session:
        assert session.parallel == 2
        found = session.infer(pixels)
        assert len(session._idle) == 2
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_failing_request_of_several_is_waited_for_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []

    def request(name: str, *, fails: bool) -> SimpleNamespace:
        def wait() -> None:
            waited.append(name)
            if fails:
                raise RuntimeError("out of memory")

        return SimpleNamespace(
            set_input_tensor=lambda _: None, set_tensor=lambda *_: None, start_async=lambda: None, wait=wait
        )

    with load(mode="throughput", threads=2) as session:
        monkeypatch.setattr(session, "_idle", [request("good", fails=False), request("bad", fails=True)])
        with pytest.raises(SessionError, match="out of memory"):
            session.infer(bundles.pixels(2))
        assert sorted(waited) == ["bad", "good"]
        assert len(session.infer(bundles.pixels(2))) == 2, "neither is used again"
