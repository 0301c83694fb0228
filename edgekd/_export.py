"""`export`: a bundle as an artifact for a fleet that Mender, RAUC or SWUpdate looks after."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._bundle import Bundle
from ._container import write_file
from ._flash.verbs import NAME, ROOT
from .errors import BuildError, UsageError

if TYPE_CHECKING:
    from ._export_files import Made

WORD = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
COMPATIBLE = {"mender": WORD, "rauc": WORD, "swupdate": rf"{WORD}:{WORD}"}
EXAMPLE = {"mender": "jetson-orin-nano", "rauc": "jetson-orin-nano", "swupdate": "jetson-orin-nano:1.0"}
PACKAGES = {"mender-artifact": "mender-artifact", "rauc": "rauc", "openssl": "openssl"}  # of Debian, by program


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        kind: "mender", "rauc" or "swupdate".
        version: of the artifact.
        artifact: path of what the fleet takes; None: a program that makes it is missing here.
        files: paths of what it is made of.
        commands: that make it, run in the folder of the files; they are in `build.sh` too.
        on_board: what a board needs once.
        missing: what to type where a program is missing; empty: none is.
    """

    kind: str
    version: str
    artifact: str | None
    files: tuple[str, ...]
    commands: tuple[str, ...]
    on_board: str
    missing: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


def export(
    path: str | Path,
    to: str,
    out: str | Path,
    *,
    compatible: str,
    version: str | None = None,
    name: str = NAME,
    root: str = ROOT,
    python: str = "python3",
    restart: str | None = None,
    health: str | None = None,
    max_p99_ms: float | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> ExportReport:
    """Write what a fleet manager needs to bring a bundle into service by `edgekd flash` on each board itself.

    Args:
        path: `model.bin`.
        to: "mender", "rauc" or "swupdate".
        out: folder to write; made if it is not there.
        compatible: boards that take it: Mender's device type, RAUC's compatible, SWUpdate's BOARD:REVISION.
        version: of the artifact; None: the model's name and the beginning of the bundle's digest.
        name: of the model on the board, as in `flash`.
        root: folder on the board, as in `flash`.
        python: interpreter on the board that has edgekd.
        restart: as in `flash`.
        health: as in `flash`.
        max_p99_ms: as in `flash`.
        cert: file of the signer's certificate (PEM); RAUC needs it.
        key: file of the signer's private key (PEM), or for RAUC a PKCS#11 address; RAUC needs it, the others may.

    Raises:
        UsageError: another fleet manager, a word that it would not take, or no key where one is needed.
        BundleError: the file is not a sound bundle.
        BuildError: the program that makes the artifact failed; with its words.
    """
    from ._export_files import KINDS, Plan

    if to not in KINDS:
        raise UsageError(f"no fleet manager {to!r}; possible: {', '.join(KINDS)}")
    if not re.fullmatch(COMPATIBLE[to], compatible):
        raise UsageError(f"--compatible {compatible}: {to} expects something like {EXAMPLE[to]}")
    _check_signer(to, cert, key)
    with Bundle.read(path) as bundle:
        stem = re.sub(r"[^A-Za-z0-9._+-]", "-", bundle.manifest.name).lstrip("._+-")[:48] or "model"
        wanted = version if version is not None else f"{stem}-{bundle.digest[:12]}"
    if not re.fullmatch(WORD, wanted):
        raise UsageError(f"--artifact-version {wanted}: letters, digits and ._+- only, at most 64")
    where = ["--name", name, "--root", root, "--python", python]
    limits = {"--restart": restart, "--health": health, "--max-p99": None if max_p99_ms is None else f"{max_p99_ms:g}"}
    given = [word for option, value in limits.items() if value is not None for word in (option, value)]
    program = [python, "-m", "edgekd.cli.main"]
    plan = Plan(
        wanted, compatible, [*program, "flash", "$MODEL", "local", *where, *given],
        [*program, "rollback", "local", *where], _absolute(cert), _absolute(key),
    )  # fmt: skip
    return _write(to, KINDS[to](plan, Path(path).read_bytes()), Path(out), wanted)


def _check_signer(to: str, cert: str | None, key: str | None) -> None:
    if to == "rauc" and (cert is None or key is None):
        raise UsageError("RAUC bundles are always signed: --cert cert.pem --key key.pem")
    if to == "swupdate" and (cert is None) != (key is None):
        raise UsageError("a signature needs both: --cert cert.pem --key key.pem")
    if to == "mender" and cert is not None:
        raise UsageError("Mender signs by a key alone: leave --cert out")
    for file in (cert, key):
        if file is not None and not file.startswith("pkcs11:") and not Path(file).is_file():
            raise UsageError(f"there is no file {file}")


def _absolute(file: str | None) -> str:
    return "" if file is None else file if file.startswith("pkcs11:") else str(Path(file).resolve())


def _write(to: str, made: Made, folder: Path, version: str) -> ExportReport:
    import shlex
    import shutil

    files = dict(made.files)
    commands = tuple(shlex.join(command) for command in made.commands)
    build = "\n".join(["#!/bin/sh", 'cd "$(dirname "$0")" && set -e', *commands, ""])
    if commands:
        files["build.sh"] = build.encode()
    try:
        for name, content in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_file(target, [content])
            if content.startswith(b"#!"):
                target.chmod(0o755)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
    lacking = [command[0] for command in made.commands if shutil.which(command[0]) is None]
    missing = ""
    if lacking:
        packages = " ".join(PACKAGES[program] for program in lacking)
        missing = f"{', '.join(lacking)} is not installed: apt install {packages}, then give the command again"
    else:
        _run(made, folder)
    return ExportReport(
        to, version, None if lacking else str(folder / made.artifact), tuple(str(folder / name) for name in files),
        commands, made.on_board, missing,
    )  # fmt: skip


def _run(made: Made, folder: Path) -> None:
    """Run the commands, and whatever is left to do without one."""
    import shlex
    import subprocess

    (folder / made.artifact).unlink(missing_ok=True)  # RAUC does not overwrite
    for command in made.commands:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
            raise BuildError(f"{command[0]} failed: {said[-1]}\n  it was: {shlex.join(command)}")
    if made.finish is not None:
        signed = {name: (folder / name).read_bytes() for name in made.signed_files}
        write_file(folder / made.artifact, [made.finish({**made.files, **signed})])
