"""Memory that host and GPU pass to each other: one block where they share memory, else one on each side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._device import Device, Memory, Stream


class Shared:
    """`size` bytes: `array` is the host's side, page-locked, `address` the GPU's."""

    def __init__(self, device: Device, size: int) -> None:
        """Allocate; where the GPU shares the host's memory nothing is ever copied."""
        self._pinned = device.pin(size)
        self._copy: Memory | None = None
        if not device.integrated:
            try:
                self._copy = device.allocate(size)
            except BaseException:
                self._pinned.free()
                raise

    @property
    def array(self) -> NDArray[np.uint8]:
        """The host's side, `(size,)` uint8."""
        return self._pinned.array

    @property
    def address(self) -> int:
        """The GPU's side."""
        return self._pinned.address if self._copy is None else self._copy.address

    def upload(self, stream: Stream, size: int) -> None:
        """Queue that the GPU's side gets the first `size` bytes."""
        if self._copy is not None:
            stream.upload(self._copy.address, self.array[:size])

    def download(self, stream: Stream, size: int) -> None:
        """Queue that the host's side gets the first `size` bytes."""
        if self._copy is not None:
            stream.download(self.array[:size], self._copy.address)

    def free(self) -> None:
        """Give both sides back; a second call does nothing."""
        if self._copy is not None:
            self._copy.free()
        self._pinned.free()
