"""Ed25519 signatures (RFC 8032) over a bundle's table of contents: through its hashes they cover every byte."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ._container import Signature
from .errors import MissingPackageError, SignatureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DOMAIN = b"edgekd bundle signature 1\n"  # so that a signature for another purpose never fits a bundle


def sign(toc_sha256: str, private_key: bytes | str) -> Signature:
    """Sign the hash of a table of contents.

    Args:
        toc_sha256: hexadecimal.
        private_key: PEM (PKCS #8, not encrypted), or the 32 raw bytes of the key.

    Raises:
        UsageError: no Ed25519 private key.
        MissingPackageError: cryptography is not installed.
    """
    key = _private(private_key)
    raw = key.public_key().public_bytes_raw()
    return Signature(hashlib.sha256(raw).hexdigest(), key.sign(DOMAIN + bytes.fromhex(toc_sha256)))


def verify(toc_sha256: str, signature: Signature | None, public_keys: Iterable[bytes | str], source: str) -> str:
    """Return the id of the key, out of `public_keys` (PEM or 32 raw bytes each), that made the signature.

    Raises:
        SignatureError: unsigned, signed by another key, or the signature does not fit the contents.
        UsageError: one of the keys is no Ed25519 public key.
        MissingPackageError: cryptography is not installed.
    """
    trusted = {key_id(raw): raw for raw in (_public_raw(key) for key in public_keys)}
    if signature is None:
        raise SignatureError(f"{source} is not signed; a signature by one of {_listed(trusted)} is required")
    raw = trusted.get(signature.key_id)
    if raw is None:
        raise SignatureError(f"{source} is signed by key {signature.key_id[:16]}; trusted: {_listed(trusted)}")
    from cryptography.exceptions import InvalidSignature

    try:
        _public(raw).verify(signature.value, DOMAIN + bytes.fromhex(toc_sha256))
    except InvalidSignature as error:
        raise SignatureError(
            f"{source}: the signature by key {signature.key_id[:16]} does not fit the contents"
        ) from error
    return signature.key_id


def key_id(public_key: bytes | str) -> str:
    """Return the id of a public key (PEM or 32 raw bytes): the SHA-256 of its raw bytes, hexadecimal."""
    return hashlib.sha256(_public_raw(public_key)).hexdigest()


def _listed(trusted: Iterable[str]) -> str:
    return ", ".join(sorted(item[:16] for item in trusted)) or "(no key was given)"


def _public_raw(key: bytes | str) -> bytes:
    if isinstance(key, bytes) and len(key) == 32:
        return key
    return _public(key).public_bytes_raw()


def _public(key: bytes | str) -> Ed25519PublicKey:
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if isinstance(key, bytes) and len(key) == 32:
        return Ed25519PublicKey.from_public_bytes(key)
    try:
        loaded = load_pem_public_key(key.encode() if isinstance(key, str) else key)
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "" if not _says(key, b"PRIVATE KEY") else "; this is the secret one, the public one lies in FILE.pub"
        raise UsageError(f"a public key should be Ed25519, as PEM or as its 32 raw bytes{hint}") from error
    if not isinstance(loaded, Ed25519PublicKey):
        raise UsageError(f"a public key should be Ed25519, got {type(loaded).__name__}")
    return loaded


def _says(key: bytes | str, kind: bytes) -> bool:
    """Whether a key is PEM of this kind: the two files of a pair are easily taken for each other."""
    return isinstance(key, (bytes, str)) and kind in (key.encode() if isinstance(key, str) else key).split(b"\n")[0]


def _private(key: bytes | str) -> Ed25519PrivateKey:
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if isinstance(key, bytes) and len(key) == 32:
        return Ed25519PrivateKey.from_private_bytes(key)
    try:
        loaded = load_pem_private_key(key.encode() if isinstance(key, str) else key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The reason may quote key material: it is not told.
        hint = "" if not _says(key, b"PUBLIC KEY") else "; this is the public one, the secret one is without .pub"
        raise UsageError(f"a private key should be Ed25519, as unencrypted PEM or as its 32 raw bytes{hint}") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise UsageError(f"a private key should be Ed25519, got {type(loaded).__name__}")
    return loaded


def _require() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("signatures need cryptography: pip install 'edgekd[flash]'") from error
