"""`SshDevice`: a board behind the system's own `ssh`, with the user's configuration, agent and jump hosts."""

from __future__ import annotations

import base64
import re
import shlex
from typing import TYPE_CHECKING

from ..errors import DeviceError, UsageError
from .disk import Disk
from .process import run_process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from .device import Done, Listen

OPTIONS = (
    *("-o", "BatchMode=yes"),  # a question would wait for ever: keys and host keys are set up beforehand
    *("-o", "ConnectTimeout=20"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),  # a dead link is noticed within a minute
)
NO_CONNECTION = 255  # ssh's own exit status
PIECE_BYTES = 1 << 16
# `sync FILE` needs coreutils 8.24 (2015); `$1` is the path, so no name is ever read as shell. A host that dies is the
# end of the file to `cat`: hence the size, `$2`.
RECEIVE = (
    'set -e; mkdir -p "$(dirname "$1")"; cat >"$1.part"; '
    'if [ "$(wc -c <"$1.part")" -ne "$2" ]; then echo "only a part arrived" >&2; exit 1; fi; '
    'sync "$1.part"; mv -f "$1.part" "$1"'
)


class SshDevice:
    """A board that `ssh NAME` reaches without a question.

    Whatever `~/.ssh/config` says holds: jump hosts, ports, identities, ControlMaster. Host keys are left to `ssh`.
    """

    def __init__(self, name: str, *, options: Sequence[str] = ()) -> None:
        """Take a destination; nothing is connected yet.

        Args:
            name: "user@board", "board", or an alias of the user's configuration.
            options: more words for `ssh`, in front of the destination, for example ("-F", "file").

        Raises:
            UsageError: `name` is empty, starts with "-" (`ssh` would read an option) or holds blanks.
        """
        if not re.fullmatch(r"[^\s-]\S*", name):
            raise UsageError(f"{name!r} is no device: type user@board, an alias of ~/.ssh/config, or local")
        self.name = name
        self._ssh = ("ssh", *OPTIONS, *options, "--", name)

    def run(self, command: Sequence[str], *, stdin: Iterable[bytes] = (), listen: Listen | None = None) -> Done:
        """Run a command, see `Device.run`."""
        done = run_process([*self._ssh, shlex.join(command)], stdin, listen)
        if done.code == NO_CONNECTION or done.code < 0:  # ssh itself was killed
            reason = done.errors.splitlines()[-1] if done.errors else "ssh gave no reason"
            raise DeviceError(f"{self.name}: no connection, or it broke: {reason}. Try: ssh {self.name} true")
        return done

    def put(self, source: Path, path: str) -> None:
        """Copy a file, see `Device.put`. A copy that breaks off leaves `PATH.part`, which the next one overwrites."""
        size_bytes = source.stat().st_size
        done = self.run(["sh", "-c", RECEIVE, "sh", path, str(size_bytes)], stdin=_pieces(source))
        if done.code:
            raise DeviceError(f"{self.name}: cannot write {path}: {done.errors or done.code}")

    def get(self, path: str, target: Path) -> None:
        """Copy a file, see `Device.get`."""
        lines: list[str] = []  # base64: output is read as lines of text
        done = self.run(["base64", path], listen=lines.append)
        if done.code:
            raise DeviceError(f"{self.name}: cannot read {path}: {done.errors or done.code}")
        Disk().write(target, [base64.b64decode(line) for line in lines])


def _pieces(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        yield from iter(lambda: file.read(PIECE_BYTES), b"")
