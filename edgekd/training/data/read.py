"""`read`: one data set in any supported format, found out from its files where not said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from .coco import read_coco
from .voc import read_voc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sample import Dataset

FORMATS = ("coco", "voc")


def read(
    path: str | Path, format: str = "auto", split: str | None = None, classes: Sequence[str] | None = None
) -> Dataset:
    path = Path(path)
    if format == "coco" or path.suffix == ".json":
        return read_coco(path, split, classes)
    return read_voc(path, classes)
