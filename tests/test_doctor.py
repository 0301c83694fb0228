"""`doctor`: one screen that names reasons and commands."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgekd
from edgekd import _doctor
from edgekd._target import load_target, target_names
from edgekd.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def test_doctor_reports_every_target_as_it_probes() -> None:
    health = edgekd.doctor()
    assert [item.name for item in health.targets] == list(target_names())
    for item in health.targets:
        target = load_target(item.name)
        assert (item.cannot_run, item.cannot_build) == (target.probe(), target.probe_build())
        assert item.precisions == target.PRECISIONS


def test_doctor_names_versions_of_this_installation() -> None:
    health = edgekd.doctor()
    assert health.edgekd == edgekd.__version__
    assert health.packages["numpy"] == np.__version__
    assert health.kernels == _doctor.ops.implementation()
    assert health.cores >= 1
    assert "dev" not in health.extras


@pytest.mark.parametrize(
    ("capability", "image"),
    [
        (87, "machine code sm_87"),  # Orin
        (110, "machine code sm_110"),  # Thor
        (103, "machine code sm_100"),  # later of the same major number
        (72, "machine code sm_72 (in fatbins built with CUDA 12)"),  # Xavier
        (130, "PTX compute_121, compiled by the driver"),
        (53, "none: the kernels are compiled for SM72, SM75"),  # the first Nano
    ],
)
def test_what_a_gpu_loads_of_the_cuda_kernels(capability: int, image: str) -> None:
    assert _doctor._cuda_images.image_for(capability).startswith(image)


def test_screen_says_what_each_gpu_loads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_doctor._cuda_images, "capabilities", lambda: (87, 90))
    main(["doctor"])
    assert "on the GPU SM87: machine code sm_87; SM90: machine code sm_90" in capsys.readouterr().out


class Driver:
    """Answers as the CUDA driver does; two GPUs, 8.7 and 9.0."""

    status = 0

    def cuInit(self, _flags: int) -> int:
        return self.status

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = 40 + index
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {40: {75: 8, 76: 7}, 41: {75: 9, 76: 0}}[device.value][attribute]
        return 0


def test_driver_is_asked_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _name: Driver())
    assert _doctor._cuda_images.capabilities() == (87, 90)
    monkeypatch.setattr(Driver, "status", 100)  # CUDA_ERROR_NO_DEVICE
    assert _doctor._cuda_images.capabilities() == ()


def test_package_that_is_missing_is_listed_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = _doctor._version
    monkeypatch.setattr(_doctor, "_version", lambda name: None if name == "cryptography" else real(name))
    assert edgekd.doctor().extras["flash"] == ("cryptography",)
    assert main(["doctor"]) == 0
    assert "cryptography: pip install 'edgekd[flash]'" in capsys.readouterr().out


def test_screen_names_the_reason_a_target_cannot_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = target_names()[0]
    monkeypatch.setattr(load_target(name), "probe", lambda: "its runtime is missing: pip install 'edgekd[some]'")
    main(["doctor"])
    out = capsys.readouterr().out
    assert "cannot run: its runtime is missing: pip install 'edgekd[some]'" in out
    assert len(out.splitlines()) <= 40, "one screen"
    assert max(map(len, out.splitlines())) <= 110


def test_command_returns_4_when_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in target_names():
        monkeypatch.setattr(load_target(name), "probe", lambda: "no")
    assert main(["doctor"]) == 4
    assert main(["doctor", "--json"]) == 4
    assert '"can_run": false' in capsys.readouterr().out


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert {item["name"] for item in report["targets"]} == set(target_names())
    assert report["edgekd"] == edgekd.__version__


def test_requirements_of_other_platforms_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    lines = [
        "numpy>=1.24",
        "tomli>=2; python_version < '3.0'",
        "elsewhere>=1; platform_machine == 'pdp11' and extra == 'tensorrt'",
        f"here[gpu]>=1,<2 ; platform_machine == '{_doctor.platform.machine()}' and extra == \"tensorrt\"",
        "pytest; extra == 'dev'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: lines)
    assert _doctor._requirements() == {"": ["numpy"], "tensorrt": ["here"]}


X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu sse avx2 avx512_vnni fma\n"
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd asimdhp asimddp\n\nModel\t\t: Some Board\n"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (X86, "Some CPU @ 2 GHz", ("fma", "avx2", "avx512_vnni")),
        (ARM, "Some Board", ("asimd", "asimdhp", "asimddp")),
    ],
)
def test_cpu_features_are_read_on_x86_and_arm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, name: str, flags: tuple[str, ...]
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr(_doctor, "CPUINFO", file)
    assert _doctor._cpu() == (name, flags)


def test_cpu_without_proc_has_a_name_and_no_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_doctor, "CPUINFO", tmp_path / "missing")
    name, flags = _doctor._cpu()
    assert name
    assert flags == ()


def _smi(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    import shutil

    def run(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", run)
    return _doctor._nvidia()


def test_gpus_and_their_driver_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "NVIDIA A2, 580.65.06, 15356 MiB, 8.6\nNVIDIA L4, 580.65.06, 23034 MiB, 8.9\n"
    found = _smi(monkeypatch, SimpleNamespace(returncode=0, stdout=rows, stderr=""))
    assert found == [
        "NVIDIA A2, 15356 MiB, SM86, driver 580.65.06",
        "NVIDIA L4, 23034 MiB, SM89, driver 580.65.06",
    ]


def test_gpu_of_a_jetson_has_no_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(returncode=0, stdout="Orin (nvgpu), 540.4.0, [N/A], [N/A]\n", stderr="")
    assert _smi(monkeypatch, answer) == ["Orin (nvgpu), driver 540.4.0"]


def test_driver_that_does_not_answer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=9, stdout="", stderr="couldn't communicate with the NVIDIA driver\n")
    assert _smi(monkeypatch, failed) == ["nvidia-smi failed: couldn't communicate with the NVIDIA driver"]
    assert "does not answer" in _smi(monkeypatch, subprocess.TimeoutExpired("nvidia-smi", 10))[0]


def test_nvidia_smi_when_it_says_nothing_or_something_else_then_doctor_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = SimpleNamespace(returncode=-11, stdout="", stderr="")
    assert _smi(monkeypatch, crashed) == ["nvidia-smi failed: exit code -11, without a word"]
    nothing = SimpleNamespace(returncode=0, stdout="No devices were found\n", stderr="")
    assert _smi(monkeypatch, nothing) == ["nvidia-smi: No devices were found"]


def test_jetson_release_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil

    file = tmp_path / "nv_tegra_release"
    file.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081\n# more\n")
    monkeypatch.setattr(_doctor, "TEGRA", file)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert _doctor._nvidia() == ["# R36 (release), REVISION: 4.3, GCID: 38968081"]
    file.write_text("")  # what a container's mount leaves of a file that is not there
    assert _doctor._nvidia() == []
