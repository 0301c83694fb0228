"""UCAS-AOD as it was published: `CAR/P0001.txt` beside `CAR/P0001.png`, `PLANE/` alike, and `Neg/` without objects.

A line is `x1 y1 x2 y2 x3 y3 x4 y4 theta x y width height` in pixels, without a class: that is the folder. theta and the
upright box say again what the corners say. An image has either its cars or its planes marked, whatever else it shows.
The same line after a class's name, as splits of the set for benchmarks have it, is read as DOTA text.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ...errors import DataError
from .files import PARENTS, ImageFolder, header_size, is_file, is_folder, read_text, sibling, stem_of
from .records import Annotation, Record, assemble, corners_to_box

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .sample import Dataset

FOLDERS = ("CAR", "PLANE")
BACKGROUND = "Neg"
NAMES = (*FOLDERS, BACKGROUND)
COLUMNS = 13


def read_ucas(path: Path, classes: Sequence[str] | None = None) -> Dataset:
    """Read the set's folder, one of its folders, or a list file beside them or up to three folders below.

    Args:
        path: see above. A line of a list is `CAR/P0001`, with or without suffix: cars and planes have the same stems.
        classes: names in label order; None: "car", "plane".

    Raises:
        DataError: naming the file and line.
    """
    images, problems = _listed(path) if path.is_file() else _all(path)
    records = [Record(image, header_size(image), _annotations(image)) for image in images]
    own = tuple(name.lower() for name in FOLDERS)
    return assemble(str(path), "obb", records, classes=classes, own_classes=own, problems=problems)


def _all(path: Path) -> tuple[list[Path], list[str]]:
    """Return every image of a folder, and a line for each label file that has none."""
    folders = [path] if path.name in NAMES else [path / name for name in NAMES if is_folder(path / name)]
    if not folders:
        raise DataError(f"{path} holds none of the folders {', '.join(NAMES)} and is none of them")
    found, problems = [], []
    for folder in folders:
        images = ImageFolder(folder)
        found += [image for stem in images.stems if (image := images.get(stem))]
        orphans = [label for label in sorted(folder.glob("*.txt")) if images.get(label.stem) is None]
        problems += [f"{label}: no image of this stem in {folder}; dropped" for label in orphans]
    return found, problems


def _listed(path: Path) -> tuple[list[Path], list[str]]:
    """Return the images of a list, in its order."""
    first = sibling(path.parent, NAMES)
    if first is None:
        raise DataError(f"none of the folders {', '.join(NAMES)} is beside {path} or up to {PARENTS} folders above it")
    folders = {name: ImageFolder(first.parent / name) for name in NAMES if is_folder(first.parent / name)}
    found = []
    for row, line in enumerate(read_text(path).splitlines(), start=1):
        name = PurePosixPath(line.strip().replace("\\", "/"))
        if name.name:
            asked = [name.parent.name] if name.parent.name in folders else list(folders)
            hits = [image for folder in asked if (image := folders[folder].get(stem_of(name.name)))]
            if len(hits) != 1:
                where = " and in ".join(hit.parent.name for hit in hits) or f"none of {', '.join(asked)}"
                raise DataError(f"{path}:{row}: {name} is in {where}; expected a line as {FOLDERS[0]}/P0001")
            found += hits
    return found, []


def _annotations(image: Path) -> list[Annotation]:
    """Return the objects of an image; of the background there is no label file, or an empty one."""
    label = image.with_suffix(".txt")
    if image.parent.name == BACKGROUND and not is_file(label):
        return []
    found = []
    for row, line in enumerate(read_text(label).splitlines(), start=1):
        if words := line.split():
            where = f"{label}:{row}"
            if len(words) != COLUMNS:
                raise DataError(f"{where}: expected x1 y1 .. x4 y4 theta x y width height, got {len(words)} words")
            found.append(Annotation(image.parent.name.lower(), corners_to_box(words[:8], where), where))
    return found
