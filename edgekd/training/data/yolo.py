"""YOLO text: `class cx cy w h` or, oriented, `class x1 y1 .. x4 y4`, all divided by the image's width and height.

Labels lie in `labels/` where the images lie in `images/`; an image without label file has no objects. Names come from a
`data.yaml`, `classes.txt`, `obj.names` or `*.names`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DataError
from .files import IMAGE_SUFFIXES, ImageFolder, header_size, is_file, is_folder, read_text
from .polygon import quads_to_xywhr
from .records import Annotation, Record, assemble, number
from .yolo_config import read_config, read_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sample import Dataset

COLUMNS = {5: "detect", 9: "obb"}


def read_yolo(
    path: Path, split: str | None = None, classes: Sequence[str] | None = None, task: str | None = None
) -> Dataset:
    """Read a `data.yaml`, a list of image paths, a folder of images, or a folder with `images/<split>`.

    Args:
        path: see above.
        split: which part of a `data.yaml` or of `images/`.
        classes: names in label order, matched to the set's own names where it has some; else they name the numbers.
        task: "detect" or "obb"; None: as the first label line has 5 or 9 columns.

    Raises:
        DataError: naming the file and line.
    """
    images = _images(path, split)
    rows = {image: _rows(image) for image in images}
    if not any(is_file(label_file(image)) for image in images):
        raise DataError(f"{path}: no image has a label file; the first would be {label_file(images[0])}")
    task = task or next((COLUMNS[len(words)] for found in rows.values() for _, words in found), "detect")
    names = read_names(path, images[0].parent) or (tuple(classes) if classes else None)
    if names is None:
        highest = max((int(words[0]) for found in rows.values() for _, words in found), default=-1)
        names = tuple(str(label) for label in range(highest + 1))
    records = []
    for image, found in rows.items():
        size = header_size(image)
        records.append(Record(image, size, [_annotation(words, size, names, task, where) for where, words in found]))
    return assemble(str(path), task, records, classes=classes, own_classes=names)


def label_file(image: Path) -> Path:
    """Return where the labels of an image belong: in `labels/` for its last folder `images`, else beside it."""
    parts = list(image.parts[:-1])
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    folder = Path(*parts)
    return (folder if folder.is_dir() else image.parent) / f"{image.stem}.txt"


def _images(path: Path, split: str | None) -> list[Path]:
    """Return the images in order."""
    if path.suffix.lower() in (".yaml", ".yml"):
        path, split = _configured(path, split or "train"), None
    elif (path / "data.yaml").is_file():
        path, split = _configured(path / "data.yaml", split or "train"), None
    if path.is_file():
        return _listed(path)
    name = split or ""
    for inner in (path / "images" / name, path / name / "images", path / name, path / "images", path):
        if inner.is_dir():
            folder = ImageFolder(inner)
            if len(folder):
                return [image for stem in folder.stems if (image := folder.get(stem))]
    raise DataError(f"no images in {path}, {path}/images or a folder of split {split!r}")


def _configured(config: Path, split: str) -> Path:
    """Return the list or folder that a data.yaml names for a split.

    Its `path` often points to another machine, and exporters write "../train/images" where "train/images" is right.
    """
    keys = read_config(config)
    name = keys.get(split)
    if not isinstance(name, str):
        raise DataError(f"{config} names no file or folder for {split!r}; it has {', '.join(sorted(keys))}")
    bases = (config.parent / str(keys.get("path", "")), config.parent)
    for found in (base / tail for base in bases for tail in (name, name.removeprefix("../"))):
        if is_file(found) or is_folder(found):
            return found
    raise DataError(f"{config}: {name!r} is neither in {bases[0]} nor in {bases[1]}")


def _listed(path: Path) -> list[Path]:
    images = []
    for row, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        image = path.parent / name
        if image.suffix.lower() not in IMAGE_SUFFIXES or not is_file(image):
            raise DataError(f"{path}:{row}: no image at {image}; lines are paths relative to the list, or absolute")
        images.append(image)
    if not images:
        raise DataError(f"{path} lists no image")
    return images


def _rows(image: Path) -> list[tuple[str, list[str]]]:
    """Return the label lines of an image as `("file:line", words)`."""
    label = label_file(image)
    if not is_file(label):
        return []
    rows = []
    for row, line in enumerate(read_text(label).splitlines(), start=1):
        words, where = line.split(), f"{label}:{row}"
        if not words:
            continue
        if len(words) not in COLUMNS:
            raise DataError(f"{where}: expected class cx cy w h, or class and four corners; got {len(words)} columns")
        if not (words[0].isascii() and words[0].isdigit() and len(words[0]) < 6):
            raise DataError(f"{where}: the class should be a whole number, got {words[0]!r}")
        rows.append((where, words))
    return rows


def _annotation(words: list[str], size: tuple[int, int], names: Sequence[str], task: str, where: str) -> Annotation:
    label = int(words[0])
    if label >= len(names):
        raise DataError(f"{where}: class {label}, but there are {len(names)} names: {', '.join(names)}")
    if COLUMNS[len(words)] != task:
        raise DataError(
            f"{where}: {len(words)} columns in a set of task {task}; boxes have 5, oriented boxes 9. One set has one "
            'kind; a set of boxes alone: format = "yolo", of oriented boxes alone: format = "yolo-obb"'
        )
    values = [number(word, where, "a coordinate") for word in words[1:]]
    if max(map(abs, values)) > 2:  # objects cut by the border reach a little beyond 0..1; pixels reach far beyond
        raise DataError(f"{where}: coordinates should be divided by the image's size, got {max(values, key=abs):g}")
    width, height = size
    if task == "obb":
        corners = [value * (height if i % 2 else width) for i, value in enumerate(values)]
        return Annotation(names[label], tuple(quads_to_xywhr(corners)[0].tolist()), where)
    x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
    return Annotation(names[label], (x - w / 2, y - h / 2, x + w / 2, y + h / 2), where)
