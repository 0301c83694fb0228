"""Keys: made here, listed anywhere, allowed by the board's own folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .._bundle import Bundle
from .._signature import key_id
from ..errors import EdgekdError, MissingPackageError, UsageError


@dataclass(frozen=True)
class Key:
    """A public key.

    Attributes:
        path: its file.
        key_id: SHA-256 of the raw key, hexadecimal; what a signature names.
    """

    path: str
    key_id: str


def keys_new(path: str | Path) -> Key:
    """Make an Ed25519 key pair: `path` (private, readable by you alone) and `path`.pub (for boards).

    Raises:
        UsageError: one of the files exists; a key is never overwritten.
        MissingPackageError: cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
    except ImportError as error:
        raise MissingPackageError("keys need cryptography: pip install 'edgekd[flash]'") from error
    private, public = Path(path), Path(f"{path}.pub")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if public.exists():
        raise UsageError(f"{public} exists, and keys are not overwritten: name another file")
    _create(private, secret, 0o600)
    _create(public, shown, 0o644)
    return Key(str(public), key_id(shown))


def keys_list(paths: list[str] | tuple[str, ...]) -> tuple[Key, ...]:
    """Return the public keys in files and folders (`*.pub`), with their ids.

    Raises:
        UsageError: a file is no Ed25519 public key, or there is none.
    """
    files: list[Path] = []
    for item in map(Path, paths):
        files += sorted(item.glob("*.pub")) if item.is_dir() else [item]
    if not files:
        raise UsageError(f"no public key (*.pub) in {', '.join(paths)}; `edgekd keys new FILE` makes one")
    return tuple(_read(file) for file in files)


def keys_sign(path: str | Path, key: str | Path, out: str | Path | None = None) -> str:
    """Sign a bundle, in place or to another file, and return the id of the key.

    Raises:
        BundleError: not a sound bundle, or it cannot be written.
        UsageError: no Ed25519 private key; the message quotes nothing of it.
        MissingPackageError: cryptography is not installed.
    """
    try:
        secret = Path(key).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the key {key}: {error.strerror}") from error
    with Bundle.read(path) as bundle:
        signed = _signed(bundle, secret, key)
        signed.write(path if out is None else out)
        assert signed.signature is not None
        return signed.signature.key_id


def _signed(bundle: Bundle, secret: bytes, key: str | Path) -> Bundle:
    try:
        return bundle.sign(secret)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from None


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist, with its mode from the first byte on."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise UsageError(f"{path} exists, and keys are not overwritten: name another file") from error
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> Key:
    try:
        return Key(str(path), key_id(path.read_bytes()))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except MissingPackageError:
        raise
    except EdgekdError as error:
        raise UsageError(f"{path}: {error}") from error
