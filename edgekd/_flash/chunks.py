"""Content-defined chunks: cuts follow the bytes, so that what was inserted moves no cut but those beside it.

A cut lies behind a byte where a hash of the last 32 bytes begins with 13 zero bits: every 10 KiB on average. The hash
is a sum of shifted table values (a "gear" hash), which NumPy computes for all positions at once by doubling its window.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MIN_BYTES, MAX_BYTES = 1 << 11, 1 << 17
ZERO_BITS = 13
WINDOW = 32
BLOCK_BYTES = 1 << 22  # hashed at once: bounds the memory
GEAR = np.frombuffer(b"".join(hashlib.sha256(bytes([byte])).digest()[:4] for byte in range(256)), "<u4")


@dataclass(frozen=True)
class Piece:
    """One chunk of a file: SHA-256 (hexadecimal), offset and length in bytes."""

    sha256: str
    offset: int
    length: int


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Map a file; it is let go when the last slice of the view is."""
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        yield memoryview(mapping)
    finally:
        with contextlib.suppress(BufferError):  # an error on its way still holds a slice
            mapping.close()


def split(content: memoryview) -> list[Piece]:
    """Cut a file into chunks of 2 to 128 KiB (the last may be shorter); equal bytes give equal chunks."""
    pieces, start = [], 0
    for end in _ends(content):
        pieces.append(Piece(hashlib.sha256(content[start:end]).hexdigest(), start, end - start))
        start = end
    return pieces


def _ends(content: memoryview) -> Iterator[int]:
    start = 0
    for cut in _cuts(content):
        while cut - start > MAX_BYTES:
            start += MAX_BYTES
            yield start
        if cut - start >= MIN_BYTES:
            start = cut
            yield start
    while start < len(content):
        start = min(start + MAX_BYTES, len(content))
        yield start


def _cuts(content: memoryview) -> Iterator[int]:
    """Yield every position where the hash asks for a cut, and the end."""
    for block in range(0, len(content), BLOCK_BYTES):
        first = max(0, block - WINDOW + 1)
        hashes = _hashes(np.frombuffer(content[first : block + BLOCK_BYTES], np.uint8))
        found = np.flatnonzero(hashes >> np.uint32(32 - ZERO_BITS) == 0) + first + 1
        yield from (int(item) for item in found if item > block)
    yield len(content)


def _hashes(values: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the hash of the 32 bytes that end at each position, modulo 2**32; shorter at the beginning."""
    hashes = GEAR[values]
    width = 1
    while width < WINDOW:
        hashes[width:] += hashes[:-width] << np.uint32(width)  # the right side is a copy: it is computed first
        width *= 2
    return hashes
