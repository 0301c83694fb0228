"""One writer at a time: an `flock`, which the system drops when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING

from ..errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_S = 0.2


@contextlib.contextmanager
def locked(path: Path, who: str, wait_s: float) -> Iterator[None]:
    """Hold the lock. The file stays, and says who holds it; only `flock` decides.

    Raises:
        DeviceError: somebody else holds it after `wait_s` seconds; the message says who.
    """
    import fcntl

    handle = os.open(
        path, os.O_RDWR | os.O_CREAT, 0o644
    )  # not inherited: a service restarted from here does not hold it
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise DeviceError(
                        f"another flash is in progress ({_holder(path)}), waited {wait_s:g} s: try again, or --wait S"
                    ) from None
                time.sleep(POLL_S)
        os.ftruncate(handle, 0)  # a note for messages: losing it loses nothing
        with contextlib.suppress(OSError):
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "who": who}).encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(path: Path) -> str | None:
    """Return who holds the lock, or None."""
    import fcntl

    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(path)
    finally:
        os.close(handle)
    return None


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"{note['who']}, process {note['pid']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "unknown"
