"""Whom a board believes: the keys in its own folder; and no older version unless somebody asks for it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from .._signature import key_id
from ..errors import EdgekdError, SignatureError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from .._bundle import Bundle

UNDATED = dt.datetime.min.replace(tzinfo=dt.timezone.utc)


def allowed_keys(folder: Path) -> dict[str, bytes]:
    """Return the public keys that may sign, by file name; none if there is no such folder.

    Raises:
        SignatureError: a file in it is no public key: a board that was to be closed does not open for a typing error.
    """
    keys = {}
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SignatureError(f"cannot read the allowed keys in {folder}: {error.strerror}") from error
    for path in paths:
        if path.name.startswith("."):
            continue
        try:
            content = path.read_bytes()
            key_id(content)
        except (OSError, EdgekdError) as error:
            raise SignatureError(f"{path} cannot be used as an allowed key ({error}): mend or remove it") from error
        keys[path.name] = content
    return keys


def check_signature(bundle: Bundle, keys: dict[str, bytes]) -> str | None:
    """Return the id of the allowed key that signed a bundle; None where no keys are set.

    Raises:
        SignatureError: keys are set, and none of them signed exactly this.
    """
    return bundle.verify_signature(keys.values()) if keys else None


def check_order(created: str, in_service: str) -> None:
    """Refuse a bundle that was made before the one in service; both times are the bundles' own, no clock is asked.

    Raises:
        UsageError: it is older, or has no date while the other has one.
    """
    if _time(created) < _time(in_service):
        raise UsageError(
            f"this bundle was made {created or '(no date)'}, before the one in service ({in_service}): "
            "a downgrade wants --allow-downgrade, and `edgekd rollback` returns to the version before"
        )


def _time(text: str) -> dt.datetime:
    """Read a manifest's `created`; its form was checked when the manifest was read."""
    if not text:
        return UNDATED
    try:
        whole, _, fraction = text.replace("+00:00", "").rstrip("Z").partition(".")
        microseconds = int(fraction.ljust(6, "0")) if fraction else 0
        return dt.datetime.fromisoformat(whole).replace(microsecond=microseconds, tzinfo=dt.timezone.utc)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time: the bundle's `created` names a day that does not exist") from error
