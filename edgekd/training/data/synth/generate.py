"""`generate`: a whole synthetic set in a folder; `scene`: one image in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....errors import DataError, UsageError
from ....geometry import xywhr_to_corners
from . import aerial, surface, xray
from .annotations import SPLITS, Annotations
from .writing import CocoFile, Progress, whole_folder, write_image, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KINDS = ("xray", "aerial", "surface")
SMALLEST_SIDE = 64
Size = int | tuple[int, int] | None
Drawn = tuple["NDArray[np.uint8]", Annotations]


def scene(kind: str, seed: int, index: int, *, split: str = "train", size: Size = None, shift: float = 0.0) -> Drawn:
    """Draw image `index` of a split in memory: the pixels that `generate` writes, before compression.

    Args:
        kind: "xray", "aerial" or "surface".
        seed: of the data set.
        index: of the image in its split, from 0.
        split: "train", "val" or "test".
        size: long side in pixels, or (height, width); None: the kind's own (256, 512, 512).
        shift: surface only: by how many times light, pose and focus of test images vary beyond the training images'.

    Returns:
        The image `(H, W, 3)` uint8 RGB and its annotations.

    Raises:
        UsageError: an unknown kind or split, a size below 64, a negative seed, index or shift.
    """
    _check(kind, seed, size, shift)
    if split not in SPLITS or index < 0:
        raise UsageError(f"got split {split!r}, index {index}; splits are {', '.join(SPLITS)}, indices start at 0")
    if kind == "surface":
        return surface.scene(seed, index, split=split, size=size, shift=shift)
    if kind == "aerial":
        return aerial.scene(seed, index, split=split, size=size)
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
    shift: float = 0.0,
    progress: Progress | None = None,
) -> Path:
    """Write a synthetic set; the same arguments write the same pixels, and an image does not depend on the others.

    - xray: `<split>/000000.jpg` and `<split>.json` (COCO).
    - aerial: `<split>/images/000000.jpg`, `<split>/labelTxt/000000.txt` (DOTA) and `<split>.json` (COCO, oriented).
    - surface: an MVTec tree for each of seven categories, `<category>/{train,validation}/good`,
      `<category>/test/{good,<defect>}`, `<category>/ground_truth/<defect>/000_mask.png`; and `defects.json` over all.

    A split of 0 images is not written.

    Args:
        kind: "xray", "aerial" or "surface".
        folder: to write to; made if missing, refused if it holds anything. It appears only once it is complete.
        train: number of training images; surface: of all categories together, as val and test.
        val: number of validation images.
        test: number of test images.
        seed: of the set, >= 0.
        size: long side in pixels, or (height, width); None: the kind's own (256, 512, 512).
        shift: surface only, see `scene`.
        progress: called with (images written, images in all).

    Returns:
        `folder`.

    Raises:
        UsageError: an unknown kind, a negative count, seed or shift, or a size below 64.
        DataError: the folder is not empty or cannot be written.
    """
    _check(kind, seed, size, shift)
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    if min(counts.values()) < 0 or not sum(counts.values()):
        raise UsageError(
            f"got {train} train, {val} val, {test} test images; counts are 0 or more, at least one above 0"
        )
    folder = Path(folder)
    write = {"xray": _write_xray, "aerial": _write_aerial, "surface": _write_surface}[kind]
    with whole_folder(folder) as temporary:
        try:
            for split, count in counts.items():
                before = sum(list(counts.values())[: SPLITS.index(split)])
                if count:
                    drawn = (scene(kind, seed, k, split=split, size=size, shift=shift) for k in range(count))
                    write(temporary, split, _counted(drawn, before, sum(counts.values()), progress))
        except OSError as error:
            raise DataError(f"cannot write the {kind} set to {folder}: {error}") from error
    return folder


def _check(kind: str, seed: int, size: Size, shift: float) -> None:
    if kind not in KINDS:
        raise UsageError(f"no generator {kind!r}; possible: {', '.join(KINDS)}")
    if seed < 0:
        raise UsageError(f"got seed {seed}; a seed is 0 or more")
    sides = size if isinstance(size, tuple) else (size,)
    if any(side is not None and side < SMALLEST_SIDE for side in sides):
        raise UsageError(f"got size {size}; a side is {SMALLEST_SIDE} pixels or more")
    if shift < 0 or (shift and kind != "surface"):
        raise UsageError(f"got shift {shift} for {kind}; surface takes a shift of 0 or more, the others take none")


def _counted(drawn: Iterator[Drawn], before: int, total: int, progress: Progress | None) -> Iterator[Drawn]:
    for k, item in enumerate(drawn):
        yield item
        if progress is not None:
            progress(before + k + 1, total)


def _write_xray(folder: Path, split: str, drawn: Iterator[Drawn]) -> None:
    coco = CocoFile(xray.CLASSES, "edgekd synthetic baggage scans", "xyxy")
    (folder / split).mkdir()
    for k, (image, found) in enumerate(drawn):
        name = f"{k:06d}.jpg"
        write_image(folder / split / name, image)
        coco.add(name, image, found, None)
    coco.write(folder / f"{split}.json")


def _write_aerial(folder: Path, split: str, drawn: Iterator[Drawn]) -> None:
    coco = CocoFile(aerial.CLASSES, "edgekd synthetic aerial pictures", "xywhr")
    for inner in ("images", "labelTxt"):
        (folder / split / inner).mkdir(parents=True)
    for k, (image, found) in enumerate(drawn):
        corners = xywhr_to_corners(found.boxes)
        write_image(folder / split / "images" / f"{k:06d}.jpg", image)
        coco.add(f"images/{k:06d}.jpg", image, found, corners)
        lines = [
            f"{' '.join(f'{value:.3f}' for value in quad.reshape(-1))} {aerial.CLASSES[label]} 0\n"
            for quad, label in zip(corners, found.labels, strict=True)
        ]
        (folder / split / "labelTxt" / f"{k:06d}.txt").write_text("".join(lines), encoding="utf-8")
    coco.write(folder / f"{split}.json")


def _write_surface(folder: Path, split: str, drawn: Iterator[Drawn]) -> None:
    defects = []
    for k, (image, found) in enumerate(drawn):
        assert found.category is not None
        assert found.defect is not None
        stem = f"{k // len(surface.CATEGORIES):03d}"
        inner = folder / found.category / {"val": "validation"}.get(split, split) / found.defect
        inner.mkdir(parents=True, exist_ok=True)
        write_image(inner / f"{stem}.png", image)
        if found.mask is not None and found.defect != "good":
            truth = folder / found.category / "ground_truth" / found.defect
            truth.mkdir(parents=True, exist_ok=True)
            write_image(truth / f"{stem}_mask.png", found.mask.astype(np.uint8) * 255)
            name = f"{found.category}/{split}/{found.defect}/{stem}.png"
            share = float(found.mask.mean())
            defects.append({"image": name, "area_share": share, "contrast_sigma": found.contrast})
    if split == "test":
        write_json(folder / "defects.json", {"defects": defects})
