"""Signatures: Ed25519 over the table of contents; only a trusted key over exactly these contents passes."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from edgekd._bundle import Bundle
from edgekd._manifest import InputSpec, Manifest, OutputSpec
from edgekd.errors import MissingPackageError, SignatureError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = Manifest(
    name="toy",
    task="detect",
    classes=("gun",),
    input=InputSpec(height=32, width=48),
    outputs=(
        OutputSpec(name="boxes", kind="boxes", shape=(6, 4), layout="xyxy"),
        OutputSpec(name="scores", kind="scores", shape=(6, 1), activation="sigmoid"),
    ),
)


def make_bundle(name: str = "toy") -> Bundle:
    return Bundle.create(dataclasses.replace(MANIFEST, name=name), {"graph.onnx": b"graph"})


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()


def test_signature_survives_the_file_and_names_its_key(tmp_path: Path) -> None:
    make_bundle().sign(KEY.private_bytes_raw()).write(tmp_path / "model.bin")
    with Bundle.read(tmp_path / "model.bin") as bundle:
        assert bundle.verify_signature([OTHER, PUBLIC]) == hashlib.sha256(PUBLIC).hexdigest()
        assert bundle.digest == make_bundle().digest


def test_keys_may_be_pem() -> None:
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert make_bundle().sign(private).verify_signature([public.decode()]) == hashlib.sha256(PUBLIC).hexdigest()


def test_unsigned_foreign_and_forged_signatures_are_refused() -> None:
    signed = make_bundle().sign(KEY.private_bytes_raw())
    with pytest.raises(SignatureError, match="not signed"):
        make_bundle().verify_signature([PUBLIC])
    with pytest.raises(SignatureError, match=r"signed by key .*; trusted: "):
        signed.verify_signature([OTHER])
    with pytest.raises(SignatureError, match="no key was given"):
        signed.verify_signature([])
    with pytest.raises(SignatureError, match="not signed"):
        signed.replace(dataclasses.replace(MANIFEST, name="evil")).verify_signature([PUBLIC])
    assert signed.signature is not None
    evil = make_bundle(name="evil")
    evil.signature = signed.signature
    with pytest.raises(SignatureError, match="does not fit"):
        evil.verify_signature([PUBLIC])
    evil.signature = dataclasses.replace(signed.signature, value=bytes(64))
    with pytest.raises(SignatureError, match="does not fit"):
        evil.verify_signature([PUBLIC])


def test_wrong_keys_are_usage_errors_that_quote_nothing() -> None:
    ec = generate_private_key(SECP256R1())
    pem = ec.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(UsageError, match="Ed25519, got"):
        make_bundle().sign(pem)
    with pytest.raises(UsageError, match="Ed25519, as PEM"):
        make_bundle().verify_signature([b"nonsense"])
    with pytest.raises(UsageError) as raised:
        make_bundle().sign(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    assert "c2VjcmV0" not in str(raised.value)


def test_without_cryptography_signing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'edgekd\[flash\]'"):
        make_bundle().sign(bytes(32))
