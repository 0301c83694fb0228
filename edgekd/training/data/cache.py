"""Decoded pictures kept in memory, up to a limit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

CACHE_BYTES = 2 << 30  # beyond that pictures are decoded each time


class Cache(Generic[T]):
    """Things by row of a data set: what has been made is kept as long as there is room. Safe in several threads.

    Args:
        room: in bytes; 0: nothing is kept.
        make: makes what belongs to a row; two threads may make it twice.
        size: of one thing, in bytes.
    """

    def __init__(self, room: int, make: Callable[[int], T], size: Callable[[T], int]) -> None:
        self._room, self._make, self._size = room, make, size
        self._held: dict[int, T] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, row: int) -> T:
        held = self._held.get(row)
        if held is not None:
            return held
        made = self._make(row)
        with self._lock:
            if row not in self._held and self._size(made) <= self._room:
                self._held[row] = made
                self._room -= self._size(made)
        return made
