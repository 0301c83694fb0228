"""HRSC2016 XML: `HRSC_Objects/HRSC_Object` with `mbox_cx mbox_cy mbox_w mbox_h` in pixels and `mbox_ang` in radians.

The angle is clockwise on the image, as ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...errors import DataError
from . import xml_file
from .files import annotation_pairs, header_size
from .polygon import regularise
from .records import WRAPPED, Annotation, Record, assemble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from .sample import Dataset

FOLDERS = ("Annotations", "annotations", "FullDataSet/Annotations")
ONE_TURN = 2 * math.pi  # radians; what is beyond it is in degrees, which would be wrapped into some other angle
SHIP = "ship"


def read_hrsc(path: Path, classes: Sequence[str] | None = None) -> Dataset:
    """Read a list file (`ImageSets/train.txt`), a folder of XML, or a folder that holds `Annotations/`.

    Args:
        path: see above; images lie in `AllImages/`, `JPEGImages/` or `images/`.
        classes: None: everything is a "ship". Else names may be values of `Class_ID` ("100000005"); objects of other
            ids are "ship", and are dropped if that is not among the names.

    Raises:
        DataError: naming the file and object.
    """
    pairs, problems = annotation_pairs(path, ".xml", FOLDERS)
    records = [_record(xml, image, classes or ()) for xml, image in pairs]
    return assemble(str(path), "obb", records, classes=classes, own_classes=(SHIP,), problems=problems)


def _record(xml: Path, image: Path, classes: Sequence[str]) -> Record:
    root = xml_file.parse(xml)
    if root.tag != "HRSC_Image":
        raise DataError(f'{xml}: the root should be <HRSC_Image>, got <{root.tag}>; VOC files: format = "voc"')
    size = xml_file.image_size(root, "Img_SizeWidth", "Img_SizeHeight") or header_size(image)
    objects = root.findall("HRSC_Objects/HRSC_Object")
    return Record(image, size, [_annotation(item, classes, f"{xml}: object {i}") for i, item in enumerate(objects, 1)])


def _annotation(element: Element, classes: Sequence[str], where: str) -> Annotation:
    tags = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
    given = [xml_file.value(element, tag, where) for tag in tags]
    if abs(given[4]) > ONE_TURN:
        raise DataError(
            f"{where}: <mbox_ang> should be in radians, -pi/2 to pi/2, got {given[4]:g}; from degrees: times pi / 180"
        )
    box = regularise(given)[0]
    wrapped = given[2] < given[3] or not -math.pi / 2 <= given[4] <= math.pi / 2
    note = f"w {given[2]:g}, h {given[3]:g}, angle {given[4]:g} {WRAPPED}" if wrapped else ""
    class_id = (element.findtext("Class_ID") or "").strip()
    name = class_id if class_id in classes else SHIP
    return Annotation(name, tuple(box.tolist()), where, xml_file.flag(element, "difficult", where), note)
