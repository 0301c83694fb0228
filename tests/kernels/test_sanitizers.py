"""The C++ sources under the address, undefined-behaviour and thread sanitizers, without Python around them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"]


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize(("sanitizers", "threads"), [("address,undefined", []), ("thread", ["4"])])
def test_kernels_on_hostile_input_leave_the_sanitizers_silent(tmp_path, sanitizers, threads) -> None:
    program = tmp_path / "sanitize"
    sources = [*sorted((ROOT / "kernels").glob("*.cc")), *sorted((ROOT / "tests" / "kernels").glob("sanitize*.cc"))]
    flags = [*FLAGS, f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-I", str(ROOT / "kernels")]
    built = subprocess.run([COMPILER, *flags, *sources, "-o", program], capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no -fsanitize={sanitizers}: {built.stderr.splitlines()[0]}")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program, *threads], capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]
