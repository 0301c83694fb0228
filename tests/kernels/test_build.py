"""The build recipe: one header for C and cffi, and an installation that goes on without a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_function_of_the_header_is_bound_and_defined() -> None:
    native = pytest.importorskip("edgekd._native", reason="the kernels were not compiled")
    header = (ROOT / "kernels" / "edgekd_kernels.h").read_text()
    names = set(re.findall(r"^int(?:32|64)_t (edgekd_\w+)\(", header, re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "kernels").glob("*.cc"))
    defined = set(re.findall(r'^extern "C" int(?:32|64)_t (edgekd_\w+)\(', sources, re.MULTILINE))
    bound = {name for name in dir(native.lib) if name.startswith("edgekd_")}
    assert names == defined == bound
    assert len(names) >= 9


def _build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    for name in ("edgekd", "kernels", "targets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_without_a_compiler_the_build_goes_on(tmp_path) -> None:
    done = _build(tmp_path, CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    assert "/nonexistent/c++" in done.stdout + done.stderr
    assert list(tmp_path.glob("edgekd/_native*.so")) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
def test_with_a_compiler_there_is_one_extension_for_every_python(tmp_path) -> None:
    done = _build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("edgekd/_native*")] == ["_native.abi3.so"]
