"""`generate`: a whole synthetic set in a folder; `scene`: one image in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import DataError, UsageError
from . import xray
from .annotations import SPLITS, Annotations
from .writing import CocoFile, Progress, whole_folder, write_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("xray",)
Size = int | tuple[int, int] | None


def scene(
    kind: str, seed: int, index: int, *, split: str = "train", size: Size = None
) -> tuple[NDArray[np.uint8], Annotations]:
    """Draw image `index` of a split in memory: the pixels that `generate` writes, before compression.

    Args:
        kind: "xray".
        seed: of the data set.
        index: of the image in its split, from 0.
        split: "train", "val" or "test".
        size: long side in pixels, or (height, width); None: the kind's own.

    Returns:
        The image `(H, W, 3)` uint8 RGB and its annotations.

    Raises:
        UsageError: an unknown kind or split, a size below 64, or a negative seed or index.
    """
    _check(kind, seed, size)
    if split not in SPLITS or index < 0:
        raise UsageError(f"got split {split!r}, index {index}; splits are {', '.join(SPLITS)}, indices start at 0")
    return xray.scene(seed, index, split=split, size=size)


def generate(
    kind: str,
    folder: Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    size: Size = None,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic set; the same arguments write the same pixels, and an image does not depend on the others.

    Writes `{train,val,test}/000000.jpg` and `{train,val,test}.json` (COCO). A split of 0 images is not written.

    Args:
        kind: "xray".
        folder: to write to; made if missing, refused if it holds anything. It appears only once it is complete.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        seed: of the set, >= 0.
        size: long side in pixels, or (height, width); None: the kind's own.
        progress: called with (images written, images in all).

    Returns:
        `folder`.

    Raises:
        UsageError: an unknown kind, a negative count or seed, or a size below 64.
        DataError: the folder is not empty or cannot be written.
    """
    _check(kind, seed, size)
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    if min(counts.values()) < 0 or not sum(counts.values()):
        raise UsageError(
            f"got {train} train, {val} val, {test} test images; counts are 0 or more, at least one above 0"
        )
    folder = Path(folder)
    with whole_folder(folder) as temporary:
        try:
            _write_boxes(temporary, counts, seed, size, progress)
        except OSError as error:
            raise DataError(f"cannot write the {kind} set to {folder}: {error}") from error
    return folder


def _check(kind: str, seed: int, size: Size) -> None:
    if kind not in KINDS:
        raise UsageError(f"no generator {kind!r}; possible: {', '.join(KINDS)}")
    if seed < 0:
        raise UsageError(f"got seed {seed}; a seed is 0 or more")
    sides = size if isinstance(size, tuple) else (size,)
    if any(side is not None and side < 64 for side in sides):
        raise UsageError(f"got size {size}; a side is 64 pixels or more")


def _write_boxes(folder: Path, counts: dict[str, int], seed: int, size: Size, progress: Progress | None) -> None:
    done, total = 0, sum(counts.values())
    for split, count in counts.items():
        if not count:
            continue
        coco = CocoFile(xray.CLASSES, f"edgekd synthetic xray, seed {seed}")
        (folder / split).mkdir()
        for index in range(count):
            image, found = xray.scene(seed, index, split=split, size=size)
            name = f"{index:06d}.jpg"
            write_image(folder / split / name, image)
            coco.add(name, image, found, None)
            done += 1
            if progress is not None:
                progress(done, total)
        coco.write(folder / f"{split}.json")
