"""What a bundle's receipts say about its artifacts: whether int8 may run and is worth it, what others were held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._manifest import Artifact, Manifest

QUANTIZED = ("int8",)
"""Precisions that run only with a receipt: they are another network until somebody has measured that they are not."""


@dataclass(frozen=True)
class Int8Receipt:
    """How an int8 artifact fared when it was built.

    Attributes:
        row: the whole receipt.
        passed: whether every gate held.
        rival: the fastest other precision of the target, as measured; None where the target could not run.
        speed_up: how many times as long the rival takes; None likewise.
        faster: whether that is more than noise.
    """

    row: dict[str, Any]
    passed: bool
    rival: str | None
    speed_up: float | None
    faster: bool


def needs_receipt(artifact: Artifact) -> bool:
    """Whether an artifact may run only with a passing receipt."""
    return artifact.precision in QUANTIZED


def int8_receipt(manifest: Manifest, target: str) -> Int8Receipt | None:
    """Return the receipt of a target's int8 artifact; None: there is none."""
    for row in manifest.receipts:
        if "quantization" in row and row.get("target") == target:
            said = row["quantization"]
            race = said["race"]
            return Int8Receipt(row, said["passed"], race["rival"], race["speed_up"], race["faster"])
    return None


def golden_when_judged(manifest: Manifest, artifact: Artifact) -> dict[str, float | None] | None:
    """Return the golden differences of an artifact that was judged on images instead of its precision's bound.

    None: its precision's bound holds for it, or it is of a precision that always needs a receipt.
    """
    for row in manifest.receipts:
        if "judgement" in row and (row.get("target"), row.get("precision")) == (artifact.target, artifact.precision):
            return dict(row["judgement"]["golden"])
    return None


def refusal(manifest: Manifest, artifact: Artifact) -> str | None:
    """Return why an artifact must not run, or None if it may."""
    if not needs_receipt(artifact):
        return None
    receipt = int8_receipt(manifest, artifact.target)
    if receipt is None:
        return f"{artifact.precision} without a receipt: nobody has measured what it loses"
    return None if receipt.passed else f"{artifact.precision} failed its gates when it was measured"
