"""`Device`: what something to run on has to offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

Listen = Callable[[str], None]
"""Receives each line of a command's standard output as it comes, without its line ending."""


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: exit status; negative: the signal that ended it.
        errors: the last lines of its standard error.
    """

    code: int
    errors: str


class Device(Protocol):
    """Somewhere to run. Nothing of edgekd has to be installed there for these three."""

    name: str
    """As the user wrote it: "user@board", "local"."""

    def run(self, command: Sequence[str], *, stdin: Iterable[bytes] = (), listen: Listen | None = None) -> Done:
        """Run a command to its end; its words reach the program as they are, no shell reads them.

        Args:
            command: program and arguments.
            stdin: pieces of its standard input, fetched as they are needed.
            listen: told each line of standard output; None: nobody reads it.

        Raises:
            DeviceError: the device cannot be reached, or the connection broke.
            HostError: this machine lacks the program that reaches it.
        """
        ...

    def put(self, source: Path, path: str) -> None:
        """Copy a file to `path` on the device; there it is whole or not there at all.

        Raises:
            DeviceError: it could not be reached or written.
        """
        ...

    def get(self, path: str, target: Path) -> None:
        """Copy a file of the device to `target` here, which is whole or not there at all.

        Raises:
            DeviceError: it could not be reached or read.
        """
        ...


def open_device(name: str) -> Device:
    """Return the device of a name: "local" is this machine, everything else goes to `ssh` ("user@board", an alias).

    Raises:
        UsageError: no name that `ssh` could mean.
    """
    from .local import LocalDevice
    from .ssh import SshDevice

    return LocalDevice() if name == "local" else SshDevice(name)
