"""Build recipe of `edgekd._native`, the compiled kernels: cffi reads the declarations out of the C header itself.

`setup.py` names it; a C++ compiler is all a source build needs. Without one the installation goes on (`optional`), and
`edgekd.native` computes with the NumPy reference.
"""

from pathlib import Path

import cffi

FOLDER = Path(__file__).resolve().parent
SOURCES = sorted(path.name for path in FOLDER.glob("*.cc"))
HEADERS = sorted(path.name for path in FOLDER.glob("*.h"))
# No contraction: a fused multiply-add rounds once where the definition rounds twice; -ffast-math is out for the same.
# No trapping maths: nobody looks at floating-point exceptions, so a division may be done for a lane that drops it.
FLAGS = [
    "-std=c++17", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno", "-fvisibility=hidden",
    "-fno-exceptions", "-fno-rtti", "-g0",
]  # fmt: skip


def declarations(header: str) -> str:
    """Return the C declarations of a header: without preprocessor lines and the braces of `extern "C"`."""
    inside = header[header.index('extern "C" {') : header.rindex("#ifdef __cplusplus")]
    return "\n".join(line for line in inside.splitlines() if not line.startswith(("#", "extern")))


ffi = cffi.FFI()
ffi.cdef(declarations((FOLDER / "edgekd_kernels.h").read_text(encoding="utf-8")))
ffi.set_source(
    "edgekd._native",
    '#include "edgekd_kernels.h"',
    source_extension=".cpp",
    sources=[f"kernels/{name}" for name in SOURCES],
    depends=[f"kernels/{name}" for name in HEADERS],
    include_dirs=["kernels"],
    extra_compile_args=FLAGS,
    py_limited_api=True,
    language="c++",
    optional=True,
)
