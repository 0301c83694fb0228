"""What the CUDA kernels take of a multiprocessor: registers, shared memory, spills, compiled for Orin (sm_87)."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

from edgekd.kernels.build_fatbin import FLAGS, SOURCE
from machine import conditions, write

ARCHITECTURE = "sm_87"


def resources(report: str) -> dict[str, dict[str, int]]:
    """Return the numbers of each kernel in what `ptxas -v` wrote."""
    kernels = {}
    for part in report.split("Compiling entry function '")[1:]:
        stack, stores, loads = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", part)
        shared = re.search(r"(\d+) bytes smem", part)
        kernels[part.split("'")[0]] = {
            "registers": int(re.findall(r"Used (\d+) registers", part)[0]),
            "shared_bytes": int(shared[1]) if shared else 0,
            "stack_bytes": int(stack),
            "spill_store_bytes": int(stores),
            "spill_load_bytes": int(loads),
        }
    return dict(sorted(kernels.items()))


def main() -> int:
    """Compile, print a table, write the JSON."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        command = ["nvcc", *FLAGS, f"-arch={ARCHITECTURE}", "-Xptxas", "-v", "-cubin", str(SOURCE), "-o", cubin.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            sys.stderr.write("no nvcc: install a CUDA toolkit and put its bin/ on PATH\n")
            return 4
    if done.returncode:
        sys.stderr.write(done.stderr)
        return 1
    kernels = resources(done.stderr + done.stdout)
    for name, values in kernels.items():
        print(f"{name:30s} {values['registers']:3d} registers {values['shared_bytes']:6d} bytes shared")
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.findall(r"release .*", version)[0]
    result = {**conditions(), "architecture": ARCHITECTURE, "compiler": version, "flags": FLAGS, "kernels": kernels}
    print(f"wrote {write('cuda_resources', result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
