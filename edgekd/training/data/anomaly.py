"""Anomaly sets of one category: MVTec AD, BTAD and VisA folders.

Masks belong to images by stem (`000.png` and `000_mask.png` or `000.png`), never by sorting order; .bmp and .png may be
mixed. The folder says what is a defect, even where a mask is empty.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..._preprocess import open_image
from ...errors import DataError
from .files import ImageFolder, header_size, is_file, read_text
from .sample import Dataset, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NORMAL = ("good", "ok")
CLASSES = ("defect",)
SPLITS = ("train", "validation", "test")  # "val" is another word for the second
VISA_CSV = "split_csv/1cls.csv"


def read_folders(path: Path, split: str | None = None) -> Dataset:
    """Read MVTec AD, BTAD or converted VisA: `train/good`, `test/{good,<defect>}`, `ground_truth/<defect>`.

    Args:
        path: the folder of one category, or its `train`, `validation` or `test`.
        split: one of these, where the path does not end in one; None: "train".

    Raises:
        DataError: naming the folder or file.
    """
    root, split = _root(path, split)
    folder = root / split
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; a category holds train/good, test/<defect> and ground_truth/<defect>")
    kinds = sorted(item for item in folder.iterdir() if item.is_dir())
    if split != "test" and any(item.name not in NORMAL for item in kinds):
        listed = ", ".join(item.name for item in kinds if item.name not in NORMAL)
        raise DataError(f"{folder} holds {listed}: {split} images should be normal, in {' or '.join(NORMAL)}")
    problems: list[str] = []
    samples = [sample for kind in kinds for sample in _samples(kind, root / "ground_truth", problems)]
    return _dataset(root, split, samples, problems)


def read_visa(path: Path, split: str | None = None) -> Dataset:
    """Read VisA as downloaded (`Data/Images/{Normal,Anomaly}`, split by `split_csv/1cls.csv` above) or converted.

    Args:
        path: the folder of one category.
        split: "train" or "test"; None: "train".

    Raises:
        DataError: naming the file and line.
    """
    root, split = _root(path, split)
    if not (root / "Data").is_dir():
        return read_folders(root, split)
    source = root.resolve().parent / VISA_CSV
    samples = list(_visa_rows(source, root.resolve().name, split))
    return _dataset(root, split, samples, [])


def is_split(path: Path) -> bool:
    """Return whether this is a category's `train`, `validation` or `test`; a category may have such a name too."""
    return path.name in SPLITS and not (path / path.name).is_dir()


def _root(path: Path, split: str | None) -> tuple[Path, str]:
    """Return the folder of the category and the split."""
    if not path.is_dir():
        raise DataError(f"no folder at {path}")
    if is_split(path):
        return path.parent, path.name
    split = "validation" if split == "val" else split
    if split not in (None, *SPLITS):
        raise DataError(f"anomaly sets have the splits {', '.join(SPLITS)}, not {split!r}")
    return path, split or "train"


def _dataset(root: Path, split: str, samples: list[Sample], problems: list[str]) -> Dataset:
    if not samples:
        raise DataError(f"{root} holds no {split} image")
    return Dataset(f"{root}:{split}", "anomaly", CLASSES, tuple(samples), tuple(problems))


def _samples(kind: Path, truth: Path, problems: list[str]) -> Iterator[Sample]:
    """Yield the samples of one folder."""
    images = ImageFolder(kind)
    normal = kind.name in NORMAL
    masks = ImageFolder(truth / kind.name) if not normal and (truth / kind.name).is_dir() else None
    for stem in images.stems:
        image = images.get(stem)
        mask = masks and (masks.get(f"{stem}_mask") or masks.get(stem))
        if not normal and mask is None:
            problems.append(f"{image}: no mask {stem}_mask.* or {stem}.* in {truth / kind.name}; pixels are not scored")
        if image is not None:
            yield _sample(image, mask or None, "good" if normal else kind.name)


def _visa_rows(source: Path, category: str, split: str) -> Iterator[Sample]:
    """Yield the samples of the rows `object,split,label,image,mask` of one category and split."""
    rows = csv.DictReader(read_text(source).splitlines())
    missing = {"object", "split", "label", "image"} - set(rows.fieldnames or ())
    if missing:
        raise DataError(f"{source}:1: no column {', '.join(sorted(missing))}")
    for row in rows:
        where = f"{source}:{rows.line_num}"
        if row["object"] != category or row["split"] != split:
            continue
        if row["label"] not in ("normal", "anomaly"):
            raise DataError(f"{where}: label should be normal or anomaly, got {row['label']!r}")
        mask = _inside(source.parent.parent, row["mask"], where) if row.get("mask") else None
        image = _inside(source.parent.parent, row["image"], where)
        yield _sample(image, mask, "good" if row["label"] == "normal" else "bad")


def _inside(root: Path, name: str | None, where: str) -> Path:
    path = root / (name or "")
    if not name or Path(name).is_absolute() or ".." in Path(name).parts or not is_file(path):
        raise DataError(f"{where}: no file {name!r} in {root}")
    return path


def _sample(image: Path, mask: Path | None, defect: str) -> Sample:
    return Sample(
        path=image,
        size=header_size(image),
        boxes=np.empty((0, 4), np.float32),
        labels=np.empty(0, np.int64),
        difficult=np.empty(0, np.bool_),
        mask=mask,
        anomalous=defect != "good",
        defect=defect,
    )


def load_mask(sample: Sample, height: int, width: int) -> NDArray[np.bool_] | None:
    """Return a sample's defect mask `(height, width)`, true where the file is not 0, stretched to that size.

    Each pixel takes the one that its centre falls on: edges stay, and nothing is blended. A normal image has an empty
    mask; an anomalous one without a file has None.

    Raises:
        DataError: the file cannot be decoded.
    """
    if not sample.anomalous:
        return np.zeros((height, width), np.bool_)
    if sample.mask is None:
        return None
    try:
        with open_image(sample.mask) as image:
            mask = np.asarray(image)
    except Exception as error:  # a damaged file reaches any decoder and any exception, as with images
        raise DataError(f"cannot read the mask {sample.mask}: {error}") from error
    defect = (mask if mask.ndim == 2 else mask[..., :3].any(axis=2)) != 0
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(defect.shape, (height, width), strict=True)
    )
    found: NDArray[np.bool_] = defect[rows[:, None], columns]
    return found
