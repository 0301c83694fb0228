"""COCO JSON: `images`, `annotations` with `bbox` [x, y, width, height], `categories`.

Read as "coco-obb", or where `info` holds `"layout": "xywhr"`, the four corners in `segmentation` (one polygon of eight
numbers, as `Detections.to_coco` writes it) become an oriented box instead.
"""

from __future__ import annotations

import json
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from .files import header_size, is_file, read_text
from .polygon import quads_to_xywhr
from .records import Annotation, Record, assemble, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sample import Dataset


def read_coco(
    path: Path, split: str | None = None, classes: Sequence[str] | None = None, *, oriented: bool = False
) -> Dataset:
    """Read a COCO JSON file, or a folder that holds one for `split`.

    Crowd regions become `difficult`, and `crowd` as well unless the entry says `"difficult": 1`: it does where
    `data tile` has cut an object, whose `iscrowd` is for readers that know nothing else. Labels follow the category
    ids, ascending.

    Args:
        path: `train.json`, or a folder with `<split>.json`, `annotations/<split>.json`,
            `annotations/instances_<split>*.json` or `<split>/*.json`.
        split: which file of a folder.
        classes: names in label order; None: the categories.
        oriented: take the corners in `segmentation`, not `bbox`, also where the file does not ask for it.

    Raises:
        DataError: naming the file and the entry.
    """
    source = find_json(path, split)
    raw = _load(source)
    info = raw.get("info")
    oriented = oriented or (isinstance(info, dict) and info.get("layout") == "xywhr")
    categories = _categories(raw, source)
    images = {_integer(item, "id", f"{source}: images"): item for item in _rows(raw, "images", source)}
    found: dict[int, list[Annotation]] = {key: [] for key in images}
    for item in _rows(raw, "annotations", source):
        where = f"{source}: annotation {item.get('id')!r}"
        image, category = _integer(item, "image_id", where), _integer(item, "category_id", where)
        if image not in found:
            raise DataError(f"{where}: image_id {image} is not in images")
        if category not in categories:
            raise DataError(f"{where}: category_id {category} is not in categories {sorted(categories)}")
        box = _corners(item, where) if oriented else _bbox(item, where)
        crowd = bool(item.get("iscrowd", 0))
        hard = bool(item.get("difficult", 0))
        found[image].append(Annotation(categories[category], box, where, crowd or hard, crowd=crowd and not hard))
    folders = _image_folders(source)
    records = [_record(item, found[key], folders, f"{source}: image {key}") for key, item in images.items()]
    own = tuple(categories[key] for key in sorted(categories))
    task = "obb" if oriented else "detect"
    return assemble(str(source), task, records, classes=classes, own_classes=own)


def find_json(path: Path, split: str | None) -> Path:
    """Return the JSON file of a split; a file is returned as it is.

    Raises:
        DataError: a folder without such a file.
    """
    if path.is_file():
        return path
    name = escape(split) if split else "*"
    long = f"annotations/instances_{name}" + ("*.json" if split else ".json")
    for pattern in (f"{name}.json", f"annotations/{name}.json", long, f"{name}/*.json"):
        matches = sorted(path.glob(pattern))
        if len(matches) == 1:
            return matches[0]
        if matches:
            listed = ", ".join(item.name for item in matches[:8])
            raise DataError(f"{path} holds several JSON files ({listed}): name one of them, or a split")
    raise DataError(f"no COCO JSON for split {split!r} in {path}: name the file itself")


def _load(source: Path) -> dict[str, Any]:
    try:
        raw = json.loads(read_text(source))
    except json.JSONDecodeError as error:
        raise DataError(f"{source}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise DataError(f"{source} should hold an object with images, annotations and categories")
    return raw


def _rows(raw: dict[str, Any], key: str, source: Path) -> list[dict[str, Any]]:
    rows = raw.get(key)
    if not isinstance(rows, list) or not all(isinstance(item, dict) for item in rows):
        raise DataError(f"{source}: {key!r} should be a list of objects")
    return rows


def _integer(item: dict[str, Any], key: str, where: str) -> int:
    value = item.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}: {key!r} should be a whole number, got {value!r}")
    return value


def _categories(raw: dict[str, Any], source: Path) -> dict[int, str]:
    categories = {}
    for item in _rows(raw, "categories", source):
        name = item.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{source}: category {item.get('id')!r} has no name")
        categories[_integer(item, "id", f"{source}: categories")] = name
    return categories


def _numbers(values: object, count: int, where: str, what: str) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise DataError(f"{where}: {what} should be a list of {count} numbers, got {str(values)[:80]}")
    return [number(value, where, what) for value in values]


def _bbox(item: dict[str, Any], where: str) -> tuple[float, ...]:
    x, y, width, height = _numbers(item.get("bbox"), 4, where, "bbox")
    return x, y, x + width, y + height


def _corners(item: dict[str, Any], where: str) -> tuple[float, ...]:
    polygons = item.get("segmentation")
    if not isinstance(polygons, list) or len(polygons) != 1:
        raise DataError(f"{where}: segmentation of an oriented file should be one polygon of four corners")
    corners = _numbers(polygons[0], 8, where, "segmentation[0]")
    return tuple(quads_to_xywhr(corners)[0].tolist())


def _image_folders(source: Path) -> list[Path]:
    """Folders the `file_name` of a JSON may be relative to, likeliest first."""
    stem = source.stem.removeprefix("instances_")
    near, above = source.parent, source.parent.parent
    return [near / source.stem, near, near / "images", above / stem, above / "images" / stem, above / "images", above]


def _record(item: dict[str, Any], found: list[Annotation], folders: list[Path], where: str) -> Record:
    name = item.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: file_name should be a file name, got {name!r}")
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{where}: file_name {name!r} leaves the data set; make it relative to the image folder")
    path = next((folder / relative for folder in folders if is_file(folder / relative)), None)
    if path is None:
        listed = ", ".join(str(folder) for folder in folders)
        raise DataError(f"{where}: no file {name!r} in any of {listed}")
    width, height = item.get("width"), item.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return Record(path, (width, height), found)
    return Record(path, header_size(path), found)
