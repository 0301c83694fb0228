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
TESTS = ROOT / "tests" / "kernels"
EMULATED = ["-Wno-unknown-pragmas", "-DEDGEKD_EMULATE_THREADS", "-I", str(TESTS / "emulation")]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")]


@pytest.mark.parametrize(("sanitizers", "threads"), [("address,undefined", []), ("thread", ["4"])])
def test_kernels_on_hostile_input_leave_the_sanitizers_silent(tmp_path, sanitizers, threads) -> None:
    sources = [*sorted((ROOT / "kernels").glob("*.cc")), TESTS / "sanitize.cc", TESTS / "sanitize_letterbox.cc"]
    _assert_silent(tmp_path, sanitizers, sources, [], threads)


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_cuda_kernels_on_real_threads_leave_the_sanitizers_silent(tmp_path, sanitizers) -> None:
    _assert_silent(tmp_path, sanitizers, [TESTS / "sanitize_cuda.cc"], EMULATED, ["6"])


def _assert_silent(
    folder: Path, sanitizers: str, sources: list[Path], options: list[str], arguments: list[str]
) -> None:
    program = folder / "sanitize"
    flags = [*FLAGS, f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", *options, "-I", str(ROOT / "kernels")]
    built = subprocess.run([COMPILER, *flags, *sources, "-o", program], capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no -fsanitize={sanitizers}: {built.stderr.splitlines()[0]}")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-4000:]
