"""Somewhere to run: this machine, a board behind the system's own `ssh`, and a fake that fails where it is told to."""

from __future__ import annotations

from .device import Device, Done, open_device
from .disk import Disk
from .fake import FakeDevice, Fault, FaultyDisk, HostKilled, Killed
from .local import LocalDevice
from .ssh import SshDevice

__all__ = [
    "Device",
    "Disk",
    "Done",
    "FakeDevice",
    "Fault",
    "FaultyDisk",
    "HostKilled",
    "Killed",
    "LocalDevice",
    "SshDevice",
    "open_device",
]
