"""`WeightsReport`: what a weights file gave to a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class WeightsReport:
    """Result of loading one file.

    Attributes:
        path: the file.
        sha256: of the whole file, lower-case hex.
        kind: "backbone" or "detector".
        tensors: how many tensors were loaded.
        values: how many numbers they hold.
        missing: names that stay randomly initialised because the recipe says that the file ends before them.
        ignored: names in the file that a detector has no use for (the classifier).
    """

    path: Path
    sha256: str
    kind: str
    tensors: int
    values: int
    missing: tuple[str, ...]
    ignored: tuple[str, ...]
