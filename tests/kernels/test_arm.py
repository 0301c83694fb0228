"""The kernels cross-compiled for 64-bit ARM: what the file needs, and under emulation the bits of this processor.

Opt-in, `make test-arm`: wants `aarch64-linux-gnu-g++` and `qemu-aarch64-static` (Debian: g++-aarch64-linux-gnu,
qemu-user-static).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CROSS, EMULATOR, SYSROOT = "aarch64-linux-gnu-g++", "qemu-aarch64-static", "/usr/aarch64-linux-gnu"
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"]
NEWEST_GLIBC = (2, 31)  # JetPack 5

pytestmark = [
    pytest.mark.arm,
    pytest.mark.slow,
    pytest.mark.skipif("EDGEKD_TEST_ARM" not in os.environ, reason="opt-in: make test-arm"),
    pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"no {CROSS}"),
]


def _driver(folder: Path, compiler: str) -> Path:
    program = folder / compiler
    tests = [ROOT / "tests" / "kernels" / name for name in ("sanitize.cc", "sanitize_letterbox.cc")]
    sources = [*sorted((ROOT / "kernels").glob("*.cc")), *tests]
    subprocess.run([compiler, *FLAGS, "-I", ROOT / "kernels", *sources, "-o", program], check=True)
    return program


@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR}")
def test_every_kernel_has_the_same_bits_on_arm(tmp_path) -> None:
    """Random and hostile input, plain code and NEON; the digests of all results are compared."""
    here = subprocess.run([_driver(tmp_path, "g++"), "digest"], capture_output=True, text=True, check=True)
    command = [EMULATOR, "-L", SYSROOT, _driver(tmp_path, CROSS), "digest"]
    there = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert there.returncode == 0, there.stderr[-2000:]
    digest, instructions = there.stdout.splitlines()[0].split()
    assert instructions == "neon"
    assert digest == here.stdout.split()[0]


def test_the_library_needs_nothing_but_an_old_glibc(tmp_path) -> None:
    command = [sys.executable, str(ROOT / "kernels" / "build_aarch64.py"), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    library = tmp_path / "_native.abi3.so"
    read = subprocess.run([f"{CROSS[:-3]}objdump", "-p", library], capture_output=True, text=True, check=True).stdout
    assert "elf64-littleaarch64" in read
    assert set(re.findall(r"NEEDED +(\S+)", read)) <= {"libc.so.6", "libm.so.6", "ld-linux-aarch64.so.1"}
    versions = [tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", read)]
    assert max(versions) <= NEWEST_GLIBC


def test_without_a_compiler_it_says_what_to_install(tmp_path) -> None:
    bare = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys, importlib.util as u; u.find_spec = lambda *a: None; sys.path.insert(0, 'kernels'); "
    code += "import build_aarch64; build_aarch64.compiler()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "apt install g++-aarch64-linux-gnu" in done.stderr
