"""OpenVINO against the conformance suite, and what only OpenVINO does."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from edgekd._target import load_target
from edgekd.errors import SessionError, TargetUnavailableError, UsageError

from ..conformance import bundles
from ..conformance.predict import RunnableTarget

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
