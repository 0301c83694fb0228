"""DIOR-R XML: `<object>` with `<name>` and `<robndbox>` of four corners, in pixels.

Releases spell classes in several ways ("Expressway-Service-area", "expressway-service-area"), so names are lower case
here. The corners become the smallest rectangle around them; any `<angle>` beside them is not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DataError
from . import xml_file
from .files import annotation_pairs, header_size
from .polygon import quads_to_xywhr
from .records import Annotation, Record, assemble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from .sample import Dataset

OWN_FOLDERS = (
    "Annotations/Oriented Bounding Boxes",
    "Annotations/Oriented_Bounding_Boxes",
    "Oriented Bounding Boxes",
    "Oriented_Bounding_Boxes",
)
FOLDERS = (*OWN_FOLDERS, "Annotations", "annotations")
CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")


def read_dior(path: Path, classes: Sequence[str] | None = None) -> Dataset:
    """Read a list file (`ImageSets/Main/test.txt`), a folder of XML, or a folder that holds one of `FOLDERS`.

    Args:
        path: see above; images lie in `JPEGImages-trainval/` and `JPEGImages-test/`, `JPEGImages/` or `images/`.
        classes: names in label order, in any case; None: the names found, lower case, sorted.

    Raises:
        DataError: naming the file and object.
    """
    pairs, problems = annotation_pairs(path, ".xml", FOLDERS)
    spelling = {name.lower(): name for name in classes or ()}
    records = [_record(xml, image, spelling) for xml, image in pairs]
    return assemble(str(path), "obb", records, classes=classes, problems=problems)


def _record(xml: Path, image: Path, spelling: Mapping[str, str]) -> Record:
    root = xml_file.parse(xml)
    if root.tag != "annotation":
        raise DataError(f'{xml}: the root should be <annotation>, got <{root.tag}>; HRSC files: format = "hrsc"')
    size = xml_file.image_size(root.find("size"), "width", "height") or header_size(image)
    objects = root.findall("object")
    return Record(image, size, [_annotation(item, spelling, f"{xml}: object {i}") for i, item in enumerate(objects, 1)])


def _annotation(element: Element, spelling: Mapping[str, str], where: str) -> Annotation:
    box = element.find("robndbox")
    if box is None:
        raise DataError(f'{where}: <robndbox> is missing; files with <bndbox> alone: format = "voc"')
    corners = [[xml_file.value(box, f"{axis}_{corner}", where) for axis in "xy"] for corner in CORNERS]
    name = xml_file.text(element, "name", where).lower()
    difficult = xml_file.flag(element, "difficult", where)
    return Annotation(spelling.get(name, name), tuple(quads_to_xywhr([corners])[0].tolist()), where, difficult)
