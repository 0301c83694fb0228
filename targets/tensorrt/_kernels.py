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
    kept = _place(f"sm{capability}.fatbin")
    if not kept.is_file():
        _compile(build_fatbin.command(kept.with_suffix(".partial"), [capability]), capability, kept)
    return kept.read_bytes()


def ptx(capability: int) -> bytes:
    """Return the kernels as PTX for GPUs from a compute capability on; arguments and errors as `image`."""
    kept = _place(f"compute{capability}.ptx")
    if not kept.is_file():
        _compile(build_fatbin.ptx_command(kept.with_suffix(".partial"), capability), capability, kept)
    return kept.read_bytes()


def _place(name: str) -> Path:
    """Return where compiled kernels of these sources are kept."""
    sources: Path = build_fatbin.SOURCE.parent
    content = b"".join(path.read_bytes() for path in sorted([*sources.glob("*.h"), *sources.glob("*.cu")]))
    return user_folder("kernels") / f"{hashlib.sha256(content).hexdigest()[:16]}-{name}"


def _compile(command: list[str], capability: int, out: Path) -> None:
    nvcc = shutil.which("nvcc") or (str(TOOLKIT) if TOOLKIT.is_file() else None)
    if nvcc is None:
        instead = "python kernels/build_fatbin.py edgekd.fatbin"
        if out.suffix == ".ptx":
            instead = " ".join(build_fatbin.ptx_command(Path("edgekd.ptx"), capability))
        raise TargetUnavailableError(
            f"edgekd's CUDA kernels are not compiled for SM{capability} and there is no nvcc: "
            "sudo apt-get install cuda-nvcc-12-6 (JetPack 6; other releases have their own number), or compile on "
            f"another machine, {instead}, and put the file at {out}"
        )
    partial = out.with_suffix(".partial")
    done = subprocess.run([nvcc, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetUnavailableError(f"{nvcc} cannot compile the kernels for SM{capability}: {done.stderr.strip()}")
    try:
        write_file(out, [partial.read_bytes()])
    except BundleError as error:
        raise TargetUnavailableError(f"cannot keep the compiled kernels: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
