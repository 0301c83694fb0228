"""`profile_receipt`: a profile's figures go back into the bundle that was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ._bundle import Bundle
from .errors import UsageError
from .profiling.record import TOTAL, Profile

PERCENTILES = ("p50", "p90", "p99")
WHERE = ("what", "target", "precision", "machine")  # one row of each: the latest


@dataclasses.dataclass(frozen=True)
class ReceiptReport:
    """What was written.

    Attributes:
        path: of the bundle.
        rows: that it holds now, of this profile.
        replaced: rows of earlier profiles of the same artifact on the same machine that went.
        signature_dropped: whether the bundle was signed; new contents need a new signature.
    """

    path: str
    rows: tuple[dict[str, Any], ...]
    replaced: int
    signature_dropped: bool


def profile_receipt(path: str | Path, found: Profile | str | Path, out: str | Path | None = None) -> ReceiptReport:
    """Write a profile's figures into the receipts of its bundle, atomically; a signature is dropped.

    Args:
        path: `model.bin`, as it was measured.
        found: the profile, or the path of its JSON.
        out: file to write; None: the bundle itself.

    Raises:
        UsageError: the profile is of other contents, or is none.
        BundleError: the file is not a sound bundle, or cannot be written.
    """
    profile = found if isinstance(found, Profile) else Profile.read(found)
    with Bundle.read(path) as bundle:
        if bundle.digest != profile.digest:
            raise UsageError(
                f"{path} is not what was measured (its contents are {bundle.digest[:16]}, the profile is of "
                f"{profile.digest[:16]}): measure it again, edgekd profile {path} --receipt"
            )
        rows = _rows(profile)
        keys = {_key(row) for row in rows}
        kept = tuple(row for row in bundle.manifest.receipts if _key(row) not in keys)
        manifest = dataclasses.replace(bundle.manifest, receipts=(*kept, *rows))
        destination = Path(path if out is None else out)
        bundle.replace(manifest).write(destination)
        replaced = len(bundle.manifest.receipts) - len(kept)
        return ReceiptReport(str(destination), rows, replaced, bundle.signature is not None)


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in WHERE)


def _rows(profile: Profile) -> tuple[dict[str, Any], ...]:
    machine, session = profile.machine, profile.session
    conditions: dict[str, Any] = {
        "target": session["target"],
        "precision": session["precision"],
        "compute": session["compute"],
        "runtime": session["runtime"],
        "machine": str(machine.get("board") or machine["processor"]),
        **{name: machine[name] for name in ("power mode", "governor") if name in machine},
        "calls": len(profile.start_s),
        "images": profile.images,
        "fps": profile.fps,
        "date": machine["date"],
        "valid": profile.valid,
        **({} if profile.valid else {"problems": list(profile.problems)}),
    }
    total = profile.summary[TOTAL]
    rows: list[dict[str, Any]] = [
        {"what": f"latency_{name}", "value": getattr(total, name), "unit": "ms"} for name in PERCENTILES
    ]
    rows += [
        {"what": f"energy {rail}"[:256], "value": value, "unit": "mJ a call"}
        for rail, value in profile.energy_mj().items()
    ]
    rows.append({"what": "peak_memory", "value": profile.peak_memory_bytes, "unit": "bytes"})
    return tuple({**row, **conditions} for row in rows)
