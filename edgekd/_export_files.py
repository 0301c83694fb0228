"""The files of a Mender artifact, a RAUC bundle and an SWUpdate image, and the commands that make them.

Each carries the bundle to the board and there runs `edgekd flash model.bin local`: the same transaction, with its tests
on the board, as over ssh.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MODEL = "model.bin"
ORDERS = "edgekd.sh"  # beside the model in a Mender artifact: what its module does with it
NEWC = b"070702"  # cpio with checksums, which SWUpdate reads
BLOCK_BYTES = 512


@dataclass(frozen=True)
class Plan:
    """What is exported.

    Attributes:
        version: of the artifact; each needs its own.
        compatible: boards that take it, in the fleet's own words.
        flash: words of the command that the board runs on `$MODEL`.
        rollback: words of the command that goes back; it restarts the service, as `flash` does.
        cert: file of the signer's certificate; "": none.
        key: file of the signer's private key; "": none.
    """

    version: str
    compatible: str
    flash: Sequence[str]
    rollback: Sequence[str]
    cert: str = ""
    key: str = ""


@dataclass(frozen=True)
class Made:
    """One export: files by name, the commands that make the artifact of them, run in their folder, and its name.

    `finish` makes the artifact where no program is needed for the last step.
    """

    files: Mapping[str, bytes]
    artifact: str
    commands: Sequence[Sequence[str]] = ()
    on_board: str = ""
    finish: Callable[[Mapping[str, bytes]], bytes] | None = None
    signed_files: Sequence[str] = field(default_factory=tuple)  # written by the commands, put in by `finish`


def mender(plan: Plan, model: bytes) -> Made:
    """Return a Mender artifact for an update module, which comes with it and is the same for all models and options."""
    out = f"{plan.version}.mender"
    command = ["mender-artifact", "write", "module-image", "-T", "edgekd", "-n", plan.version, "-t", plan.compatible]
    command += ["-f", MODEL, "-f", ORDERS, "-o", out, "--software-name", "edgekd"]
    command += ["-k", plan.key] if plan.key else []
    note = "install `edgekd` once on each board as /usr/share/mender/modules/v3/edgekd, mode 0755"
    orders = f"flash() {{ {_shell(plan.flash)} --json; }}\nback() {{ {_shell(plan.rollback)}; }}\n"
    return Made({MODEL: model, ORDERS: orders.encode(), "edgekd": MENDER_MODULE.encode()}, out, [command], note)


MENDER_MODULE = f"""#!/bin/sh
# Mender update module: a model goes into service by edgekd's own transaction on this board.
# The artifact says how: {ORDERS} defines flash and back.
set -e
STATE="$1"
FILES="$2"
MODEL="$FILES/files/{MODEL}"
case "$STATE" in
    ArtifactInstall)
        cp "$FILES/files/{ORDERS}" "$FILES/tmp/{ORDERS}"  # kept until the end, whatever becomes of the payload
        . "$FILES/tmp/{ORDERS}"
        flash > "$FILES/tmp/edgekd.json" ;;
    NeedsArtifactReboot) echo No ;;
    SupportsRollback) echo Yes ;;
    ArtifactRollback)  # a flash that failed or changed nothing has left what was in service
        if grep -q '"changed": true' "$FILES/tmp/edgekd.json" 2>/dev/null; then
            . "$FILES/tmp/{ORDERS}"
            back
        fi ;;
esac
exit 0
"""  # noqa: S608 - "update" of a board, not of a table


def rauc(plan: Plan, model: bytes) -> Made:
    """Return a RAUC bundle whose handler flashes; no slot is touched."""
    manifest = (
        f"[update]\ncompatible={plan.compatible}\nversion={plan.version}\n\n[bundle]\nformat=verity\n\n"
        "[handler]\nfilename=install.sh\n"
    )
    handler = f'#!/bin/sh\nset -e\nMODEL="$RAUC_BUNDLE_MOUNT_POINT/{MODEL}"\nexec {_shell(plan.flash)}\n'
    files = {
        f"content/{MODEL}": model,
        "content/manifest.raucm": manifest.encode(),
        "content/install.sh": handler.encode(),
    }
    out = f"{plan.version}.raucb"
    command = ["rauc", "bundle", f"--cert={plan.cert}", f"--key={plan.key}", "content", out]
    return Made(files, out, [command], "its system.conf needs `compatible` and a keyring that knows the certificate")


def swupdate(plan: Plan, model: bytes) -> Made:
    """Return an SWUpdate image: the bundle as a file beside a script that flashes it."""
    board, _, revision = plan.compatible.partition(":")
    place = f"/tmp/{plan.version}.bin"  # noqa: S108 - on the board, for as long as the installation takes
    words = f"MODEL={shlex.quote(place)}\ntrap 'rm -f \"$MODEL\"' EXIT\n{_shell(plan.flash)}\n"
    script = f"#!/bin/sh\nset -e\n{words}".encode()
    description = f"""software =
{{
    version = "{plan.version}";
    {board} = {{
        hardware-compatibility: [ "{revision}" ];
        files: ( {{ filename = "{MODEL}"; path = "{place}"; sha256 = "{_sha256(model)}"; }} );
        scripts: ( {{ filename = "install.sh"; type = "postinstall"; sha256 = "{_sha256(script)}"; }} );
    }};
}}
"""
    first = {"sw-description": description.encode()}
    signature = "sw-description.sig"
    sign = ["openssl", "cms", "-sign", "-in", "sw-description", "-out", signature, "-signer", plan.cert]
    sign += ["-inkey", plan.key, "-outform", "DER", "-nosmimecap", "-binary"]
    commands, signed = ([sign], (signature,)) if plan.key else ([], ())
    order = ("sw-description", *signed, MODEL, "install.sh")
    files = {**first, MODEL: model, "install.sh": script}
    note = f"install with: swupdate -i {plan.version}.swu -H {plan.compatible}" + (" -k CERT" if plan.key else "")
    return Made(files, f"{plan.version}.swu", commands, note, lambda found: cpio({n: found[n] for n in order}), signed)


KINDS: Mapping[str, Callable[[Plan, bytes], Made]] = {"mender": mender, "rauc": rauc, "swupdate": swupdate}


def cpio(files: Mapping[str, bytes]) -> bytes:
    """Return an archive in cpio's "crc" format, which depends on names and contents alone."""
    parts = [_member(name, content, 0o100644) for name, content in files.items()]
    whole = b"".join([*parts, _member("TRAILER!!!", b"", 0)])
    return whole + b"\0" * (-len(whole) % BLOCK_BYTES)


def _member(name: str, content: bytes, mode: int) -> bytes:
    encoded = name.encode() + b"\0"
    check = sum(content) & 0xFFFFFFFF
    fields: list[Any] = [0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), check]
    head = NEWC + b"".join(b"%08X" % value for value in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


def _shell(words: Sequence[str]) -> str:
    """Return a command for `sh`; "$MODEL" stays as it is."""
    return " ".join('"$MODEL"' if word == "$MODEL" else shlex.quote(word) for word in words)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
