"""`Disk`: every change to a device's storage, each one whole and durable when its method returns.

The methods are written over a handful of system calls, so that a fake can fail in each of them, at any byte.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PIECE_BYTES = 1 << 16


class Disk:
    """Durable changes: after a power cut at any moment a path holds what it held, or all of the new."""

    def write(self, path: Path, pieces: Iterable[bytes | memoryview], mode: int = 0o644) -> None:
        """Write a file: temporary file, fsync, rename, fsync of the folder. The temporary is `.NAME.*.tmp`."""
        temporary = _beside(path)
        handle = self._open(temporary, mode)
        try:
            for piece in pieces:
                for start in range(0, len(piece), PIECE_BYTES):
                    self._write(handle, piece[start : start + PIECE_BYTES])
            self._fsync(handle)
        finally:
            os.close(handle)
        self._replace(temporary, path)
        self._sync_folder(path.parent)

    def write_unsynced(self, path: Path, content: bytes | memoryview) -> None:
        """Write a file whose contents somebody checks before use: whole for other processes, not after a power cut."""
        temporary = _beside(path)
        handle = self._open(temporary, 0o644)
        try:
            self._write(handle, content)
        finally:
            os.close(handle)
        self._replace(temporary, path)

    def append(self, path: Path, content: bytes) -> None:
        """Add bytes to the end of a file; a power cut may keep some of the new bytes, and loses no old one."""
        new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._write(handle, content)
            self._fsync(handle)
        finally:
            os.close(handle)
        if new:
            self._sync_folder(path.parent)

    def link(self, path: Path, target: str) -> None:
        """Make `path` a symbolic link to `target`; at every moment it leads to the old target or to the new one."""
        temporary = _beside(path)
        if temporary.is_symlink() or temporary.exists():
            self._unlink(temporary)
        self._symlink(target, temporary)
        self._replace(temporary, path)
        self._sync_folder(path.parent)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file or folder within one file system."""
        self._replace(source, target)
        self._sync_folder(target.parent)
        if source.parent != target.parent:
            self._sync_folder(source.parent)

    def folder(self, path: Path) -> None:
        """Make a folder and those above it."""
        if path.is_dir():
            return
        self.folder(path.parent)
        self._mkdir(path)
        self._sync_folder(path.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, link or folder; nothing happens where there is none."""
        try:
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
        except FileNotFoundError:
            return
        if is_folder:
            self._rmtree(path)
        else:
            self._unlink(path)
        self._sync_folder(path.parent)

    def _open(self, path: Path, mode: int) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)

    def _write(self, handle: int, content: bytes | memoryview) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]

    def _fsync(self, handle: int) -> None:
        os.fsync(handle)

    def _replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def _symlink(self, target: str, path: Path) -> None:
        path.symlink_to(target)

    def _unlink(self, path: Path) -> None:
        path.unlink()

    def _mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def _rmtree(self, path: Path) -> None:
        shutil.rmtree(path)

    def _sync_folder(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _beside(path: Path) -> Path:
    """Return a name for a temporary file that no other process or thread takes; a later one may take it again."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident():x}.tmp")
