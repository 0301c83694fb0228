"""The fleet file: which boards there are, and what differs from board to board. Strict TOML.

[defaults]                      # for every board that does not say otherwise
restart = "systemctl restart cam"

[[board]]
device = "user@cam-01"

[[board]]
device = "user@cam-02"
root = "~/edgekd"
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..device import open_device
from ..errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXTS = ("name", "root", "python", "restart", "health")
KEYS = (*TEXTS, "require", "build")  # arguments of `flash` that may differ from board to board
MAX_BOARDS = 10_000


@dataclass(frozen=True)
class Board:
    """One board: `device` as `flash` takes it, and the arguments of `flash` that are its own."""

    device: str
    options: dict[str, Any] = field(default_factory=dict)

    def key(self, common: dict[str, Any]) -> str:
        """Return what tells it from others: device, root and name."""
        known = {**common, **self.options}
        return f"{self.device} {known['root']} {known['name']}"


def read_fleet(path: str | Path) -> tuple[Board, ...]:
    """Read a fleet file.

    Raises:
        UsageError: it cannot be read, has an unknown key or a value of another type, names no board, or one twice.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the fleet file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    _known(raw, ("defaults", "board"), str(path))
    defaults = raw.get("defaults", {})
    entries = raw.get("board", [])
    if not isinstance(defaults, dict):
        raise UsageError(f"{path}: defaults should be a table: [defaults]")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_BOARDS:
        raise UsageError(f"{path} should name 1 to {MAX_BOARDS} boards, each as [[board]] with device = 'user@board'")
    shared = _options(defaults, f"{path}: [defaults]", KEYS)
    boards = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}: board {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("device"), str):
            raise UsageError(f"{where} should have device = 'user@board'")
        open_device(entry["device"])  # refuses what ssh would misread
        own = _options({key: value for key, value in entry.items() if key != "device"}, where, (*KEYS, "device"))
        boards.append(Board(entry["device"], {**shared, **own}))
    return tuple(boards)


def _options(raw: dict[str, Any], where: str, possible: tuple[str, ...]) -> dict[str, Any]:
    _known(raw, possible, where)
    for key, value in raw.items():
        if key in TEXTS and not (isinstance(value, str) and value):
            raise UsageError(f"{where}: {key} should be a text, got {value!r}")
        if key == "build" and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageError(f"{where}: build should be a list of texts, for example ['openvino:fp16'], got {value!r}")
        if key == "require" and not (isinstance(value, dict) and all(isinstance(item, str) for item in value.values())):
            raise UsageError(
                f"{where}: require should be a table of texts, for example {{l4t = '36.4'}}, got {value!r}"
            )
    return dict(raw)


def _known(raw: dict[str, Any], possible: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(raw) - set(possible))
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; possible: {', '.join(possible)}")


def batch_size(text: str, boards: int) -> int:
    """Return how many boards of a fleet "5" or "10%" are, at least one.

    Raises:
        UsageError: neither a number nor a share.
    """
    found = re.fullmatch(r"(\d+)(%?)", text.strip())
    if found is None or not int(found[1]) or (found[2] and int(found[1]) > 100):
        raise UsageError(f"--batch {text}: expected a number of boards from 1 on, or a share from 1% to 100%")
    return max(1, -(-boards * int(found[1]) // 100)) if found[2] else int(found[1])


def stages(boards: int, canary: int, batch: int) -> list[range]:
    """Return the numbers of the boards of each stage: the canaries, then batches."""
    edges = [*range(min(canary, boards), boards, batch)] if canary < boards else []
    first = [range(min(canary, boards))] if canary else []
    return [*first, *(range(start, min(start + batch, boards)) for start in edges)]
