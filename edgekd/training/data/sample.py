"""`Sample` and `Dataset`: one type for every reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..._preprocess import open_image
from ...errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated image.

    Attributes:
        path: the image file.
        size: `(width, height)` in pixels as the annotation or the file header says.
        boxes: `(N, 4)` float32 xyxy or `(N, 5)` float32 xywhr (radians, clockwise, le90), in pixels.
        labels: `(N,)` int64, index into `Dataset.classes`.
        difficult: `(N,)` bool: to be ignored by the metric.
        crowd: `(N,)` bool, which of these are boxes around a crowd, COCO's `iscrowd`; None: none.
        mask: file of a defect mask (non-zero = defect), anomaly sets only.
        anomalous: for anomaly sets, whether the image is a defect; None elsewhere.
        defect: folder name of the defect type ("good" for normal), anomaly sets only.
    """

    path: Path
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    mask: Path | None = None
    anomalous: bool | None = None
    defect: str | None = None
    crowd: NDArray[np.bool_] | None = None

    def load(self) -> NDArray[np.uint8]:
        """Read the image as `(H, W, 3)` uint8 RGB, upright as its EXIF orientation says; of 16-bit PNG the high byte.

        The runtime decodes files alike.

        Raises:
            DataError: the file is missing, cannot be decoded, or its values have no scale of their own (16-bit TIFF).
        """
        from PIL import ImageOps

        try:
            with open_image(self.path) as image:
                if image.mode.startswith(("I", "F")):
                    return _high_byte(image, self.path)
                upright = ImageOps.exif_transpose(image)
                if "transparency" in upright.info:  # Pillow warns when it has to drop it from a palette in one step
                    upright = upright.convert("RGBA")
                return np.asarray(upright.convert("RGB"))
        except DataError:
            raise
        # A damaged file reaches any decoder and any exception (OSError, SyntaxError, struct.error, zlib.error, ...).
        except Exception as error:
            raise DataError(f"cannot read the image {self.path}: {error}") from error


def _high_byte(image: ImageFile, path: Path) -> NDArray[np.uint8]:
    if image.format != "PNG":
        raise DataError(f"{path} has mode {image.mode}, whose scale only you know: convert it to 8 bits a channel")
    grey = (np.asarray(image) >> 8).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A list of samples of one split with their class names. `task`: "detect", "obb" or "anomaly"."""

    name: str
    task: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    problems: tuple[str, ...] = field(default=())  # what the reader dropped, one line each

    def __len__(self) -> int:
        return len(self.samples)

    def taught(self, sample: Sample) -> NDArray[np.bool_]:
        """Return `(N,)` which objects of a sample training learns: all of an oriented set, else those not difficult.

        In oriented sets the mark stands for a small object, or for one that the border of a tile cuts, and their users
        train on them; as background they would teach the network not to see objects at borders. In upright sets it may
        stand for a crowd, whose box is no object's.
        """
        return np.ones_like(sample.difficult) if self.task == "obb" else ~sample.difficult
