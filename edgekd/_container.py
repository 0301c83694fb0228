"""The bytes of a bundle: header, table of contents, aligned chunks. Knows nothing of what the chunks mean.

One layout is right for given contents: the reader computes every offset itself and compares. So a table of contents
cannot make chunks overlap, nest, leave the file or hide bytes between them, and equal contents give equal bytes.
docs/bundle.md is the specification.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._foreign import describe
from .errors import BundleError, BundleVersionError, CorruptBundleError, NotABundleError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAGIC = (
    b"\x89EKDB\r\n\x1a"  # as PNG's: a high bit, a name, a line ending and an end-of-file for the ways files get mangled
)
VERSION = 1
FIELDS = struct.Struct("<8sIIQQ32s32s64s64s")  # see docs/bundle.md; its SHA-256 follows and ends the header
HEADER_BYTES = FIELDS.size + 32
ROW = struct.Struct("<QQI32sH")  # offset, length, alignment, SHA-256, length of the name that follows
COUNT = struct.Struct("<I")
SIGNED = 1  # the one flag

PAGE = 1 << 16  # alignment of large chunks: a multiple of the memory page of every system we know (4, 16 or 64 KiB)
LINE = 64  # alignment of small chunks: a cache line
MAX_FILE_BYTES = 1 << 32
MAX_TOC_BYTES = 1 << 20
MAX_CHUNKS = 4096
MAX_NAME = 128

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]*[A-Za-z0-9_+-])?")


@dataclass(frozen=True)
class Chunk:
    """One row of the table of contents: where a chunk lies (bytes) and what it hashes to (SHA-256, hexadecimal)."""

    name: str
    offset: int
    length: int
    sha256: str

    @property
    def alignment(self) -> int:
        """What its offset is a multiple of."""
        return PAGE if self.length >= PAGE else LINE


@dataclass(frozen=True)
class Signature:
    """An Ed25519 signature: `key_id` is the SHA-256 of the raw public key, hexadecimal; `value` has 64 bytes."""

    key_id: str
    value: bytes


def is_name(name: str) -> bool:
    """Whether `name` can name a chunk: ASCII path segments joined by "/", none hidden, empty or a way up."""
    return len(name) <= MAX_NAME and all(_SEGMENT.fullmatch(segment) for segment in name.split("/"))


def toc_bytes(names: Iterable[str]) -> int:
    """Return the length of the table of contents that lists these chunks."""
    return COUNT.size + sum(ROW.size + len(name) for name in names)


def layout(contents: Mapping[str, tuple[int, str]]) -> tuple[Chunk, ...]:
    """Place chunks, given as name -> (length, SHA-256): the only right table of contents for them, by name.

    Equal contents share their bytes. Small chunks come first, then those of a page or more, both in the order of names.
    """
    position = HEADER_BYTES + toc_bytes(contents)
    names = sorted(contents)
    placed: dict[tuple[int, str], int] = {}
    for alignment in (LINE, PAGE):
        for name in names:
            length, digest = contents[name]
            if (length, digest) not in placed and (PAGE if length >= PAGE else LINE) == alignment:
                position = -(-position // alignment) * alignment
                placed[length, digest] = position
                position += length
    return tuple(Chunk(name, placed[contents[name]], *contents[name]) for name in names)


def end_of(chunks: Iterable[Chunk]) -> int:
    """Return the length of the file that holds these chunks, in bytes."""
    chunks = tuple(chunks)
    return max((chunk.offset + chunk.length for chunk in chunks), default=HEADER_BYTES + toc_bytes(()))


def encode_toc(chunks: Iterable[Chunk]) -> bytes:
    """Return the table of contents as it stands in the file."""
    rows = [(chunk, chunk.name.encode()) for chunk in chunks]
    packed = [
        ROW.pack(chunk.offset, chunk.length, chunk.alignment, bytes.fromhex(chunk.sha256), len(name)) + name
        for chunk, name in rows
    ]
    return COUNT.pack(len(rows)) + b"".join(packed)


def encode_header(toc: bytes, file_length: int, signature: Signature | None = None, version: int = VERSION) -> bytes:
    """Return the header in front of a table of contents."""
    key_id = bytes.fromhex(signature.key_id) if signature else bytes(32)
    value = signature.value if signature else bytes(64)
    flags = SIGNED if signature else 0
    digest = hashlib.sha256(toc).digest()
    fields = FIELDS.pack(MAGIC, version, flags, file_length, len(toc), digest, key_id, value, bytes(64))
    return fields + hashlib.sha256(fields).digest()


def compose(
    chunks: tuple[Chunk, ...], data: Mapping[str, memoryview], signature: Signature | None
) -> Iterator[bytes | memoryview]:
    """Yield a bundle's bytes, piece by piece."""
    toc = encode_toc(chunks)
    yield encode_header(toc, end_of(chunks), signature)
    yield toc
    position = HEADER_BYTES + len(toc)
    for chunk in _stored(chunks):
        yield bytes(chunk.offset - position)
        yield data[chunk.name]
        position = chunk.offset + chunk.length


def _stored(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Return one chunk for each stretch of stored bytes, by offset."""
    return list(
        {(chunk.offset, chunk.length): chunk for chunk in sorted(chunks, key=lambda c: (c.offset, c.length))}.values()
    )


@dataclass(frozen=True)
class Contents:
    """What a sound container holds; `toc_sha256` (hexadecimal) stands for all of it."""

    chunks: tuple[Chunk, ...]
    toc_sha256: str
    signature: Signature | None


def parse(view: memoryview, source: str) -> Contents:
    """Check a whole container, every hash included, and return its table of contents. Uses memory for that table only.

    Args:
        view: the whole file.
        source: how messages call it, for example its path.

    Raises:
        NotABundleError: something else; the message says what it looks like.
        BundleVersionError: written by a newer edgekd.
        CorruptBundleError: anything wrong with it.
    """
    toc, contents_hash, file_length, signature = _header(view, source)
    chunks = _rows(toc, len(view), source)
    right = layout({chunk.name: (chunk.length, chunk.sha256) for chunk in chunks})
    for chunk, expected in zip(chunks, right, strict=True):
        if chunk.offset != expected.offset:
            raise CorruptBundleError(
                f"{source}: the table of contents puts chunk {chunk.name} at byte {chunk.offset}, not {expected.offset}"
            )
    if end_of(chunks) != file_length:
        raise CorruptBundleError(f"{source}: the chunks end at byte {end_of(chunks)}, the file at {file_length}")
    _check_bytes(view, chunks, HEADER_BYTES + len(toc), source)
    return Contents(tuple(chunks), contents_hash, signature)


def _header(view: memoryview, source: str) -> tuple[memoryview, str, int, Signature | None]:
    """Return the table of contents (hash checked), its hash, the length of the file and the signature."""
    head = bytes(view[:HEADER_BYTES])
    if not head or head[: len(MAGIC)] != MAGIC[: len(head)]:
        raise NotABundleError(f"{source} is not an edgekd bundle: {describe(head)}")
    if len(head) < HEADER_BYTES:
        raise CorruptBundleError(f"{source} is truncated: {len(view)} bytes, not even a whole header")
    if hashlib.sha256(head[: FIELDS.size]).digest() != head[FIELDS.size :]:
        raise CorruptBundleError(f"{source}: the header is damaged (its hash does not match)")
    _, version, flags, file_length, toc_length, toc_hash, key_id, value, reserved = FIELDS.unpack_from(head)
    if version > VERSION:
        raise BundleVersionError(
            f"{source} has container version {version}; this edgekd reads up to {VERSION}: upgrade edgekd"
        )
    if version < 1 or flags not in (0, SIGNED) or any(reserved) or (not flags and any(key_id + value)):
        raise CorruptBundleError(f"{source}: the header has fields that version {VERSION} does not know")
    if file_length != len(view):
        more = "truncated" if len(view) < file_length else "longer than it says"
        raise CorruptBundleError(f"{source} is {more}: it has {len(view)} bytes, its header says {file_length}")
    if toc_length > MAX_TOC_BYTES or HEADER_BYTES + toc_length > file_length:
        raise CorruptBundleError(
            f"{source}: the table of contents claims {toc_length} bytes (file {file_length}, limit {MAX_TOC_BYTES})"
        )
    toc = view[HEADER_BYTES : HEADER_BYTES + toc_length]
    if hashlib.sha256(toc).digest() != toc_hash:
        raise CorruptBundleError(f"{source}: the table of contents is damaged (its hash does not match)")
    return toc, toc_hash.hex(), file_length, Signature(key_id.hex(), value) if flags else None


def _rows(toc: memoryview, file_length: int, source: str) -> list[Chunk]:
    """Read the rows of a table of contents: names, lengths and order are checked, places are not."""
    count = COUNT.unpack_from(toc)[0] if len(toc) >= COUNT.size else -1
    if not 0 <= count <= MAX_CHUNKS:
        raise CorruptBundleError(f"{source}: the table of contents claims {count} chunks (limit {MAX_CHUNKS})")
    chunks: list[Chunk] = []
    position = COUNT.size
    for _ in range(count):
        if position + ROW.size > len(toc):
            raise CorruptBundleError(f"{source}: the table of contents ends within a row")
        offset, length, alignment, digest, name_length = ROW.unpack_from(toc, position)
        position += ROW.size + name_length
        chunk = Chunk(_name(bytes(toc[position - name_length : position]), source), offset, length, digest.hex())
        if offset + length > file_length:
            raise CorruptBundleError(
                f"{source}: chunk {chunk.name} claims bytes {offset} to {offset + length} of a file of {file_length}"
            )
        if alignment != chunk.alignment:
            raise CorruptBundleError(
                f"{source}: chunk {chunk.name} claims alignment {alignment}, not {chunk.alignment}"
            )
        chunks.append(chunk)
    if position != len(toc):
        raise CorruptBundleError(f"{source}: the table of contents has {len(toc) - position} bytes behind its rows")
    names = [chunk.name for chunk in chunks]
    if any(second <= first for first, second in itertools.pairwise(names)):
        raise CorruptBundleError(f"{source}: the chunks are not listed in order, each once")
    if len({name.lower() for name in names}) != len(names):
        raise CorruptBundleError(f"{source}: two chunk names differ only in case")
    return chunks


def _name(raw: bytes, source: str) -> str:
    name = raw.decode("ascii", errors="replace")
    if not is_name(name):
        raise CorruptBundleError(
            f"{source}: {raw[:MAX_NAME]!r} is no chunk name (letters, digits and ._+-, folders with /)"
        )
    return name


def _check_bytes(view: memoryview, chunks: Iterable[Chunk], position: int, source: str) -> None:
    """Compare every chunk with its hash and the padding between them with zeros."""
    for chunk in _stored(chunks):
        if any(bytes(view[position : chunk.offset])):
            raise CorruptBundleError(f"{source}: there are hidden bytes in front of chunk {chunk.name}")
        position = chunk.offset + chunk.length
        if hashlib.sha256(view[chunk.offset : position]).hexdigest() != chunk.sha256:
            raise CorruptBundleError(f"{source}: chunk {chunk.name} is damaged (its SHA-256 does not match)")


def check_place(path: Path) -> None:
    """Refuse what cannot be written before hours are spent on what is to be there.

    Raises:
        UsageError: it is a folder, or in none that takes files.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if not folder.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {folder}; name another, or: mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {path}: the folder {folder} may not be written to; name another")


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file so that at any moment, power cuts included, `path` holds what it held or all of the new bytes.

    Raises:
        BundleError: the file cannot be written; the message has the system's reason. No temporary file stays behind.
    """
    path = Path(os.path.realpath(path))  # through a link, not over it
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with temporary.open("xb") as file:  # not tempfile: its mode 0600 would stay on the bundle
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
