"""Machine code of our CUDA kernels for this GPU: kept from before, or compiled now."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from edgekd.kernels import build_fatbin

from edgekd._container import write_file
from edgekd.errors import BundleError, TargetUnavailableError

from ._store import user_folder

TOOLKIT = Path("/usr/local/cuda/bin/nvcc")  # where JetPack puts it, mostly not on PATH


def image(capability: int) -> bytes:
    """Return a cubin or fatbin that the GPU can load.

    Args:
        capability: compute capability times ten.

    Raises:
        TargetUnavailableError: there is none and no nvcc; says what to type.
    """
    sources: Path = build_fatbin.SOURCE.parent
    content = b"".join(path.read_bytes() for path in sorted([*sources.glob("*.h"), *sources.glob("*.cu")]))
    kept = user_folder("kernels") / f"{hashlib.sha256(content).hexdigest()[:16]}-sm{capability}.fatbin"
    if not kept.is_file():
        _compile(capability, kept)
    return kept.read_bytes()


def _compile(capability: int, out: Path) -> None:
    nvcc = shutil.which("nvcc") or (str(TOOLKIT) if TOOLKIT.is_file() else None)
    if nvcc is None:
        raise TargetUnavailableError(
            f"edgekd's CUDA kernels are not compiled for SM{capability} and there is no nvcc: "
            "sudo apt-get install cuda-nvcc-12-6 (JetPack 6; other releases have their own number), or compile on "
            f"another machine, python kernels/build_fatbin.py edgekd.fatbin, and put the file at {out}"
        )
    partial = out.with_suffix(".partial")
    command = [nvcc, *build_fatbin.command(partial, [capability])[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetUnavailableError(f"{nvcc} cannot compile the kernels for SM{capability}: {done.stderr.strip()}")
    try:
        write_file(out, [partial.read_bytes()])
    except BundleError as error:
        raise TargetUnavailableError(f"cannot keep the compiled kernels: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
