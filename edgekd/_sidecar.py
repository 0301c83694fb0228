"""`read_sidecar`: a small TOML or JSON file that says of a model what the model itself does not say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._manifest_json import MAX_CLASSES, MAX_SIDE
from ._strict_json import Table, choice, integer, many, number, parse_json, text
from .errors import CorruptBundleError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 on JetPack 6
    import tomli as tomllib

MAX_IMAGES = 10_000


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the arguments of `import_model` that a sidecar gives; paths in it are relative to its folder.

    Args:
        path: a `.toml` or `.json` file with the keys of `KEYS`, none of which is required here.

    Raises:
        UsageError: no such file, another kind of file, an unknown key, or a value that cannot be; names the key.
    """
    try:
        table = Table(_parsed(path), "the sidecar")
        found = {key: table.take(key, read) for key, read in KEYS.items() if key in table.rest}
        if table.rest:
            raise UsageError(f"{path} has the unknown key {min(table.rest)!r}; possible: {', '.join(KEYS)}")
        return _with_head(_with_paths(found, path.parent))
    except CorruptBundleError as error:
        raise UsageError(f"{path}: {error}") from error


def _parsed(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if path.suffix == ".json":
            return parse_json(data)
        if path.suffix == ".toml":
            return tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"cannot read the sidecar {path}: {error.strerror}") from error
    except ValueError as error:  # tomllib's and UTF-8's
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    raise UsageError(f"the sidecar {path} should be a .toml or .json file")


def _names(value: object, where: str) -> Any:
    """Read class names, or the file that holds them."""
    return text(4096)(value, where) if isinstance(value, str) else many(text(256), 1, MAX_CLASSES)(value, where)


def _images(value: object, where: str) -> tuple[str, ...]:
    return many(text(4096), 1, MAX_IMAGES)([value] if isinstance(value, str) else value, where)


def _size(value: object, where: str) -> tuple[int, int]:
    side = integer(1, MAX_SIDE)
    height, width = many(side, 2, 2)([value, value] if isinstance(value, int) else value, where)
    return height, width


def _generic(value: object, where: str) -> dict[str, str]:
    """Read what the outputs of the generic head are; which values there are is said by `GenericHead`."""
    table = Table(value, where)
    found = {key: table.take(key, text(256)) for key in ("boxes", "scores")}
    found |= {key: table.take(key, text(64)) for key in ("layout", "unit", "activation") if key in table.rest}
    table.close()
    return found


_three = many(number(-1e6, 1e6), 3, 3)
KEYS: dict[str, Any] = {
    "head": text(64),
    "generic": _generic,
    "classes": _names,
    "images": _images,
    "name": text(256),
    "size": _size,
    "color": choice("rgb", "bgr"),
    "mean": _three,
    "std": many(number(1e-6, 1e6), 3, 3),
    "conf": number(0, 1),
    "iou": number(0, 1),
}
"""Key -> reader of its value."""


def _with_paths(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    if isinstance(found.get("classes"), str):
        found["classes"] = folder / found["classes"]
    if "images" in found:
        found["images"] = [folder / name for name in found["images"]]
    return found


def _with_head(found: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with the table `generic` as the head that it describes."""
    if ("generic" in found) != (found.get("head") == "generic"):
        raise UsageError('the sidecar: head = "generic" and the table [generic] (boxes, scores, ...) belong together')
    if "generic" in found:
        from .importing.heads import GenericHead

        found["head"] = GenericHead(**found.pop("generic"))
    return found
