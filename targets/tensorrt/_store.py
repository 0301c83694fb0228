"""Where a device keeps what it made for itself: engines beside the bundle, the rest in the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from edgekd.errors import TargetUnavailableError


def user_place(name: str) -> Path:
    """Return the folder `name` in the user's cache of edgekd; it need not be there."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # the standard's name, not one of ours
    return Path(base) / "edgekd" / name


def user_folder(name: str) -> Path:
    """Return the folder `name` in the user's cache of edgekd, made if need be.

    Raises:
        TargetUnavailableError: it cannot be made.
    """
    folder = user_place(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetUnavailableError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def beside(bundle: Path) -> Path:
    """Return the folder of a bundle's engines; it need not be there, nor writable."""
    return bundle.with_name(f"{bundle.name}.engines")


def engine_folder(bundle: Path | None) -> Path:
    """Return `<bundle>.engines/`, or a folder of the user's cache where there is no file or its folder is read-only.

    Raises:
        TargetUnavailableError: neither can be made.
    """
    if bundle is not None:
        folder = beside(bundle)
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            return user_folder("engines")
        if os.access(folder, os.W_OK):
            return folder
    return user_folder("engines")
