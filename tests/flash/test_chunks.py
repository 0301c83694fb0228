"""Chunks: they are the file, they depend on its contents alone, and an insertion moves no cut far away."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd._flash import chunks
from edgekd._flash.chunks import MAX_BYTES, MIN_BYTES, split


def content(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def check(data: bytes) -> None:
    pieces = split(memoryview(data))
    position = 0
    for piece in pieces:
        part = data[piece.offset : piece.offset + piece.length]
        assert piece.offset == position
        assert piece.sha256 == hashlib.sha256(part).hexdigest()
        position += piece.length
    assert position == len(data)
    assert all(MIN_BYTES <= piece.length <= MAX_BYTES for piece in pieces[:-1])


@pytest.mark.parametrize("data", [b"", b"x", bytes(3), bytes(MAX_BYTES), bytes(MAX_BYTES * 3 + 1), content(1_000_000)])
def test_chunks_are_the_file(data: bytes) -> None:
    check(data)


@given(st.integers(0, 400_000), st.integers(0, 9), st.binary(max_size=200), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_an_insertion_changes_few_chunks(size: int, seed: int, inserted: bytes, place: float) -> None:
    old = content(size, seed)
    at = int(place * size)
    new = old[:at] + inserted + old[at:]
    check(new)
    known = {piece.sha256 for piece in split(memoryview(old))}
    assert sum(piece.length for piece in split(memoryview(new)) if piece.sha256 not in known) <= 3 * MAX_BYTES


def test_the_hash_is_the_sum_it_is_said_to_be_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(300_000)
    values = np.frombuffer(data, np.uint8)[:100]
    slow = [
        sum(int(chunks.GEAR[values[at - back]]) << back for back in range(min(at + 1, 32))) % 2**32 for at in range(100)
    ]
    assert chunks._hashes(values).tolist() == slow
    whole = split(memoryview(data))
    monkeypatch.setattr(chunks, "BLOCK_BYTES", 1 << 12)
    assert split(memoryview(data)) == whole
    assert 5_000 < len(data) / len(whole) < 20_000
