"""Writing a generated set to a folder, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ....errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .annotations import Annotations

Progress = Callable[[int, int], None]
"""Receives (images written, images in all)."""


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes `folder` on success and vanishes on failure.

    Raises:
        DataError: `folder` is a file, holds something already, cannot be created, or was filled meanwhile.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not an empty folder; name a new folder, or delete that one first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"cannot write to {folder.parent}: {error.strerror}; name a folder that can be written"
        ) from error
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's folder is private
        _become(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _become(temporary: Path, folder: Path) -> None:
    try:
        temporary.replace(folder)  # takes the place of an empty folder, and of no other
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise DataError(
            f"{folder} was written by somebody else meanwhile and is left as it is; name another folder"
        ) from error


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write `(H, W, 3)` or `(H, W)` uint8 as JPEG (quality 90) or PNG, after the suffix."""
    options: dict[str, Any] = {"quality": 90} if path.suffix == ".jpg" else {"compress_level": 3}
    Image.fromarray(image).save(path, **options)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON and flush it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


class CocoFile:
    """Collects the COCO JSON of one split."""

    def __init__(self, classes: tuple[str, ...], description: str, layout: str) -> None:
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [{"id": k + 1, "name": name, "supercategory": "object"} for k, name in enumerate(classes)]
        self._info = {"description": description, "layout": layout}

    def add(
        self, file_name: str, image: NDArray[np.uint8], found: Annotations, corners: NDArray[np.float32] | None
    ) -> None:
        """Add an image; `corners` `(N, 4, 2)` become the `segmentation`, and `bbox` their hull in the image."""
        image_id = len(self._images) + 1
        height, width = image.shape[:2]
        self._images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for k, label in enumerate(found.labels):
            if corners is None:
                x0, y0, x1, y1 = (float(v) for v in found.boxes[k])
                outline, area = [], (x1 - x0) * (y1 - y0)
            else:
                inside = np.clip(corners[k], 0, (width, height))
                (x0, y0), (x1, y1) = inside.min(0).tolist(), inside.max(0).tolist()
                outline, area = [corners[k].reshape(-1).tolist()], float(found.boxes[k, 2] * found.boxes[k, 3])
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": area,
                    "iscrowd": 0,
                    "segmentation": outline,
                    "visibility": round(float(found.visibility[k]), 4),
                }
            )

    def write(self, path: Path) -> None:
        """Write the file."""
        content = {
            "info": self._info,
            "images": self._images,
            "annotations": self._annotations,
            "categories": self._categories,
        }
        write_json(path, content)
