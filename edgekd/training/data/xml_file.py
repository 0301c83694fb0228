"""XML annotation files, parsed without entity expansion."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ...errors import DataError, MissingPackageError
from .records import number

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element


def parse(path: Path) -> Element:
    """Return the root element of an XML file.

    Raises:
        DataError: the file is missing, no XML, or defines entities.
        MissingPackageError: defusedxml is not installed.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as error:
        raise MissingPackageError("reading XML needs defusedxml: pip install 'edgekd[train]'") from error
    try:
        return cast("Element", fromstring(path.read_bytes(), forbid_dtd=True))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ParseError as error:
        raise DataError(f"{path} is not valid XML: {error}") from error
    except DefusedXmlException as error:
        raise DataError(f"{path} defines a document type or entities, which no annotation needs: {error}") from error
    except (ValueError, LookupError) as error:  # an unknown or multi-byte encoding
        raise DataError(f"{path} is not valid XML: {error}") from error


def text(element: Element, tag: str, where: str) -> str:
    """Return the stripped text of a child.

    Raises:
        DataError: the child is missing or empty.
    """
    found = (element.findtext(tag) or "").strip()
    if not found:
        raise DataError(f"{where}: <{tag}> is missing or empty")
    return found


def value(element: Element, tag: str, where: str) -> float:
    """Return a child's text as a finite number, or raise DataError."""
    return number(text(element, tag, where), where, f"<{tag}>")


def flag(element: Element, tag: str, where: str) -> bool:
    """Return a child of 0 or 1 as a bool; a missing child is False."""
    found = (element.findtext(tag) or "0").strip()
    return number(found, where, f"<{tag}>") != 0


def image_size(element: Element | None, width: str, height: str) -> tuple[int, int] | None:
    """Return `(width, height)` when both children are positive whole numbers, else None."""
    if element is None:
        return None
    found = [(element.findtext(tag) or "").strip() for tag in (width, height)]
    if not all(item.isascii() and item.isdigit() and len(item) < 9 for item in found):
        return None
    size = int(found[0]), int(found[1])
    return size if min(size) > 0 else None
