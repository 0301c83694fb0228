"""Cross-compile the kernels for 64-bit ARM: `_native.abi3.so` for any CPython from 3.10 on.

    python kernels/build_aarch64.py OUT_DIR

The compiler is $CXX_AARCH64, else Debian's `aarch64-linux-gnu-g++`, else `python -m ziglang c++` if that is installed.
The C++ library is linked in, so that the file needs nothing but glibc 2.31 (JetPack 5) or newer.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from build_cffi import FLAGS, FOLDER, SOURCES, ffi


def compiler() -> list[str]:
    """Return the command of a C++ compiler for aarch64, or end with what to install."""
    if os.environ.get("CXX_AARCH64"):
        return shlex.split(os.environ["CXX_AARCH64"])
    if shutil.which("aarch64-linux-gnu-g++"):
        return ["aarch64-linux-gnu-g++"]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu.2.31"]
    raise SystemExit(
        "no C++ compiler for aarch64: apt install g++-aarch64-linux-gnu, or pip install ziglang, or set CXX_AARCH64"
    )


def build(folder: Path) -> Path:
    """Compile and link; return the path of the library."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "_native.abi3.so"
    with tempfile.TemporaryDirectory() as scratch:
        binding = Path(scratch) / "_native.cpp"
        ffi.emit_c_code(str(binding))
        command = [*compiler(), *FLAGS, "-DPy_LIMITED_API=0x030A0000", "-shared", "-fPIC", "-s"]
        command += ["-static-libstdc++", "-static-libgcc", "-I", str(FOLDER), "-I", sysconfig.get_paths()["include"]]
        command += [str(binding), *(str(FOLDER / name) for name in SOURCES), "-o", f"{library}.partial"]
        subprocess.run(command, check=True)
    Path(f"{library}.partial").replace(library)
    return library


def main() -> None:
    """Build into the folder that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    print(build(parser.parse_args().folder))


if __name__ == "__main__":
    main()
