"""Machine code of our CUDA kernels for this GPU: kept from before, or compiled now."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.kernels import build_fatbin

from edgekd._container import write_file
from edgekd.errors import BundleError, TargetUnavailableError

from ._store import user_folder

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLKIT = Path("/usr/local/cuda/bin/nvcc")  # where JetPack puts it, mostly not on PATH


def image(capability: int) -> bytes:
    """Return a cubin or fatbin that the GPU can load.

    Args:
        capability: compute capability times ten.

    Raises:
        TargetUnavailableError: there is none and no nvcc, says what to type; or it cannot be compiled, kept or read.
    """
    return _kept(f"sm{capability}.fatbin", capability, lambda out: build_fatbin.command(out, [capability]))


def ptx(capability: int) -> bytes:
    """Return the kernels as PTX for GPUs from a compute capability on; arguments and errors as `image`."""
    return _kept(f"compute{capability}.ptx", capability, lambda out: build_fatbin.ptx_command(out, capability))


def _kept(name: str, capability: int, command: Callable[[Path], list[str]]) -> bytes:
    kept = _place(name)
    try:
        if not kept.is_file():
            _compile(command, capability, kept)
        return kept.read_bytes()
    except (OSError, BundleError) as error:
        raise TargetUnavailableError(f"cannot keep the compiled kernels at {kept}: {error}") from error


def _place(name: str) -> Path:
    """Return where kernels of these sources, compiled with these flags, are kept."""
    sources: Path = build_fatbin.SOURCE.parent
    content = b"".join(path.read_bytes() for path in sorted([*sources.glob("*.h"), *sources.glob("*.cu")]))
    digest = hashlib.sha256(content + " ".join(build_fatbin.FLAGS).encode()).hexdigest()
    return user_folder("kernels") / f"{digest[:16]}-{name}"


def _compile(command: Callable[[Path], list[str]], capability: int, out: Path) -> None:
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
    with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as own:  # another process may compile the same now
        made = Path(own) / out.name
        done = subprocess.run([nvcc, *command(made)[1:]], capture_output=True, text=True, check=False)
        if done.returncode:
            raise TargetUnavailableError(f"{nvcc} cannot compile the kernels for SM{capability}: {done.stderr.strip()}")
        write_file(out, [made.read_bytes()])
