"""A real sshd on a free port of this machine, with its own configuration and keys."""

from __future__ import annotations

import contextlib
import getpass
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from edgekd.device import SshDevice
from edgekd.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def served(folder: Path, program: str = "/usr/sbin/sshd", *, configuration: str = "") -> Iterator[SshDevice]:
    """Run sshd while in the block; its files go to `folder`.

    Args:
        folder: of keys, configuration and log.
        program: path of the sshd.
        configuration: further lines for it.
    """
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {folder / 'user.pub'}\nPasswordAuthentication no\nPermitRootLogin yes\n{configuration}"
    )
    (folder / "ssh_config").write_text(
        f"Host loop\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n IdentityFile {folder / 'user'}\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {folder / 'known'}\n StrictHostKeyChecking accept-new\n"
    )
    with (folder / "sshd.log").open("w") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    device = SshDevice("loop", options=("-F", str(folder / "ssh_config")))
    try:
        for _ in range(50):
            try:
                device.run(["true"])
                break
            except DeviceError:
                assert server.poll() is None, (folder / "sshd.log").read_text()
                time.sleep(0.2)
        yield device
    finally:
        server.terminate()
        server.wait()
