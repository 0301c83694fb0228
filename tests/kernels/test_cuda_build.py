"""nvcc takes the CUDA kernels without a warning, for every GPU, into one fatbin whose kernels are found by name."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from edgekd.kernels import build_fatbin

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "kernels" / "build_fatbin.py"
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def _kernels() -> set[str]:
    """Return the names of all kernels: each definition is extern "C", or its name would be mangled."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kernels").glob("*.cu"))
    names = re.findall(r"__global__ void (?:__launch_bounds__\(.*?\)\s+)?(\w+)\(", sources)
    plain = re.findall(r'^extern "C" __global__ void (?:__launch_bounds__\(.*?\)\s+)?(\w+)\(', sources, re.MULTILINE)
    assert sorted(names) == sorted(plain)
    return set(plain)


def test_every_kernel_is_in_the_table_of_the_header() -> None:
    header = (ROOT / "kernels" / "edgekd_cuda.h").read_text(encoding="utf-8")
    tabled = set()
    for row in re.findall(r"^ \* (edgekd_\w+(?:(?:,| or) _\w+)*) ", header, re.MULTILINE):
        first, *others = re.split(r", | or ", row)
        tabled |= {first, *(first.rpartition("_")[0] + other for other in others)}
    assert tabled == _kernels()


@needs_nvcc
@pytest.mark.parametrize("architectures", [[75, 87], pytest.param([], id="all", marks=pytest.mark.slow)])
def test_fatbin_holds_every_kernel_by_name(tmp_path, architectures) -> None:
    out = tmp_path / "edgekd.fatbin"
    done = _run(sys.executable, SCRIPT, out, *(["--architectures", *architectures] if architectures else []))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    machine_code, ptx = _entries(out.read_bytes())
    assert sorted(machine_code) == (architectures or build_fatbin.known())
    assert ptx == [max(machine_code)]
    for names in machine_code.values():
        assert names == _kernels()


def _entries(fatbin: bytes) -> tuple[dict[int, set[str]], list[int]]:
    """Return the kernels in each ELF file of a fatbin, by architecture, and the architectures of its PTX."""
    magic, version, at, size = struct.unpack_from("<IHHQ", fatbin)
    assert (magic, version, at + size) == (0xBA55ED50, 1, len(fatbin))
    machine_code, ptx = {}, []
    while at < len(fatbin):
        kind, _, header, size, architecture = struct.unpack_from("<HHIQ12xI", fatbin, at)
        body = fatbin[at + header : at + header + size]
        if kind == 1:
            ptx.append(architecture)
        else:
            assert (kind, body[:4]) == (2, b"\x7fELF")
            machine_code[architecture] = {name.decode() for name in re.findall(rb"\.text\.(\w+)", body)}
        at += header + size
    return machine_code, ptx


@needs_nvcc
def test_library_links_without_a_gpu(tmp_path) -> None:
    library = tmp_path / "libedgekd_cuda.so"
    sources = [build_fatbin.SOURCE, ROOT / "benchmarks" / "cuda_device.cu"]
    flags = [*build_fatbin.FLAGS, "-arch=sm_87", *build_fatbin.LIBRARY_FLAGS]
    done = _run("nvcc", *flags, *sources, "-o", library)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    listed = _run("nm", "-D", "--defined-only", library).stdout
    assert {"edgekd_cuda_suppress", "edgekd_cuda_letterbox"} <= set(listed.split())


def test_without_nvcc_the_script_says_what_is_missing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build_fatbin.main([str(tmp_path / "x")]) == 4
    assert "CUDA toolkit" in capsys.readouterr().err


@needs_nvcc
def test_unknown_architecture_is_refused_with_those_possible(tmp_path, capsys) -> None:
    assert build_fatbin.main([str(tmp_path / "x"), "--architectures", "87", "33"]) == 2
    assert "[33]" in capsys.readouterr().err
