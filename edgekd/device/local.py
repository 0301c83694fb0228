"""`LocalDevice`: this machine, as if it were a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError
from .disk import Disk
from .process import run_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .device import Done, Listen


class LocalDevice:
    """This machine; needs no `ssh`. As over `ssh`, what was begun goes on when its caller is interrupted."""

    name = "local"

    def run(self, command: Sequence[str], *, stdin: Iterable[bytes] = (), listen: Listen | None = None) -> Done:
        """Run a command, see `Device.run`."""
        return run_process(command, stdin, listen, apart=True)

    def put(self, source: Path, path: str) -> None:
        """Copy a file, see `Device.put`."""
        try:
            Disk().write(Path(path), [source.read_bytes()])
        except OSError as error:
            raise DeviceError(f"cannot copy {source} to {path}: {error.strerror}") from error

    def get(self, path: str, target: Path) -> None:
        """Copy a file, see `Device.get`."""
        self.put(Path(path), str(target))
