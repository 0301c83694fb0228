"""The NEON code where no Arm processor is: compiled against an emulation of its intrinsics, under the sanitizers."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "kernels"
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="on Arm the other tests run NEON itself")
def test_letterbox_with_emulated_neon_gives_the_plain_bits(tmp_path) -> None:
    program = tmp_path / "neon"
    sources = [KERNELS / "host.cc", *sorted(KERNELS.glob("letterbox*.cc")), HERE / "sanitize_letterbox.cc"]
    as_arm = ["-D__aarch64__", "-D__ARM_NEON", "-I", str(HERE / "neon"), "-I", str(KERNELS)]
    command = [COMPILER, *FLAGS, "-fsanitize=address,undefined", *as_arm, *sources, HERE / "neon" / "main.cc"]
    built = subprocess.run([*command, "-o", program], capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no sanitizers: {built.stderr.splitlines()[0]}")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]
