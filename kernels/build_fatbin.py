"""Compile the CUDA kernels into one fatbin: machine code for every GPU named here, PTX for those to come.

    python kernels/build_fatbin.py edgekd.fatbin
    python kernels/build_fatbin.py edgekd.fatbin --architectures 87

A fatbin needs no CUDA toolkit where it runs: `cuModuleLoad` takes it, kernels are found by name (see edgekd_cuda.h).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "edgekd_cuda.cu"
# No fused multiply-add, divisions and denormals as IEEE says: the bits of the host. No -Werror: on a board it is the
# toolkit of that board, and what another one warns of is no reason not to start; the tests let no warning pass.
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false"]
LIBRARY_FLAGS = ["-shared", "-Xcompiler", "-fPIC", "-cudart", "static"]
# 72, Xavier, is known to the toolkits of CUDA 12 only; 110, Thor, from CUDA 13 on; 87 is Orin.
ARCHITECTURES = (72, 75, 80, 86, 87, 89, 90, 100, 110, 120, 121)


def known() -> list[int]:
    """Return those of ARCHITECTURES that the nvcc of this machine compiles for."""
    listed = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True).stdout
    codes = {int(code) for code in re.findall(r"^sm_(\d+)$", listed, re.MULTILINE)}
    return [architecture for architecture in ARCHITECTURES if architecture in codes]


def command(out: Path, architectures: list[int]) -> list[str]:
    """Return the call of nvcc that writes `out`."""
    code = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures]
    newest = f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}"
    return ["nvcc", *FLAGS, *code, newest, "-fatbin", str(SOURCE), "-o", str(out)]


def ptx_command(out: Path, architecture: int) -> list[str]:
    """Return the call of nvcc that writes PTX for GPUs from one architecture on to `out`."""
    return ["nvcc", *FLAGS, f"-arch=compute_{architecture}", "-ptx", str(SOURCE), "-o", str(out)]


def main(arguments: list[str] | None = None) -> int:
    """Parse, compile, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--architectures", type=int, nargs="+", metavar="SM", help="such as 87; default: all known")
    options = parser.parse_args(arguments)
    if shutil.which("nvcc") is None:
        sys.stderr.write("no nvcc: install a CUDA toolkit and put its bin/ on PATH\n")
        return 4
    possible = known()
    wanted = sorted(options.architectures or possible)
    strange = sorted(set(wanted) - set(possible))
    if strange:
        sys.stderr.write(f"architectures {strange} are not known to this nvcc or to us; possible: {possible}\n")
        return 2
    partial = options.out.with_name(f"{options.out.name}.partial")
    done = subprocess.run(command(partial, wanted), check=False)
    if done.returncode == 0:
        partial.replace(options.out)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
