"""`read`: one data set in any supported format, told by its files where the format is "auto"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from . import anomaly, dior, dota, hrsc, ucas, voc, xml_file
from .coco import find_json, read_coco
from .files import PARENTS, part_of
from .yolo import label_file, read_yolo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .sample import Dataset

    Reader = Callable[[Path, str | None, Sequence[str] | None], Dataset]

READERS: dict[str, Reader] = {
    "coco": read_coco,
    "coco-obb": lambda path, split, classes: read_coco(path, split, classes, oriented=True),
    "voc": lambda path, _split, classes: voc.read_voc(path, classes),
    "yolo": read_yolo,
    "yolo-obb": lambda path, split, classes: read_yolo(path, split, classes, "obb"),
    "dota": lambda path, _split, classes: dota.read_dota(path, classes),
    "dior": lambda path, _split, classes: dior.read_dior(path, classes),
    "hrsc": lambda path, _split, classes: hrsc.read_hrsc(path, classes),
    "ucas": lambda path, _split, classes: ucas.read_ucas(path, classes),
    "mvtec": lambda path, split, _classes: anomaly.read_folders(path, split),
    "btad": lambda path, split, _classes: anomaly.read_folders(path, split),
    "visa": lambda path, split, _classes: anomaly.read_visa(path, split),
}
FORMATS = ("auto", *READERS)

LISTED = {
    "voc": (".xml", voc.FOLDERS),
    "dota": (".txt", dota.FOLDERS),
    "dior": (".xml", dior.FOLDERS),
    "hrsc": (".xml", hrsc.FOLDERS),
    "ucas": (".txt", ucas.FOLDERS),
}
"""Formats whose splits are folders or lists of stems: the annotation files' suffix and folders."""


def read(
    path: str | Path,
    format: str = "auto",  # noqa: A002 - the recipe's name of it
    split: str | None = None,
    classes: Sequence[str] | None = None,
    *,
    whole: bool = False,
) -> Dataset:
    """Read one split of a data set.

    Args:
        path: a file or folder as the format's reader wants it: COCO JSON; a list file of stems or a folder (VOC, DOTA,
            DIOR, HRSC, UCAS-AOD); data.yaml, image list or folder (YOLO); the folder of a category (MVTec, BTAD, VisA).
        format: one of `FORMATS`.
        split: where a path holds several: "train", "val" or "test". Of VOC and the oriented sets that is a folder
            `<split>/`, or a list `<split>.txt` in the path or its `ImageSets/`.
        classes: names in label order; None: as the reader finds them. Pass the training set's to read the others.
        whole: take such a path without splits as the split, all of it: for a caller whose paths are one split each.

    Raises:
        DataError: naming the file and line.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no file or folder at {path}")
    if format == "auto":
        format = detect_format(path, split)  # noqa: A001
    if format not in READERS:
        raise DataError(f"unknown data format {format!r}; possible: {', '.join(FORMATS)}")
    if split is not None and format in LISTED:
        path = part_of(path, split, *LISTED[format], whole=whole)
    return READERS[format](path, split, classes)


def detect_format(path: Path, split: str | None = None) -> str:
    """Return the format of a file or folder, from its suffix and from the folders and annotations beside it.

    Raises:
        DataError: nothing fits.
    """
    found = _format_of_file(path) if path.is_file() else _format_of_folder(path, split)
    if found is None:
        raise DataError(f"cannot tell the format of {path}; name it: {', '.join(READERS)}")
    return found


def _format_of_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "coco"
    if suffix in (".yaml", ".yml"):
        return "yolo"
    folders = (path.parent, *list(path.resolve().parent.parents)[:PARENTS]) if suffix == ".txt" else ()
    return next((found for folder in folders if (found := _annotated(folder))), None)


def _format_of_folder(path: Path, split: str | None) -> str | None:
    if (path / "Data" / "Images").is_dir():
        return "visa"
    train = path.parent / "train" if anomaly.is_split(path) else path / "train"
    if any((train / name).is_dir() for name in anomaly.NORMAL):
        return "mvtec"
    found = _xml_format(path) or _annotated(path)
    if found or path.name in dota.FOLDERS:
        return found or "dota"
    if path.name in ucas.FOLDERS:
        return "ucas"
    if (path / "data.yaml").is_file() or ("images" in path.parts and label_file(path / "_").parent != path):
        return "yolo"
    try:
        find_json(path, split)
    except DataError:
        return (_xml_format(path / split) or _annotated(path / split)) if split else None
    return "coco"


def _annotated(folder: Path) -> str | None:
    """Return the format of the annotation folder that lies in `folder`."""
    if any((folder / name).is_dir() for name in dior.OWN_FOLDERS):
        return "dior"
    for name in hrsc.FOLDERS:
        found = _xml_format(folder / name)
        if found:
            return found
    if any((folder / name).is_dir() for name in dota.FOLDERS):
        return "dota"
    if any(next((folder / name).glob("*.txt"), None) for name in ucas.FOLDERS):
        return "ucas"
    return "yolo" if (folder / "labels").is_dir() else None


def _xml_format(folder: Path) -> str | None:
    first = next(iter(sorted(folder.glob("*.xml"))), None)
    if first is None:
        return None
    root = xml_file.parse(first)
    if root.tag == "HRSC_Image":
        return "hrsc"
    return "voc" if root.find("object/robndbox") is None else "dior"
