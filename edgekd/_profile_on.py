"""The host's side of `profile` on a board: it sends the bundle and the images, and takes the samples back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from ._bundle import Bundle
from ._flash import wire
from ._profile_board import MODULE, PIECE_BYTES, image_name, unpack
from ._remote import ask
from .errors import DeviceError, EdgekdError, UsageError
from .profiling.record import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from .device import Device


def profile_on(
    device: Device,
    python: str,
    path: Path,
    images: Sequence[Path],
    options: Mapping[str, Any],
    progress: Callable[[float, int], None] | None,
) -> Profile:
    """Run `profile` there.

    Args:
        device: the board.
        python: its interpreter that has edgekd.
        path: the bundle, checked here before a byte is sent.
        images: files to show; none: the golden images.
        options: the other arguments of `profile`.
        progress: told the share that is done and the number of calls.

    Raises:
        EdgekdError: as `profile`, there; DeviceError where the link or the program broke.
    """
    Bundle.read(path).close()
    files = [path, *images]
    parts: list[str] = []

    def told(fields: dict[str, Any]) -> None:
        if "part" in fields:
            parts.append(str(fields["part"]))
        elif "share" in fields and progress is not None:
            progress(float(fields["share"]), int(fields["calls"]))

    def stdin() -> Iterator[bytes]:
        yield wire.request(files=[_described(file) for file in files], **options)
        for file in files:
            yield from _pieces(file)

    try:
        result = ask(device, [python, "-m", MODULE], stdin(), told)
    except EdgekdError as error:
        raise type(error)(_with_names(str(error), images)) from error
    raw = {**unpack(parts, str(result.get("sha256"))), "device": device.name}
    try:
        return Profile.of(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            f"{device.name}: its profile cannot be read ({error}): host and board need one edgekd"
        ) from error


def _with_names(text: str, images: Sequence[Path]) -> str:
    """Return a message with the images called as they are here."""
    for index, file in enumerate(images, 1):
        text = text.replace(image_name(index, file.suffix), str(file))
    return text


def _described(file: Path) -> list[Any]:
    whole = hashlib.sha256()
    size = 0
    for piece in _pieces(file):
        size += len(piece)
        whole.update(piece)
    return [file.suffix or ".bin", size, whole.hexdigest()]


def _pieces(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as source:
            yield from iter(lambda: source.read(PIECE_BYTES), b"")
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
