"""The emulated board: a 64-bit ARM Debian in a folder, behind a real sshd whose every command runs in it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conformance import bundles
from .sshd import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekd.device import SshDevice

ROOT = os.environ.get("EDGEKD_TEST_ARM_ROOT", "")
WHY_SKIPPED = "opt-in: EDGEKD_TEST_ARM_ROOT=FOLDER that tests/device/arm_root.sh made"
MODELS, SYSTEM = "/var/lib/edgekd", "/usr/bin/python3"
PYTHON, EDGEKD = (f"{MODELS}/.runtime/current/bin/{name}" for name in ("python", "edgekd"))
SESSION = "sshd"


@contextlib.contextmanager
def emulated(folder: Path) -> Iterator[SshDevice]:
    """Run sshd while in the block; each command has a /proc and /dev of its own, and what is mounted here."""
    enter = folder / "enter.sh"
    enter.write_text(
        f"#!/bin/sh\nexec unshare --mount sh -c 'mount -t proc proc {ROOT}/proc && mount --rbind /dev {ROOT}/dev && "
        f"cd / && exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "
        f'chroot {ROOT} /bin/sh -c "$SSH_ORIGINAL_COMMAND"\'\n'
    )
    enter.chmod(0o755)
    with served(folder, configuration=f"ForceCommand {enter}\n") as device:
        yield device


def written(path: Path, *, conf: float, name: str = "conformance") -> Path:
    """Write a bundle with LiteRT artifacts; another threshold or name makes another bundle."""
    bundle = _built()
    manifest = bundle.manifest
    predict = dataclasses.replace(manifest.predict, conf=conf)
    bundle.replace(dataclasses.replace(manifest, predict=predict, name=name)).write(path)
    return path


@cache
def _built() -> Any:
    return bundles.built("tflite", "fp32").bundle


def said(board: SshDevice, *command: str) -> str:
    """Return what a command prints there."""
    lines: list[str] = []
    done = board.run(command, listen=lines.append)
    assert done.code == 0, done.errors
    return "\n".join(lines)


def found_there(board: SshDevice, model: str, picture: str) -> Any:
    """Return the detections of a bundle there on a picture there."""
    return json.loads(said(board, EDGEKD, "predict", model, picture, "--json").splitlines()[-1])


def running() -> list[int]:
    """Return the processes that run in the root."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "root").readlink() == Path(ROOT).resolve():
                found.append(int(entry.name))
    return found


def kill_all() -> None:
    """Kill whatever runs there, at once, as a crash of the board's programs would."""
    for process in running():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def wait_until_idle(seconds: float = 300) -> None:
    """Wait until nothing runs there: what a lost host has begun goes on to its end."""
    deadline = time.monotonic() + seconds
    while running():
        assert time.monotonic() < deadline, "the board is still at work"
        time.sleep(0.5)
