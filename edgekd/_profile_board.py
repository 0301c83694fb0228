"""The board's side of `profile`: `python -m edgekd._profile_board`, a request on its input, a profile on its output.

The bundle and the images come in behind the request, lie in a folder of their own while they are shown, and go.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import sys
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ._flash import wire
from ._profile import profile
from .device import Disk
from .errors import DeviceError, EdgekdError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .device.fake import Program

MODULE = "edgekd._profile_board"
OPTIONS = ("device", "precision", "threads", "calls", "seconds", "fps", "warmup", "layers")
PIECE_BYTES = 1 << 16
MAX_FILES = 10_000


def serve(stdin: BinaryIO, tell: wire.Tell, disk: Disk, folder: Path) -> int:
    """Answer one request.

    Args:
        stdin: the request, then the bytes of the bundle and of each image.
        tell: takes each line of the answer; what it raises ends the run: nobody waits for it any more.
        disk: through which files are written.
        folder: for temporary files.

    Returns:
        The exit status: that of the error, or 0.
    """
    place: Path | None = None
    try:
        fields = wire.read_request(stdin)
        try:
            place = Path(tempfile.mkdtemp(prefix="edgekd-profile-", dir=folder))
            model, *images = _received(fields.get("files"), stdin, disk, place)
        except OSError as error:
            raise DeviceError(f"{error.strerror or error}, while receiving the bundle into {folder}") from error
        options = {name: fields[name] for name in OPTIONS if name in fields}

        def progress(share: float, calls: int) -> None:
            wire.reply(tell, share=share, calls=calls)

        found = profile(model, images=images or None, progress=progress, **options)
        _send(found.to_dict(), tell)
    except EdgekdError as error:
        said = type(error)(str(error).replace(f"{place}/", "")) if place else error
        wire.reply_error(tell, said)
        return error.exit_code
    except BrokenPipeError:  # the link is gone
        return DeviceError.exit_code
    finally:
        if place is not None:
            with contextlib.suppress(OSError):
                disk.remove(place)
    return 0


def image_name(index: int, suffix: str) -> str:
    """Return what the image of a number, from 1 on, is called on the board."""
    return f"image-{index:05d}{suffix}"


def _received(listed: object, stdin: BinaryIO, disk: Disk, place: Path) -> list[Path]:
    """Write what follows the request: [suffix, bytes, SHA-256] each."""
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_FILES:
        raise UsageError(f"the request should list 1 to {MAX_FILES} files")
    paths = []
    for index, (suffix, size, sha256) in enumerate(listed):
        if not re.fullmatch(r"\.[A-Za-z0-9]{1,8}", str(suffix)):
            raise UsageError(f"{suffix!r} is no suffix of a file")
        path = place / (image_name(index, suffix) if index else "model.bin")
        whole = hashlib.sha256()
        disk.write(path, _pieces(stdin, int(size), whole))
        if whole.hexdigest() != sha256:
            raise DeviceError("what arrived is not what was sent: try again")
        paths.append(path)
    return paths


def _pieces(stdin: BinaryIO, size: int, whole: Any) -> Iterator[bytes]:
    while size:
        piece = stdin.read(min(size, PIECE_BYTES))
        if not piece:
            raise DeviceError("the link broke while the bundle was sent")
        size -= len(piece)
        whole.update(piece)
        yield piece


def _send(profile: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Send a profile in pieces: one of a soak is longer than a line may be."""
    packed = zlib.compress(json.dumps(profile).encode())
    for start in range(0, len(packed), PIECE_BYTES):
        wire.reply(tell, part=base64.b64encode(packed[start : start + PIECE_BYTES]).decode())
    wire.reply(tell, result={"sha256": hashlib.sha256(packed).hexdigest()})


def unpack(parts: Sequence[str], sha256: str) -> dict[str, Any]:
    """Put together what `_send` sent.

    Raises:
        DeviceError: some of it is missing or damaged.
    """
    try:
        packed = b"".join(base64.b64decode(part, validate=True) for part in parts)
        if hashlib.sha256(packed).hexdigest() != sha256:
            raise ValueError("another hash")
        return dict(json.loads(zlib.decompress(packed)))
    except (ValueError, zlib.error) as error:
        raise DeviceError(f"the profile arrived damaged ({error}): try again") from error


def program(argv: Sequence[str], stdin: Any, tell: Callable[[str], None], disk: Disk, system: Path) -> int:
    """Be a program of a `FakeDevice`."""
    import io

    del argv
    (system / "tmp").mkdir(exist_ok=True)
    return serve(io.BufferedReader(stdin), tell, disk, system / "tmp")


if TYPE_CHECKING:
    _: Program = program


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    status = serve(sys.stdin.buffer, _print, Disk(), Path(tempfile.gettempdir()))
    with contextlib.suppress(OSError):  # what Python would flush at its end goes to a link that may be gone
        sys.stdout.close()
    sys.exit(status)
