"""`guard`: what a service on the board runs before it starts; and the lines that make systemd run it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..device import Disk
from .host import NAME, ROOT
from .recovery import guard as recovered
from .store import Store


@dataclass(frozen=True)
class Guarded:
    """What a service may load.

    Attributes:
        model: path of the bundle in service; it leads to whichever that is.
        done: what had to be done first, one line each; empty: nothing.
    """

    model: str
    done: tuple[str, ...]


def guard(name: str = NAME, *, root: str = ROOT) -> Guarded:
    """Run on the board before a service loads its model: end what was interrupted, leave what is damaged.

    Args:
        name: of the model.
        root: folder of the models.

    Raises:
        DeviceError: nothing is in service.
        UsageError: no name for a model.
    """
    path, done = recovered(Store(Path(root).expanduser(), name, Disk()))
    return Guarded(str(path), tuple(done))


def guard_unit(name: str = NAME, *, root: str = ROOT) -> str:
    """Return a drop-in for a systemd service that serves this model; nothing is installed."""
    return (
        f"# /etc/systemd/system/YOUR.service.d/edgekd-{name}.conf, then: systemctl daemon-reload\n"
        "[Service]\n"
        f"ExecStartPre={sys.executable} -m edgekd.cli.main guard --root {root} {name}\n"
        "Restart=on-failure\n"
    )
