"""Which wheels of a folder fit a board: its Python, its processor, its C library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"([A-Za-z0-9._]+)-([^-]+)(?:-\d[^-]*)?-([^-]+)-([^-]+)-([^-]+)\.whl")
OLD_GLIBC = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
OLDEST = (3, 10)
DOWNLOAD = (  # as in docs/flash.md; pip takes only the platforms that are named, not the older ones that would do
    "--only-binary :all: --python-version 3.10 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 "
    "--platform manylinux2014_aarch64 numpy cffi tomli pillow 'ai-edge-litert>=2'"
)

Facts = Mapping[str, Any]
"""What `install_there.probe` returns."""


@dataclass(frozen=True)
class Wheel:
    """One file: the project's name (normalised) and version, and what its name says that it runs on."""

    path: Path
    project: str
    version: str
    pythons: tuple[str, ...]
    abis: tuple[str, ...]
    platforms: tuple[str, ...]

    def fits(self, board: Facts) -> bool:
        """Whether this board's Python takes it."""
        return any(
            _python_fits(python, abi, board) and _platform_fits(platform, board)
            for python in self.pythons
            for abi in self.abis
            for platform in self.platforms
        )


def read_wheels(folder: Path) -> list[Wheel]:
    """Return the wheels in a folder.

    Raises:
        UsageError: it cannot be read, or holds none, or no edgekd.
    """
    try:
        paths = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from error
    found = []
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None:
            raise UsageError(f"{path} is no name of a wheel: NAME-VERSION-PYTHON-ABI-PLATFORM.whl")
        project = re.sub(r"[-_.]+", "-", match[1]).lower()
        found.append(Wheel(path, project, match[2], *(tuple(part.split(".")) for part in match.groups()[2:])))
    if not any(wheel.project == "edgekd" for wheel in found):
        raise UsageError(
            f"{folder} holds no wheel of edgekd; fill it on a machine with a network, see docs/flash.md: "
            f"python -m build --wheel --outdir {folder}, and pip download --dest {folder} {DOWNLOAD}"
        )
    return found


def choose_wheels(wheels: list[Wheel], board: Facts, device: str) -> list[Wheel]:
    """Return one wheel a project that fits; of several builds of one version the last by name.

    Raises:
        UsageError: two versions of a project fit.
        DeviceError: the board's Python is too old, or a project has no wheel for it.
    """
    python, said = tuple(board["python"]), _said(board)
    if python < OLDEST or board["implementation"] != "cpython":
        raise DeviceError(
            f"{device} has {said}; edgekd needs CPython {OLDEST[0]}.{OLDEST[1]} or newer: name another with --python"
        )
    chosen: dict[str, Wheel] = {}
    for wheel in wheels:
        if wheel.fits(board):
            other = chosen.setdefault(wheel.project, wheel)
            if other.version != wheel.version:
                raise UsageError(
                    f"two versions fit {device}: {other.path.name} and {wheel.path.name}; leave one of them"
                )
            chosen[wheel.project] = wheel
    foreign = sorted({wheel.project for wheel in wheels} - set(chosen))
    if foreign:
        listed = "\n  ".join(wheel.path.name for wheel in wheels if wheel.project in foreign)
        raise DeviceError(
            f"{device} has {said}; these wheels are for others, and nothing was written there:\n  {listed}"
        )
    return [chosen[project] for project in sorted(chosen)]


def _said(board: Facts) -> str:
    libc = f"glibc {board['glibc']}" if board["glibc"] else "another C library than glibc"
    return f"{board['implementation']} {'.'.join(map(str, board['python']))} on {board['machine']} with {libc}"


def _python_fits(python: str, abi: str, board: Facts) -> bool:
    found = re.fullmatch(r"(py|cp)(\d)(\d*)", python)
    if found is None:
        return False
    version, here = (int(found[2]), int(found[3] or 0)), tuple(board["python"])
    if found[1] == "py":
        return abi == "none" and version[0] == here[0] and version <= here
    return (version == here and abi in (python, "none")) or (abi == "abi3" and version <= here)


def _platform_fits(platform: str, board: Facts) -> bool:
    if platform == "any":
        return True
    if platform == f"linux_{board['machine']}":
        return True
    name, _, rest = platform.partition("_")
    if not board["glibc"]:
        return bool(re.fullmatch(rf"musllinux_1_\d+_{board['machine']}", platform))
    if name in OLD_GLIBC:
        needed, machine = OLD_GLIBC[name], rest
    elif found := re.fullmatch(r"manylinux_(\d+)_(\d+)_(.+)", platform):
        needed, machine = (int(found[1]), int(found[2])), found[3]
    else:
        return False
    return machine == board["machine"] and needed <= tuple(int(part) for part in board["glibc"].split(".")[:2])
