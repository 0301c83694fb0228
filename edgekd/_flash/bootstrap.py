"""`bootstrap`: edgekd onto a board that has none, from wheels carried along; nothing is downloaded, here or there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._remote import ask
from ..errors import DeviceError, UsageError
from .wheels import choose_wheels, read_wheels

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..device import Device
    from .wheels import Wheel

SOURCE = Path(__file__).with_name("install_there.py")
ROOM = 6  # times the size of the wheels: they, what they unpack to, and some


@dataclass(frozen=True)
class Runtime:
    """An installed runtime: its interpreter on the board, edgekd's version there, and whether it was there before."""

    python: str
    version: str
    known: bool
    sent_bytes: int


def bootstrap(
    device: Device, folder: Path, root: str, python: str, told: Callable[[str], None] = lambda _: None
) -> Runtime:
    """Install edgekd from a folder of wheels into a virtual environment below the root of the models.

    Args:
        device: the board.
        folder: with wheels of edgekd and all that it needs there; may hold those for other boards as well.
        root: folder of the models on the board.
        python: the board's own interpreter, 3.10 or newer.
        told: a line now and then.

    Raises:
        UsageError: the folder holds no wheel of edgekd.
        DeviceError: the wheels do not fit the board, there is no room, or the installation failed; what was there
            before stays.
    """
    wheels = read_wheels(folder)
    board = _ask(device, python, "probe", root=root)
    chosen = choose_wheels(wheels, board, device.name)
    size_bytes = sum(wheel.path.stat().st_size for wheel in chosen)
    _check_room(device.name, root, board, size_bytes)
    name = _id(chosen)
    home = str(board["root"])
    if board["runtime"] == name:
        return Runtime(f"{home}/.runtime/current/bin/python", "", known=True, sent_bytes=0)
    place = _ask(device, python, "prepare", root=home, id=name)["folder"]
    for number, wheel in enumerate(chosen, 1):
        told(f"wheel {number} of {len(chosen)}: {wheel.path.name}")
        device.put(wheel.path, f"{place}/{wheel.path.name}")
    told("installing")
    names = [wheel.path.name for wheel in chosen]
    done = _ask(device, python, "install", root=home, id=name, wheels=names)
    return Runtime(str(done["python"]), str(done["version"]), known=False, sent_bytes=size_bytes)


def _ask(device: Device, python: str, verb: str, **fields: Any) -> dict[str, Any]:
    command = [python, "-c", SOURCE.read_text(encoding="utf-8"), verb, json.dumps(fields)]
    return ask(device, command, ())


def _id(wheels: list[Wheel]) -> str:
    """Return a name that stands for the contents of the wheels."""
    whole = hashlib.sha256()
    for wheel in wheels:
        try:
            content = wheel.path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {wheel.path}: {error.strerror}") from error
        whole.update(f"{wheel.path.name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()[:32]


def _check_room(device: str, root: str, board: dict[str, Any], size_bytes: int) -> None:
    if not board["writable"]:
        raise DeviceError(
            f"{device}: {root} cannot be written: on the board, sudo install -d -o $USER {root}; or --root '~/edgekd'"
        )
    needed = ROOM * size_bytes
    if board["disk_free_bytes"] < needed:
        raise DeviceError(
            f"{device}: {board['disk_free_bytes'] >> 20} MiB free on its disk, {needed >> 20} MiB are needed"
        )
