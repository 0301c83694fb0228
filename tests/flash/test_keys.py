"""`edgekd keys`: made with the right modes, never overwritten, listed by id, used to sign."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import edgekd
from edgekd.cli.main import main
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pair_is_made_once_and_signs(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "ci"
    assert main(["keys", "new", str(secret)]) == 0
    assert secret.stat().st_mode & 0o777 == 0o600
    text = secret.read_text()
    assert main(["keys", "new", str(secret)]) == 2
    assert secret.read_text() == text
    shown = capsys.readouterr()
    assert "are not overwritten" in shown.err
    assert text.splitlines()[1] not in shown.out + shown.err
    assert main(["keys", "list", str(tmp_path), "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert main(["keys", "sign", str(bench.old), "--key", str(secret), "--out", str(tmp_path / "s.bin"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key_id"] == listed["key_id"]
    with edgekd.Bundle.read(tmp_path / "s.bin") as bundle:
        assert bundle.verify_signature([(tmp_path / "ci.pub").read_bytes()]) == listed["key_id"]


def test_what_is_no_key_is_said(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no public key \(\*\.pub\) in"):
        edgekd.keys_list([str(tmp_path)])
    (tmp_path / "x.pub").write_text("text")
    with pytest.raises(UsageError, match=r"x\.pub: a public key should be Ed25519"):
        edgekd.keys_list([str(tmp_path)])
    edgekd.keys_new(tmp_path / "k")
    with pytest.raises(UsageError, match=r"k: a public key should be .*; this is the secret one, .* lies in FILE\.pub"):
        edgekd.keys_list([str(tmp_path / "k")])
    with pytest.raises(UsageError, match=r"k\.pub: a private key should be .* bytes; this is the public one, the"):
        edgekd.keys_sign(bench.old, tmp_path / "k.pub")
    with pytest.raises(UsageError, match=r"x\.pub: a private key should be .* PEM or as its 32 raw bytes$"):
        edgekd.keys_sign(bench.old, tmp_path / "x.pub")
    with pytest.raises(UsageError, match="cannot read the key"):
        edgekd.keys_sign(bench.old, tmp_path / "none")
    with pytest.raises(UsageError, match="cannot write"):
        edgekd.keys_new(tmp_path / "no" / "folder")
