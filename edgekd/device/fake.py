"""`FakeDevice`: a folder that plays a board, and fails where it is told to: at any change to its disk, at any byte.

Board programs run in this process on a `FaultyDisk`. When one is killed its disk is dead: not even `finally` blocks
change a byte any more, as after SIGKILL. After a power cut, what was not synced may be lost as well.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError, HostError
from .device import Done
from .disk import Disk

if TYPE_CHECKING:
    from .device import Listen

Program = Callable[[Sequence[str], "Input", Callable[[str], None], Disk, Path], int]
"""A board program: arguments, standard input, what takes a line of output, its disk, the board's "/"; exit status."""

KINDS = ("kill", "power", "full", "drop", "corrupt", "host")


class Killed(BaseException):
    """The board program was killed: no handler of errors sees it."""


class HostKilled(BaseException):
    """The program on the host was killed."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, once ("full": from then on).

    Attributes:
        kind: "kill" (the program on the board), "power" (of the board), "full" (its disk), "drop" (the link),
            "corrupt" (a bit on its way to the board), "host" (the program that talks to the board).
        operation: of "kill", "power" and "full": after this many system calls that change the disk.
        byte: of "kill", "power" and "full": after this many bytes written, if `operation` is None; of "drop",
            "corrupt" and "host": after this many bytes sent to the board.
        line: of "drop" and "host": after this many lines came from the board, if `byte` is None.
    """

    kind: str
    operation: int | None = None
    byte: int | None = None
    line: int | None = None


class FaultyDisk(Disk):
    """A disk that fails at a given change, and forgets what was not synced when the power goes."""

    def __init__(self, root: Path, fault: Fault | None = None, seed: int = 0) -> None:
        """Take the folder that it is, the fault, and the seed of what a power cut loses."""
        self.root = root
        self.fault = fault
        self.operations = 0
        self.written = 0
        self.dead = False
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._unsynced: dict[int, int] = {}  # inode -> length that is safe
        self._log: list[tuple[Path, Callable[[], None]]] = []  # changes to folders that are not synced, and their undo
        self._attic = Path(tempfile.mkdtemp(prefix=".attic-", dir=root))

    def close(self) -> None:
        """Forget what was kept to undo."""
        shutil.rmtree(self._attic, ignore_errors=True)

    def _step(self, size: int = 0) -> int:
        """Count one system call that writes `size` bytes; return how many of them it may write before the fault."""
        if self.dead:
            raise Killed
        start = self.written
        self.operations += 1
        self.written += size
        if not self._due():
            return size
        assert self.fault is not None
        self.dead = self.fault.kind != "full"
        return 0 if self.fault.byte is None else max(0, min(size, self.fault.byte - start))

    def _due(self) -> bool:
        fault = self.fault
        if fault is None or fault.kind not in ("kill", "power", "full"):
            return False
        if fault.operation is not None:
            return self.operations > fault.operation
        return fault.byte is not None and self.written > fault.byte

    def _check(self, *, grows: bool = False) -> None:
        """Count a call that writes no bytes, and fail in its place."""
        self._step()
        self._fail(grows=grows)

    def _fail(self, *, grows: bool) -> None:
        """Raise what the fault raises, if it is due; a full disk still allows what needs no room."""
        if self.dead:
            self._die()
        if grows and self._due():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _die(self) -> None:
        if self.fault is not None and self.fault.kind == "power":
            self._forget()
        raise Killed

    def _forget(self) -> None:
        """Lose changes to folders that were not synced, the latest first, and the ends of files that were not."""
        lost = self._random.randint(0, len(self._log))
        for _, undo in reversed(self._log[len(self._log) - lost :]):
            with contextlib.suppress(OSError):
                undo()
        for path in self.root.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            status = path.stat()
            safe = self._unsynced.get(status.st_ino)
            if safe is not None:
                os.truncate(path, self._random.randint(min(safe, status.st_size), status.st_size))

    def _open(self, path: Path, mode: int) -> int:
        self._check(grows=True)
        if not path.exists():
            self._log.append((path.parent, path.unlink))
        handle = super()._open(path, mode)
        self._unsynced[os.fstat(handle).st_ino] = 0
        return handle

    def _write(self, handle: int, content: bytes | memoryview) -> None:
        status = os.fstat(handle)
        self._unsynced.setdefault(status.st_ino, status.st_size)
        super()._write(handle, content[: self._step(len(content))])
        self._fail(grows=True)

    def _fsync(self, handle: int) -> None:
        self._check()
        self._unsynced.pop(os.fstat(handle).st_ino, None)

    def _replace(self, source: Path, target: Path) -> None:
        self._check()
        kept = self._keep(target)
        super()._replace(source, target)

        def undo() -> None:
            target.rename(source)
            if kept is not None:
                kept.rename(target)

        self._log.append((target.parent, undo))

    def _symlink(self, target: str, path: Path) -> None:
        self._check(grows=True)
        super()._symlink(target, path)
        self._log.append((path.parent, path.unlink))

    def _unlink(self, path: Path) -> None:
        self._check()
        kept = self._keep(path)
        super()._unlink(path)

        def undo() -> None:
            if kept is not None:
                kept.rename(path)

        self._log.append((path.parent, undo))

    def _mkdir(self, path: Path) -> None:
        self._check(grows=True)
        super()._mkdir(path)
        self._log.append((path.parent, path.rmdir))

    def _rmtree(self, path: Path) -> None:
        for inner in sorted(path.iterdir()):
            if inner.is_dir() and not inner.is_symlink():
                self._rmtree(inner)
            else:
                self._check()
                inner.unlink()
        self._check()
        path.rmdir()

    def _sync_folder(self, path: Path) -> None:
        self._check()
        self._log = [(folder, undo) for folder, undo in self._log if folder != path]

    def _keep(self, path: Path) -> Path | None:
        """Return a second name of a file or link that is about to lose its own."""
        if not path.is_symlink() and not path.is_file():
            return None
        kept = self._attic / str(len(list(self._attic.iterdir())))
        os.link(path, kept, follow_symlinks=False)
        return kept


class Input(io.RawIOBase):
    """What a board program reads: the host's pieces, cut or bent where the fault says."""

    def __init__(self, pieces: Iterable[bytes], fault: Fault | None, sent: list[int]) -> None:
        """Take the pieces; `sent` counts bytes over all runs."""
        self._pieces = iter(pieces)
        self._rest = b""
        self._fault = fault
        self._sent = sent

    def readable(self) -> bool:
        """Say yes, as `io` asks."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read some bytes; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = bytes(piece)
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        taken = self._bent(taken)
        buffer[: len(taken)] = taken
        return len(taken)

    def _bent(self, taken: bytes) -> bytes:
        start, fault = self._sent[0], self._fault
        self._sent[0] += len(taken)
        if fault is None or fault.byte is None or not start <= fault.byte < self._sent[0]:
            return taken
        at = fault.byte - start
        if fault.kind == "corrupt":
            return taken[:at] + bytes([taken[at] ^ 0x10]) + taken[at + 1 :]
        if fault.kind in ("drop", "host"):  # what follows never arrives
            self._pieces, self._rest = iter(()), b""
            self._sent[1] = 1
            return taken[:at]
        return taken


class FakeDevice:
    """A board in a folder. Only Python modules that it was given can run on it, as `PYTHON -m MODULE ...`.

    Attributes:
        folder: the board's "/".
        fault: what goes wrong, or None; may be set between runs.
        disk: counts changes and bytes; a new one after each restart.
    """

    name = "fake"

    def __init__(
        self, folder: Path, modules: Mapping[str, Program], *, fault: Fault | None = None, seed: int = 0
    ) -> None:
        """Take the folder, the board's programs by module name, a fault, and the seed of what power cuts lose."""
        self.folder = folder
        self.modules = dict(modules)
        self.fault = fault
        self.seed = seed
        self.sent = [0, 0]  # bytes to the board; whether the link broke
        self.lines = 0
        self.disk = FaultyDisk(folder, fault, seed)

    def repair(self) -> None:
        """Start the board again with everything in order."""
        self.disk.close()
        self.fault = None
        self.sent, self.lines = [0, 0], 0
        self.disk = FaultyDisk(self.folder, None, self.seed)

    def run(self, command: Sequence[str], *, stdin: Iterable[bytes] = (), listen: Listen | None = None) -> Done:
        """Run one of the modules, see `Device.run`."""
        if len(command) < 3 or command[1] != "-m" or command[2] not in self.modules:
            raise HostError(f"{' '.join(command)!r} is no program of this fake; it has: {', '.join(self.modules)}")
        reader = Input(stdin, self.fault, self.sent)
        try:
            code = self.modules[command[2]](command[3:], reader, self._teller(listen), self.disk, self.folder)
        except Killed as killed:
            raise DeviceError(f"{self.name}: the connection broke") from killed
        if self.sent[1]:
            self.sent[1] = 0
            if self.fault is not None and self.fault.kind == "host":
                raise HostKilled
            raise DeviceError(f"{self.name}: the connection broke")
        return Done(code, "")

    def put(self, source: Path, path: str) -> None:
        """Copy a file, see `Device.put`."""
        try:
            self.disk.write(self._inside(path), [source.read_bytes()])
        except (OSError, Killed) as error:
            raise DeviceError(f"{self.name}: cannot write {path}") from error

    def get(self, path: str, target: Path) -> None:
        """Copy a file, see `Device.get`."""
        try:
            Disk().write(target, [self._inside(path).read_bytes()])
        except OSError as error:
            raise DeviceError(f"{self.name}: cannot read {path}: {error.strerror}") from error

    def _inside(self, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def _teller(self, listen: Listen | None) -> Callable[[str], None]:
        """Return what passes lines to the host, until the link breaks; the board then talks to nobody."""

        def tell(line: str) -> None:
            fault = self.fault
            if fault is not None and fault.line is not None and self.lines >= fault.line:
                self.sent[1] = 1
            elif listen is not None and not self.sent[1]:
                listen(line)
            self.lines += 1

        return tell
