"""Sent as text to a board that has no edgekd yet: `python3 -c SOURCE VERB REQUEST`. Standard library only, Python 3.8.

`probe` says what the board's Python is and writes nothing; `install` makes a virtual environment from wheels that lie
there already, and lets ROOT/.runtime/current lead to it when it works. Not imported by anything but its tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

MARK = "edgekd "  # as in `wire`
COMPLETE = "complete"  # written last into an environment
SECONDS = 1800


class Refused(Exception):  # noqa: N818 - becomes a DeviceError on the host
    """What cannot be done, in words."""


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Return what decides whether wheels fit, and what is there already."""
    root = Path(request["root"]).expanduser()
    if not root.is_absolute():
        raise Refused("--root should be an absolute path on the board, got " + str(root))
    place = root
    while not place.is_dir():
        place = place.parent
    disk = os.statvfs(str(place))
    machine = platform.machine()
    if struct.calcsize("P") == 4 and machine in ("aarch64", "x86_64"):  # 32 bits on a kernel of 64
        machine = {"aarch64": "armv7l", "x86_64": "i686"}[machine]
    libc, version = platform.libc_ver()
    current = root / ".runtime" / "current"
    return {
        "root": str(root),
        "python": list(sys.version_info[:2]),
        "implementation": sys.implementation.name,
        "machine": machine,
        "glibc": version if libc == "glibc" else "",
        "ensurepip": importlib.util.find_spec("ensurepip") is not None,
        "writable": os.access(str(place), os.W_OK | os.X_OK),
        "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        "runtime": _target(current) if (current / COMPLETE).is_file() else None,
    }


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make the folder that the wheels go to; say which of an interrupted attempt are there."""
    folder = Path(request["root"]) / ".runtime" / (request["id"] + ".wheels")
    folder.mkdir(parents=True, exist_ok=True)
    have = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.whl")}
    return {"folder": str(folder), "have": have}


def install(request: dict[str, Any]) -> dict[str, Any]:
    """Make the environment, try it, switch to it, and drop all but it and the one before."""
    home = Path(request["root"]) / ".runtime"
    wheels, new = home / (request["id"] + ".wheels"), home / request["id"]
    with open(str(home / "lock"), "w") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (new / COMPLETE).is_file():
            shutil.rmtree(str(new), ignore_errors=True)
            try:
                _fill(new, wheels, request)
            except BaseException:
                shutil.rmtree(str(new), ignore_errors=True)
                raise
        before = _target(home / "current") if (home / "current").is_symlink() else None
        os.sync()
        _link(home / "current", request["id"])
        for path in home.iterdir():
            if path.is_dir() and not path.is_symlink() and path.name not in (request["id"], before):
                shutil.rmtree(str(path), ignore_errors=True)
    return {
        "python": str(home / "current" / "bin" / "python"),
        "version": (new / COMPLETE).read_text(),
        "before": before,
    }


def _target(link: Path) -> str:
    return os.readlink(str(link))  # noqa: PTH115 - `Path.readlink` came with Python 3.9


def _fill(new: Path, wheels: Path, request: dict[str, Any]) -> None:
    """Install into a new environment, which sees the system's packages: TensorRT comes with JetPack."""
    pip = next((str(wheels / name) for name in request["wheels"] if name.startswith("pip-")), None)
    if pip is None and importlib.util.find_spec("ensurepip") is None:
        raise Refused("its Python has no ensurepip: put pip's wheel into the folder (pip download --no-deps pip)")
    venv.EnvBuilder(system_site_packages=True, with_pip=pip is None).create(str(new))
    python = str(new / "bin" / "python")
    words = [str(wheels / name) for name in request["wheels"] if not name.startswith("pip-")]
    options = ["--no-index", "--find-links", str(wheels), "--only-binary", ":all:", "--disable-pip-version-check"]
    tool = [python, "-m", "pip"] if pip is None else [python, pip + "/pip"]
    _run([*tool, "install", "--quiet", "--no-input", *options, *words], "pip", new)
    found = _run([python, "-c", "import edgekd, edgekd.targets; print(edgekd.__version__)"], "edgekd", new)
    (new / COMPLETE).write_text(found.strip())


def _run(command: list[str], what: str, new: Path) -> str:
    """Run a program of the new environment, in its own folder: what lies in the user's is not to be imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=str(new), env=environment,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["without a word"]
        errors = [line for line in said if line.startswith("ERROR")]
        raise Refused(what + " failed: " + "; ".join(errors[:3] or said[-1:]))
    return done.stdout


def _link(path: Path, target: str) -> None:
    beside = path.with_name(".current.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    beside.symlink_to(target)
    os.replace(str(beside), str(path))  # noqa: PTH105
    handle = os.open(str(path.parent), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def main(argv: list[str]) -> int:
    """Answer one request, as `wire` does."""
    verbs = {"probe": probe, "prepare": prepare, "install": install}
    try:
        answer = {"result": verbs[argv[0]](json.loads(argv[1]))}
    except (Refused, OSError, subprocess.SubprocessError) as error:
        answer = {"error": {"kind": "DeviceError", "message": str(error)}}
    print(MARK + json.dumps(answer), flush=True)  # noqa: T201
    return 5 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
