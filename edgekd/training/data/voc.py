"""Pascal VOC XML: one file an image, `<object>` with `<name>` and `<bndbox>`.

Coordinates are taken as they stand: whether a tool counted its first pixel 0 or 1 cannot be told from the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DataError
from . import xml_file
from .files import annotation_pairs, header_size
from .records import Annotation, Record, assemble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from .sample import Dataset

FOLDERS = ("Annotations", "annotations")


def read_voc(path: Path, classes: Sequence[str] | None = None) -> Dataset:
    """Read a list file (`ImageSets/Main/train.txt`), a folder of XML, or a folder that holds `Annotations/`.

    An image is matched by the stem of the XML, never by `<filename>`, which copies of a set seldom correct.

    Args:
        path: see above; images lie in `JPEGImages/` or `images/` beside or up to three folders above.
        classes: names in label order; None: the names found, sorted.

    Raises:
        DataError: naming the file and object.
    """
    pairs, problems = annotation_pairs(path, ".xml", FOLDERS)
    records = [_record(xml, image) for xml, image in pairs]
    return assemble(str(path), "detect", records, classes=classes, problems=problems)


def _record(xml: Path, image: Path) -> Record:
    root = xml_file.parse(xml)
    if root.tag != "annotation":
        raise DataError(f'{xml}: the root should be <annotation>, got <{root.tag}>; HRSC files: format = "hrsc"')
    size = xml_file.image_size(root.find("size"), "width", "height") or header_size(image)
    found = [_annotation(item, f"{xml}: object {i}") for i, item in enumerate(root.findall("object"), start=1)]
    return Record(image, size, found)


def _annotation(element: Element, where: str) -> Annotation:
    box = element.find("bndbox")
    if box is None:
        raise DataError(f'{where}: <bndbox> is missing; files with <robndbox>: format = "dior"')
    x1, y1, x2, y2 = (xml_file.value(box, tag, where) for tag in ("xmin", "ymin", "xmax", "ymax"))
    name = xml_file.text(element, "name", where)
    return Annotation(name, (x1, y1, x2, y2), where, xml_file.flag(element, "difficult", where))
