"""benchmarks/gpu.sh on a machine without a GPU: which interpreter it takes, and what it says before anything runs."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell script")
LACKING = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:3]) + "\\n")
missing = os.environ["MISSING"].split()
if sys.argv[1] == "-c" and "import_module" in sys.argv[2]:
    print("".join(f" {{name}}" for name in sys.argv[3:] if name in missing), end="")
elif sys.argv[1] == "-c" and "setuptools" in sys.argv[2]:
    sys.exit("setuptools" in missing)
elif sys.argv[1] == "-c":
    sys.exit("edgekd" in missing and not os.path.exists({log!r} + ".installed"))
elif sys.argv[1] == "benchmarks/cuda_kernels.py":
    os.makedirs("benchmarks/results", exist_ok=True)
    open("benchmarks/results/cuda_kernels.json", "w").close()
elif sys.argv[1:3] == ["-m", "pip"] and "edgekd" in missing:
    open({log!r} + ".installed", "w").close()
"""


class Machine:
    """A checkout with a GPU, nvcc and an interpreter that are none; `log` has what the interpreter was asked."""

    def __init__(self, folder: Path) -> None:
        self.root, self.log = folder / "checkout", folder / "log"
        for name in ("nvidia-smi", "nvcc", "compute-sanitizer"):
            self.script(folder / "bin" / name, "#!/bin/sh\n")
        (self.root / "benchmarks").mkdir(parents=True)
        text = (ROOT / "benchmarks" / "gpu.sh").read_text()
        self.script(self.root / "benchmarks" / "gpu.sh", text)
        self.environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}

    @staticmethod
    def script(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def interpreter(self, path: Path) -> Path:
        return self.script(path, LACKING.format(python=sys.executable, log=str(self.log)))

    def run(self, missing: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "benchmarks" / "gpu.sh"], capture_output=True, text=True, check=False,
            env={**self.environment, "MISSING": missing, **environment},
        )  # fmt: skip

    def asked(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(("-m ", "benchmarks/"))]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_takes_the_environment_of_the_checkout_and_installs_nothing_there(machine: Machine) -> None:
    machine.interpreter(machine.root / ".venv" / "bin" / "python")
    done = machine.run()
    assert done.returncode == 0, done.stdout + done.stderr
    steps = ["-m pytest", "benchmarks/cuda_kernels.py", "benchmarks/cuda_session.py", "benchmarks/distill.py run"]
    assert [line.strip() for line in machine.asked()] == steps


def test_it_installs_the_checkout_where_it_is_not(machine: Machine, tmp_path: Path) -> None:
    python = machine.interpreter(tmp_path / "python")
    done = machine.run("edgekd", PYTHON=str(python))
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.asked()[:2] == ["-m pip", "-m pytest"]


def test_it_does_not_try_to_install_with_a_setuptools_that_cannot(machine: Machine, tmp_path: Path) -> None:
    done = machine.run("edgekd setuptools", PYTHON=str(machine.interpreter(tmp_path / "python")))
    assert (done.returncode, done.stdout.count("\n")) == (4, 1)
    assert "-m pip install 'setuptools>=77'" in done.stdout
    assert machine.asked() == []


def test_what_every_step_needs_is_named_in_one_line_before_anything_runs(machine: Machine, tmp_path: Path) -> None:
    python = machine.interpreter(tmp_path / "python")
    done = machine.run("pytest_timeout", PYTHON=str(python))
    assert done.returncode == 4
    told = "pip install numpy cffi pytest pytest-timeout hypothesis"
    assert done.stdout == f"nothing can run: {python} cannot import pytest_timeout. Type: {python} -m {told}\n"
    assert machine.asked() == []


def test_modules_are_really_imported(machine: Machine, tmp_path: Path) -> None:
    """A real interpreter, without what is installed for it."""
    bare = machine.script(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    done = machine.run(PYTHON=str(bare))
    assert done.returncode == 4
    assert "cannot import numpy cffi pytest pytest_timeout hypothesis hypothesis.extra.numpy. " in done.stdout


def test_a_step_that_lacks_something_is_left_out_and_the_rest_runs(machine: Machine, tmp_path: Path) -> None:
    done = machine.run("pycuda.driver", PYTHON=str(machine.interpreter(tmp_path / "python")))
    assert done.returncode == 1
    assert "step session is left out" in done.stdout.splitlines()[0]
    assert "cannot import pycuda.driver. " in done.stdout.splitlines()[0]
    steps = ["-m pytest", "benchmarks/cuda_kernels.py", "benchmarks/distill.py run"]
    assert [line.strip() for line in machine.asked()] == steps


@pytest.mark.skipif(shutil.which("compute-sanitizer", path="/usr/bin:/bin") is not None, reason="it is on every PATH")
def test_sanitizer_when_it_is_missing_then_it_is_named_first_and_the_exit_code_is_one(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "compute-sanitizer").unlink()
    done = machine.run(PYTHON=str(machine.interpreter(tmp_path / "python")))
    assert done.returncode == 1
    assert "memcheck, racecheck, synccheck and session-memcheck are left out" in done.stdout.splitlines()[0]
    assert len(machine.asked()) == 4


def test_results_when_steps_have_written_some_then_copies_lie_beside_the_logs(machine: Machine, tmp_path: Path) -> None:
    old = machine.root / "benchmarks" / "results" / "old.json"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))
    machine.run(PYTHON=str(machine.interpreter(tmp_path / "python")), OUT=str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["cuda_kernels.json"]


@pytest.mark.parametrize("missing", ["", "pycuda.driver"])
def test_session_when_there_is_a_sanitizer_then_a_few_frames_run_under_memcheck(
    machine: Machine, tmp_path: Path, missing: str
) -> None:
    watched = tmp_path / "watched"
    machine.script(tmp_path / "bin" / "compute-sanitizer", f'#!/bin/sh\necho "$@" >> {watched}\n')
    python = machine.interpreter(tmp_path / "python")
    machine.run(missing, PYTHON=str(python))
    lines = [line for line in watched.read_text().splitlines() if "cuda_session" in line]
    assert len(lines) == (0 if missing else 1)
    for line in lines:
        assert line.startswith("--tool memcheck --error-exitcode 9 ")
        assert line.endswith(f"{python} benchmarks/cuda_session.py --check --engine copy")


def test_an_interpreter_that_does_not_start_is_named(machine: Machine) -> None:
    done = machine.run(PYTHON="/nowhere/python")
    assert done.returncode == 4
    assert "/nowhere/python cannot import anything: it does not start" in done.stdout


def test_a_result_is_written_without_the_version_of_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    described: Any = importlib.import_module("machine")
    versions = described.conditions("no-such-distribution")["versions"]
    assert versions["no-such-distribution"] is None
    assert versions["numpy"]
