"""The journal: a line of JSON for each step, synced before the next begins. It decides nothing."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..device import Disk

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MAX_BYTES = 1 << 20  # then the older half goes
COMMITTED = ("commit", "rollback", "recover")  # steps after which a release is in service for good


@dataclass(frozen=True)
class Journal:
    """A file of entries. `seq` counts on whatever the clock does; `time` is the board's clock."""

    path: Path
    disk: Disk

    def add(self, step: str, state: str, detail: str = "", **fields: str) -> None:
        """Append an entry and sync it. A line that a power cut tore is closed first."""
        entries = self.entries()
        entry = {
            "seq": entries[-1]["seq"] + 1 if entries else 1,
            "time": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "boot": _boot(),
            "step": step,
            "state": state,
            "detail": detail,
            **fields,
        }
        torn = b"\n" if self._torn() else b""
        self.disk.append(self.path, torn + json.dumps(entry, ensure_ascii=False).encode() + b"\n")

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries, oldest first; lines that are none are left out."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [entry for entry in map(_entry, lines) if entry is not None]

    def committed(self) -> list[str]:
        """Return the releases that were put into service for good, in that order."""
        return [
            str(entry["release"])
            for entry in self.entries()
            if entry["step"] in COMMITTED and entry["state"] == "ok" and "release" in entry
        ]

    def trim(self) -> None:
        """Drop the older half of a journal that has become long."""
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            lines = self.path.read_bytes().splitlines(keepends=True)
            self.disk.write(self.path, lines[len(lines) // 2 :])

    def _torn(self) -> bool:
        try:
            with self.path.open("rb") as file:
                file.seek(-1, 2)
                return file.read(1) != b"\n"
        except OSError:  # there is none, or it is empty
            return False


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    known = isinstance(entry, dict) and isinstance(entry.get("seq"), int)
    return entry if known and {"step", "state"} <= entry.keys() else None


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()[:8]
    except OSError:
        return ""
