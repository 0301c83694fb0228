"""DOTA text: `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` in pixels, one file an image in `labelTxt/`.

The header lines `imagesource:` and `gsd:` may be missing, so may the difficulty (then 0). Truncated objects of tiled
sets carry difficulty 2. Quadrilaterals become the smallest rectangle around them. The usual split of UCAS-AOD has lines
of its own in such a folder, `class x1 y1 .. x4 y4 theta x y width height`; they are read too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DataError
from . import ucas
from .files import annotation_pairs, header_size, read_text
from .records import Annotation, Record, assemble, corners_to_box, number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .sample import Dataset

FOLDERS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0", "annfiles")
HEADERS = ("imagesource:", "gsd:", "acquisition")


def read_dota(path: Path, classes: Sequence[str] | None = None) -> Dataset:
    """Read a list file (one stem a line), a folder of text files, or a folder that holds `labelTxt/`.

    Args:
        path: see above; images lie in `images/` beside or up to three folders above.
        classes: names in label order; None: the names found, sorted.

    Raises:
        DataError: naming the file and line.
    """
    pairs, problems = annotation_pairs(path, ".txt", FOLDERS)
    records = [Record(image, header_size(image), _annotations(label)) for label, image in pairs]
    return assemble(str(path), "obb", records, classes=classes, problems=problems)


def _annotations(label: Path) -> list[Annotation]:
    found = []
    for row, line in enumerate(read_text(label).splitlines(), start=1):
        if line.strip() and not line.lower().startswith(HEADERS):
            found.append(_annotation(line.split(), f"{label}:{row}"))
    return found


def _annotation(words: list[str], where: str) -> Annotation:
    if len(words) == ucas.COLUMNS + 1:
        return Annotation(words[0], corners_to_box(words[1:9], where), where)
    if len(words) not in (9, 10):
        hint = "; a class is one word, as storage-tank is" if len(words) > 10 else ""
        raise DataError(f"{where}: expected x1 y1 x2 y2 x3 y3 x4 y4 class [difficult], got {len(words)} words{hint}")
    if "." in words[8] and words[8].replace(".", "", 1).isdigit():  # whole numbers are classes to some converters
        raise DataError(
            f"{where}: the class should be a name, got {words[8]}; class first, then corners divided by the image's "
            'size: format = "yolo-obb", labels in labels/'
        )
    difficult = len(words) == 10 and number(words[9], where, "difficult") != 0
    return Annotation(words[8], corners_to_box(words[:8], where), where, difficult)
