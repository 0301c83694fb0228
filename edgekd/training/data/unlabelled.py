"""Images without annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError
from .files import IMAGE_SUFFIXES, header_size, read_text
from .sample import Dataset, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def read_unlabelled(path: Path, classes: Sequence[str], task: str) -> Dataset:
    """Read the images of a folder, sub-folders included, or of a list file: one path a line, relative to the file.

    Args:
        path: see above.
        classes: names in label order.
        task: "detect" or "obb", as the labelled images that they are mixed with.

    Returns:
        A data set whose samples have no boxes, `(0, 4)` or `(0, 5)`.

    Raises:
        DataError: there is no image, or one cannot be read.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    else:
        names = (line.strip() for line in read_text(path).splitlines())
        files = [path.parent / name for name in names if name]
    if not files:
        raise DataError(f"no image in {path}: a folder of pictures, or a list file with one path a line, is needed")
    nothing = np.zeros((0, 5 if task == "obb" else 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    samples = tuple(Sample(file, header_size(file), *nothing) for file in files)
    return Dataset(f"{path.name} (unlabelled)", task, tuple(classes), samples)
