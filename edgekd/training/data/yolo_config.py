"""Class names of YOLO sets: the plain part of YAML that `data.yaml` files use, and files of one name a line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from ...errors import DataError
from .files import PARENTS, read_text

if TYPE_CHECKING:
    from pathlib import Path

Value: TypeAlias = "str | tuple[str, ...]"

NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")

_KEY = re.compile(r"^([A-Za-z_][\w-]*)\s*:(?:\s+(.*))?$")
_NUMBERED = re.compile(r"^(\d{1,5})\s*:\s*(.+)$")
_COMMENT = re.compile(r"(^|\s)#.*$")


def read_names(path: Path, images: Path) -> tuple[str, ...] | None:
    """Return the class names of the set that `path` or the folder `images` belongs to, or None without a names file.

    Raises:
        DataError: a names file cannot be parsed.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        return _names(path)
    start = (path if path.is_dir() else path.parent).resolve()
    near = (start, *list(images.resolve().parents)[: PARENTS - 1], *list(start.parents)[:PARENTS])
    for folder in dict.fromkeys(near):
        for name in NAME_FILES:
            if (folder / name).is_file():
                return _names(folder / name)
    return None


def _names(path: Path) -> tuple[str, ...] | None:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return tuple(line.strip() for line in read_text(path).splitlines() if line.strip()) or None
    names = read_config(path).get("names")
    return names if isinstance(names, tuple) else None


def read_config(path: Path) -> dict[str, Value]:
    """Read top-level scalars, lists and numbered maps of a `data.yaml`.

    Understood: `key: value`, `key: [a, b]`, `key: {0: a, 1: b}`, and below `key:` indented `- a` or `0: a` lines.
    Keys with other content are left out.

    Raises:
        DataError: naming the line of a numbered map that does not count 0, 1, 2, …
    """
    config: dict[str, Value] = {}
    lines = [_COMMENT.sub("", line).rstrip() for line in read_text(path).splitlines()]
    i = 0
    while i < len(lines):
        match = _KEY.match(lines[i])
        i += 1
        if match is None:
            continue
        key, inline, where = match[1], (match[2] or "").strip(), f"{path}:{i}"
        end = i
        while end < len(lines) and not _KEY.match(lines[end]):
            end += 1
        below, i = [line.strip() for line in lines[i:end] if line.strip()], end
        value = _value(inline, below, where)
        if value is not None:
            config[key] = value
    return config


def _value(inline: str, below: list[str], where: str) -> Value | None:
    if inline[:1] in ("[", "{"):
        body = " ".join([inline, *below])
        if body[-1] != {"[": "]", "{": "}"}[body[0]]:
            raise DataError(f"{where}: {body[:40]!r} is not closed; write one name a line: '  0: name'")
        items = [item.strip() for item in body[1:-1].split(",") if item.strip()]
        return _numbered(items, where) if body[0] == "{" else tuple(_plain(item) for item in items)
    if inline:
        return _plain(inline)
    if below and all(line.startswith("- ") for line in below):
        return tuple(_plain(line[2:].strip()) for line in below)
    if below and all(_NUMBERED.match(line) for line in below):
        return _numbered(below, where)
    return None


def _numbered(items: list[str], where: str) -> tuple[str, ...]:
    names = []
    for expected, item in enumerate(items):
        match = _NUMBERED.match(item)
        if match is None or int(match[1]) != expected:
            raise DataError(f"{where}: expected '{expected}: name', got {item!r}; classes count 0, 1, 2, …")
        names.append(_plain(match[2].strip()))
    return tuple(names)


def _plain(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text
