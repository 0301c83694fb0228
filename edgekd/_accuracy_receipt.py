"""What an evaluation measured, as receipts of the bundle: figures with the fingerprint of their data."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import platform
from typing import TYPE_CHECKING, Any

from ._accuracies import default_mode
from ._bundle import Bundle

if TYPE_CHECKING:
    from pathlib import Path

    from ._eval import EvalReport

SAME = ("what", "split", "data_sha256", "target", "precision", "tile", "mode")  # one row of each: the latest


def write_accuracy(path: Path, report: EvalReport, split: str, data_sha256: str) -> bool:
    """Write the finite figures of an evaluation into the bundle, atomically.

    Returns:
        Whether the bundle was signed: new contents need a new signature.

    Raises:
        BundleError: it cannot be read or written.
    """
    session = report.session
    conditions: dict[str, Any] = {
        "unit": "fraction", "split": split, "images": report.images, "data": report.data, "data_sha256": data_sha256,
        "target": session.target, "precision": session.precision, "compute": session.compute,
        "runtime": session.runtime, "machine": f"{platform.machine()} {platform.system()}", "tile": report.tile,
        "mode": report.metrics.get("mode"),
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }  # fmt: skip
    rows = tuple(
        {"what": name, "value": value, **conditions}
        for name, value in report.metrics.items()
        if isinstance(value, float) and math.isfinite(value)
    )
    with Bundle.read(path) as bundle:
        usual = {"mode": default_mode(bundle.manifest)}  # of receipts that do not say
        keys = {_key(row) for row in rows}
        kept = tuple(row for row in bundle.manifest.receipts if _key({**usual, **row}) not in keys)
        bundle.replace(dataclasses.replace(bundle.manifest, receipts=(*kept, *rows))).write(path)
        return bundle.signature is not None


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in SAME)
