"""What host and board say: a line of JSON to the board, frames of chunks behind it, lines of JSON back."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from .. import errors
from ..errors import DeviceError, EdgekdError
from .chunks import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROTOCOL = 1
MARK = "edgekd "  # in front of every line from the board: a login script may print others
FRAME = struct.Struct("<32sI")  # SHA-256 and length of the chunk that follows
MAX_REQUEST_BYTES = 1 << 26  # 4 GiB in chunks of 10 KiB need 32 MB

Tell = Callable[[str], None]
"""Takes one line to the host."""


def request(**fields: Any) -> bytes:
    """Return the line that opens every conversation."""
    return json.dumps({"protocol": PROTOCOL, **fields}).encode() + b"\n"


def read_request(stdin: BinaryIO) -> dict[str, Any]:
    """Read that line.

    Raises:
        DeviceError: it broke off, is no request, or speaks another protocol.
    """
    line = stdin.readline(MAX_REQUEST_BYTES)
    try:
        fields = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError) as error:
        raise DeviceError("the request is no JSON") from error
    if not isinstance(fields, dict):
        raise DeviceError("the request broke off, or is none")
    if fields.get("protocol") != PROTOCOL:
        raise DeviceError(
            f"the host speaks protocol {fields.get('protocol')!r}, this board {PROTOCOL}: they need one edgekd"
        )
    return fields


def reply(tell: Tell, **fields: Any) -> None:
    """Send one line to the host."""
    tell(MARK + json.dumps(fields))


def reply_error(tell: Tell, error: Exception) -> None:
    """Send an error as the last line."""
    reply(tell, error={"kind": type(error).__name__, "message": str(error)})


def parse_reply(line: str) -> dict[str, Any] | None:
    """Return a line's fields; None for what the board's shell printed."""
    if not line.startswith(MARK):
        return None
    try:
        fields = json.loads(line[len(MARK) :])
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def remote_error(fields: object, device: str) -> EdgekdError:
    """Return the board's error as the exception that it was there."""
    kind = fields.get("kind") if isinstance(fields, dict) else None
    message = fields.get("message") if isinstance(fields, dict) else fields
    found = getattr(errors, kind, None) if isinstance(kind, str) else None
    chosen = found if isinstance(found, type) and issubclass(found, EdgekdError) else DeviceError
    return chosen(f"{device}: {message}")


def frames(chunks: Iterable[tuple[str, memoryview]]) -> Iterator[bytes]:
    """Yield chunks as they travel: SHA-256, length, bytes."""
    for sha256, content in chunks:
        yield FRAME.pack(bytes.fromhex(sha256), len(content)) + content


def read_frames(stdin: BinaryIO) -> Iterator[tuple[str, bytes, bool]]:
    """Yield (SHA-256, bytes, whether they fit), up to the end or to where the link broke.

    A length that no chunk has ends it as well: behind a damaged header nothing can be told apart.
    """
    while len(head := _exactly(stdin, FRAME.size)) == FRAME.size:
        digest, length = FRAME.unpack(head)
        if length > MAX_BYTES:
            return
        content = _exactly(stdin, length)
        if len(content) < length:
            return
        yield digest.hex(), content, hashlib.sha256(content).digest() == digest


def _exactly(stdin: BinaryIO, count: int) -> bytes:
    """Read so many bytes, or fewer at the end."""
    parts = bytearray()
    while len(parts) < count and (piece := stdin.read(count - len(parts))):
        parts += piece
    return bytes(parts)
