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
    hashes = {wheel.path.name: _sha256(wheel) for wheel in chosen}
    name = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:32]  # stands for the contents of all
    home = str(board["root"])
    if board["runtime"] == name:
        return Runtime(f"{home}/.runtime/current/bin/python", "", known=True, sent_bytes=0)
    _check_room(device.name, root, board, sum(wheel.path.stat().st_size for wheel in chosen))
    place = _ask(device, python, "prepare", root=home, id=name)
    lacking = [wheel for wheel in chosen if place["have"].get(wheel.path.name) != hashes[wheel.path.name]]
    for number, wheel in enumerate(lacking, 1):
        told(f"wheel {number} of {len(lacking)}: {wheel.path.name}")
        device.put(wheel.path, f"{place['folder']}/{wheel.path.name}")
    told("installing")
    done = _ask(device, python, "install", root=home, id=name, wheels=list(hashes))
    sent_bytes = sum(wheel.path.stat().st_size for wheel in lacking)
    return Runtime(str(done["python"]), str(done["version"]), known=False, sent_bytes=sent_bytes)


def _ask(device: Device, python: str, verb: str, **fields: Any) -> dict[str, Any]:
    command = [python, "-c", SOURCE.read_text(encoding="utf-8"), verb, json.dumps(fields)]
    return ask(device, command, ())


def _sha256(wheel: Wheel) -> str:
    try:
        return hashlib.sha256(wheel.path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {wheel.path}: {error.strerror}") from error


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
