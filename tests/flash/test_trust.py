"""Trust: no change of a signed bundle gets past a board that has keys; the order of versions is the bundles' own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd import Bundle
from edgekd._flash.trust import allowed_keys, check_order, check_signature
from edgekd.errors import BundleError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_mutation_of_a_signed_bundle_is_accepted(bench: Any, tmp_path: Path, data: st.DataObject) -> None:
    with Bundle.read(bench.old) as bundle:
        bundle.sign(KEY.private_bytes_raw()).write(tmp_path / "signed.bin")
    original = (tmp_path / "signed.bin").read_bytes()
    mutated = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 511) | st.integers(0, len(original) - 1))
        mutated[at] ^= data.draw(st.integers(1, 255))
    mutated = mutated[: data.draw(st.just(len(mutated)) | st.integers(0, len(mutated)))]
    (tmp_path / "mutated.bin").write_bytes(mutated)
    if mutated == original:
        return
    with pytest.raises(BundleError), Bundle.read(tmp_path / "mutated.bin") as bundle:
        check_signature(bundle, {"k": PUBLIC})


def test_keys_are_files_and_no_folder_means_no_keys(tmp_path: Path) -> None:
    assert allowed_keys(tmp_path / "none") == {}
    (tmp_path / ".hidden").write_bytes(b"an editor's")
    (tmp_path / "raw").write_bytes(PUBLIC)
    assert allowed_keys(tmp_path) == {"raw": PUBLIC}


@pytest.mark.parametrize(
    ("new", "old", "refused"),
    [
        ("2026-11-02T08:00:00Z", "2026-11-01T08:00:00Z", False),
        ("2026-11-01T08:00:00Z", "2026-11-01T08:00:00Z", False),
        ("2026-11-01T08:00:00.5Z", "2026-11-01T08:00:00Z", False),
        ("2026-11-01T08:00:00Z", "2026-11-01T08:00:00.5+00:00", True),
        ("2026-11-01T07:59:59Z", "2026-11-01T08:00:00+00:00", True),
        ("", "2026-11-01T08:00:00Z", True),
        ("", "", False),
        ("2026-02-31T08:00:00Z", "", True),
    ],
)
def test_an_older_bundle_is_refused(new: str, old: str, refused: bool) -> None:
    if refused:
        with pytest.raises(UsageError):
            check_order(new, old)
    else:
        check_order(new, old)
