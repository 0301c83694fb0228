"""Which board this is, and what its JetPack brings: TOML files beside this one, one a board."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 on JetPack 6
    import tomli as tomllib

ROOT = Path("/")
MODEL = "proc/device-tree/model"
RELEASE = "etc/nv_tegra_release"
PACKAGES = "var/lib/dpkg/status"
RELEASE_LINE = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")


@dataclass(frozen=True)
class Release:
    """One JetPack on a board: its L4T begins with `l4t`."""

    l4t: str
    jetpack: str
    tensorrt: str
    cuda: str
    python: str
    note: str = ""


@dataclass(frozen=True)
class Board:
    """A board, as its TOML file has it.

    Attributes:
        name: the file's name.
        title: NVIDIA's name.
        model: regular expression that the device tree's model matches.
        capability: of the GPU, compute capability times ten.
        ram_gib: the sizes it is sold with.
        dla: deep-learning accelerators.
        power_modes: as `nvpmodel` names them.
        releases: newest first.
    """

    name: str
    title: str
    model: str
    capability: int
    ram_gib: tuple[int, ...]
    dla: int
    power_modes: tuple[str, ...]
    releases: tuple[Release, ...]


@dataclass(frozen=True)
class Machine:
    """What was read on this machine.

    Attributes:
        model: of the device tree.
        l4t: such as "36.4.3"; "" without one.
        board: what is known of it; None: a board without a file.
        release: the JetPack that this L4T belongs to, or None.
        tensorrt: version of the installed package libnvinfer8, 10 ..., or "".
    """

    model: str
    l4t: str
    board: Board | None
    release: Release | None
    tensorrt: str

    def lines(self) -> tuple[str, ...]:
        """Return what `doctor` says: the board, and what is missing or unexpected."""
        board, release = self.board, self.release
        found = [f"{board.title if board else self.model}, L4T {self.l4t or 'unknown'}"]
        if not self.model:  # Docker hides /sys/firmware, where the device tree is
            return (f"a Jetson{found[0]}; its device tree does not show, as in a container: run doctor outside",)
        if board is None:
            return (f"{found[0]}: no board that edgekd has a file for",)
        found[0] += f", SM{board.capability}, {board.dla} DLA, {'/'.join(map(str, board.ram_gib))} GiB"
        if release is None:
            listed = ", ".join(f"{item.l4t} (JetPack {item.jetpack})" for item in board.releases)
            found.append(f"L4T {self.l4t or 'unknown'} is not one that edgekd knows on it; known: {listed}")
            return tuple(found)
        found.append(
            f"JetPack {release.jetpack}: TensorRT {release.tensorrt}, CUDA {release.cuda}, Python {release.python}"
            f"{'; ' + release.note if release.note else ''}"
        )
        if not self.tensorrt:
            found.append("TensorRT is not installed: sudo apt-get install nvidia-jetpack")
        elif not self.tensorrt.startswith(".".join(release.tensorrt.split(".")[:2])):
            found.append(f"TensorRT {self.tensorrt} is installed, which is not this JetPack's")
        return tuple(found)


@cache
def boards() -> tuple[Board, ...]:
    """Return every board that has a file, by name."""
    return tuple(_board(path) for path in sorted(Path(__file__).parent.glob("*.toml")))


def _board(path: Path) -> Board:
    held: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    releases = tuple(Release(**item) for item in held.pop("releases"))
    tuples: dict[str, Any] = {key: tuple(held.pop(key)) for key in ("ram_gib", "power_modes")}
    return Board(name=path.stem, releases=releases, **tuples, **held)


def l4t(root: Path = ROOT) -> str:
    """Return this machine's L4T, such as "36.4.3", or "" where there is none."""
    found = RELEASE_LINE.search(_text(root / RELEASE))
    return f"{found[1]}.{found[2]}" if found else ""


def device_tree_model(root: Path = ROOT) -> str:
    """Return what the device tree calls this board, such as "NVIDIA Jetson AGX Orin Developer Kit"; "" without one."""
    return _text(root / MODEL).rstrip("\0\n ")


def machine(root: Path = ROOT) -> Machine | None:
    """Return which board this is, or None where it is no Jetson.

    Args:
        root: of the file system; another one in tests.
    """
    model = device_tree_model(root)
    release = l4t(root)
    if not release and not re.search("jetson|tegra", model, re.IGNORECASE):
        return None
    board = next((item for item in boards() if re.search(item.model, model, re.IGNORECASE)), None)
    known = [item for item in board.releases if (release + ".").startswith(item.l4t + ".")] if board else []
    return Machine(model, release, board, known[0] if known else None, _tensorrt(root))


def _tensorrt(root: Path) -> str:
    """Return the version of the installed TensorRT package, without Debian's epoch and revision."""
    for block in _text(root / PACKAGES).split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", block, re.MULTILINE))
        installed = fields.get("Status", "").endswith(" installed")
        if re.fullmatch(r"libnvinfer\d+", fields.get("Package", "")) and installed:
            return re.sub(r"^\d+:|-.*$", "", fields.get("Version", ""))
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
