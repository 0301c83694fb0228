"""What a board is: the facts that a flash checks before it sends a byte. Reads only."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

from .. import _cuda_images
from .._target import load_target, target_names

NVPMODEL = ("nvpmodel", "-q")
SECONDS = 10


def facts(root: Path, system: Path = Path("/")) -> dict[str, Any]:
    """Return versions, room and clock of this board. What it does not have, or does not tell, is None.

    Args:
        root: where the models are or will be; its nearest existing folder counts.
        system: "/", or the folder that stands for it.
    """
    import edgekd

    place = root
    while not place.is_dir():
        place = place.parent
    disk = os.statvfs(place)
    return {
        "edgekd": edgekd.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "board": _text(system / "proc/device-tree/model"),
        "l4t": _l4t(system),
        "tensorrt": _tensorrt(),
        "sm": _capability(),
        "power_mode": _command(NVPMODEL),
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "ram_available_bytes": _available(system),
        "writable": os.access(place, os.W_OK | os.X_OK),
        "time": time.time(),
        "targets": {name: load_target(name).probe() for name in target_names()},
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _l4t(system: Path) -> str | None:
    """Return "36.4.0" from "# R36 (release), REVISION: 4.0, ..."."""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", _text(system / "etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None


def _capability() -> str | None:
    """Return the first GPU's, such as "87"; the driver's, since the nvidia-smi of a Jetson says "[N/A]"."""
    found = _cuda_images.capabilities()
    return str(found[0]) if found else None


def _tensorrt() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("tensorrt")
    except metadata.PackageNotFoundError:
        return None


def _command(words: tuple[str, ...]) -> str | None:
    """Return the last line that a program prints, or None if it is not there or fails."""
    import shutil
    import subprocess

    if shutil.which(words[0]) is None:
        return None
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1].strip() if lines else None


def _available(system: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(system / "proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else None
