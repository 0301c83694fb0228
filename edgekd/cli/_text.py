"""Text for a terminal: tables, and words that somebody else wrote."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below a head, in columns."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def size(count: int) -> str:
    """Return a number of bytes with its unit: B, KiB or MiB."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.2f} MiB"


def class_list(text: str | None) -> list[int | str] | None:
    """Return the classes of `--classes cat,3`, names or indices; None: all."""
    if text is None:
        return None
    return [int(item) if item.strip().isdigit() else item.strip() for item in text.split(",")]


def plain(value: object) -> str:
    """Return text that cannot move the cursor or forge a line: a bundle's free fields hold anything."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
