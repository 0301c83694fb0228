"""What a board keeps for one name: releases, the link to the one in service, what is on its way in.

ROOT/keys/*.pem                 public keys that may sign; none: nobody asks
ROOT/NAME/current               -> releases/ID, always a whole, verified bundle: load ROOT/NAME/current/model.bin
ROOT/NAME/releases/ID/          model.bin and release.json
ROOT/NAME/incoming/FILE/        list.json and the chunks received so far, by hash; FILE: SHA-256 of what is sent
ROOT/NAME/trial.json, .back     there from before the switch until the commit: what to go back to, ready to be renamed
ROOT/NAME/starts                a byte for each start of the service during the trial
ROOT/NAME/journal.jsonl, lock
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._bundle import Bundle
from ..errors import BundleError, UsageError
from .chunks import MAX_BYTES, Piece, mapped, split
from .journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..device import Disk

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MODEL, RELEASE = "model.bin", "release.json"
UPLOADS_KEPT = 3  # unfinished ones, beside the one that goes on


class MissingChunksError(Exception):
    """Chunks that were to be here are not, or are damaged: they have to be sent again."""


@dataclass(frozen=True)
class Store:
    """The folder of one name on a board."""

    root: Path
    name: str
    disk: Disk

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name) or self.name == "keys":
            raise UsageError(
                f"{self.name!r} cannot name a model on a board: letters, digits and ._-, at most 64, not 'keys'"
            )

    @property
    def folder(self) -> Path:
        """Where everything of this name is."""
        return self.root / self.name

    @property
    def current(self) -> Path:
        """The link to the release in service."""
        return self.folder / "current"

    @property
    def staging(self) -> Path:
        """Where a release is put together; of no use to anybody but the holder of the lock."""
        return self.folder / "releases" / ".staging"

    @property
    def journal(self) -> Journal:
        """The journal of this name."""
        return Journal(self.folder / "journal.jsonl", self.disk)

    def prepare(self) -> None:
        """Make the folders."""
        for part in ("releases", "incoming"):
            self.disk.folder(self.folder / part)

    def release(self, name: str) -> Path:
        """Return the folder of a release."""
        return self.folder / "releases" / name

    def incoming(self, file: str) -> Path:
        """Return where the chunks of a file arrive.

        Raises:
            UsageError: `file` is no SHA-256 in hexadecimal.
        """
        if not SHA256.fullmatch(file):
            raise UsageError(f"{file!r} is no SHA-256")
        return self.folder / "incoming" / file

    def in_service(self) -> str | None:
        """Return the release that `current` leads to, or None."""
        try:
            return self.current.readlink().name
        except OSError:
            return None

    def releases(self) -> list[str]:
        """Return the names of all releases on the disk."""
        try:
            return sorted(path.name for path in (self.folder / "releases").iterdir() if path.name[0] != ".")
        except FileNotFoundError:
            return []

    def record(self, name: str) -> dict[str, Any]:
        """Return what was written down about a release; empty if that cannot be read."""
        try:
            record = json.loads((self.release(name) / RELEASE).read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def whole(self, name: str) -> bool:
        """Whether every byte of a release is what it was."""
        try:
            with Bundle.read(self.release(name) / MODEL) as bundle:
                return bundle.digest == self.record(name).get("digest")
        except BundleError:
            return False

    def previous(self) -> str | None:
        """Return the release that was in service before this one and is still here."""
        now, here = self.in_service(), set(self.releases())
        return next((name for name in reversed(self.journal.committed()) if name != now and name in here), None)

    def expect(self, file: str, chunks: list[Piece]) -> list[str]:
        """Note what a file consists of; return the hashes of the chunks that are not here."""
        folder = self.incoming(file)
        self._drop_abandoned(folder)
        self.disk.folder(folder)
        listed = [[piece.sha256, piece.length] for piece in chunks]
        self.disk.write(folder / "list.json", [json.dumps(listed).encode()])
        have = {path.name for path in folder.iterdir()} | set(self._known())
        return sorted({piece.sha256 for piece in chunks} - have)

    def _drop_abandoned(self, wanted: Path) -> None:
        """Keep the latest few of the uploads that were begun and not finished."""
        others = [path for path in (self.folder / "incoming").iterdir() if path != wanted]
        for path in sorted(others, key=lambda path: path.stat().st_mtime)[:-UPLOADS_KEPT]:
            self.disk.remove(path)

    def expected(self, file: str) -> list[tuple[str, int]]:
        """Return hash and length of each chunk of a file, in order.

        Raises:
            MissingChunksError: nobody said so, or the list was lost.
        """
        try:
            return checked_chunks(json.loads((self.incoming(file) / "list.json").read_bytes()))
        except (OSError, ValueError, UsageError) as error:
            raise MissingChunksError from error

    def assemble(self, file: str, target: Path) -> None:
        """Put a file together from what was received and from the releases here, every chunk and the whole checked.

        Raises:
            MissingChunksError: something is not here, or is not what it should be.
        """
        listed = self.expected(file)
        whole = hashlib.sha256()
        known = self._known()

        def pieces() -> Iterator[bytes]:
            for sha256, length in listed:
                content = self._chunk(file, sha256, length, known.get(sha256))
                whole.update(content)
                yield content

        try:
            self.disk.write(target, pieces())
        except MissingChunksError:
            self._drop_damaged(file)  # after a power cut many are: they are asked for together
            raise
        if whole.hexdigest() != file:  # every chunk fits: it is the list that is wrong
            self.disk.remove(self.incoming(file))
            raise MissingChunksError

    def _chunk(self, file: str, sha256: str, length: int, place: tuple[Path, int] | None) -> bytes:
        received = self.incoming(file) / sha256
        for path, offset in ((received, 0), *([place] if place else [])):
            with contextlib.suppress(OSError), path.open("rb") as source:
                source.seek(offset)
                content = source.read(length)
                if hashlib.sha256(content).hexdigest() == sha256:
                    return content
        if place is not None:  # a release is damaged: nobody takes from it any more
            self.disk.remove(place[0].with_name(RELEASE))
        raise MissingChunksError

    def _drop_damaged(self, file: str) -> None:
        """Remove the received chunks that are not what their names say."""
        for path in self.incoming(file).iterdir():
            if SHA256.fullmatch(path.name) and hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
                self.disk.remove(path)

    def _known(self) -> dict[str, tuple[Path, int]]:
        """Return where chunks lie in the releases: hash -> file, offset."""
        found = {}
        for name in self.releases():
            path = self.release(name) / MODEL
            for sha256, offset in self.record(name).get("chunks", ()):
                found[sha256] = (path, offset)
        return found

    def describe(self, path: Path, **facts: Any) -> None:
        """Write the record of the release whose model is at `path`."""
        with Bundle.read(path) as bundle:
            digest, created, name = bundle.digest, bundle.manifest.created, bundle.manifest.name
        with mapped(path) as view:
            size_bytes = len(view)
            chunks = [[piece.sha256, piece.offset] for piece in split(view)]
        record = {
            "digest": digest, "created": created, "model": name, "size_bytes": size_bytes, **facts, "chunks": chunks
        }  # fmt: skip
        self.disk.write(path.with_name(RELEASE), [json.dumps(record).encode()])

    def drop_unused(self, keep: int, quota_bytes: int) -> list[str]:
        """Remove releases, the oldest first, until at most `keep` are left and they fit the quota.

        The one in service and the one before it stay, whatever the quota says.
        """
        order = {name: index for index, name in enumerate(self.journal.committed())}
        names = sorted(self.releases(), key=lambda name: order.get(name, -1))
        stay = {self.in_service(), self.previous()}
        sizes = {name: sum(item.stat().st_size for item in self.release(name).iterdir()) for name in names}
        dropped: list[str] = []
        for name in names:
            rest = [other for other in names if other not in dropped]
            if name not in stay and (len(rest) > keep or sum(sizes[other] for other in rest) > quota_bytes):
                self.disk.remove(self.release(name))
                dropped.append(name)
        return dropped


def checked_chunks(value: object) -> list[tuple[str, int]]:
    """Read a list of [SHA-256, length].

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, list) or not value:
        raise UsageError("the list of chunks should be a list of [SHA-256, length]")
    for item in value:
        if not (
            isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and SHA256.fullmatch(item[0])
            and type(item[1]) is int and 0 < item[1] <= MAX_BYTES
        ):  # fmt: skip
            raise UsageError(f"{str(item)[:80]} is no chunk: [SHA-256, length from 1 to {MAX_BYTES} bytes]")
    return [(sha256, length) for sha256, length in value]


def summary(store: Store, name: str | None) -> dict[str, Any] | None:
    """Return a release's record without its chunks, for people."""
    if name is None:
        return None
    record = {key: value for key, value in store.record(name).items() if key != "chunks"}
    return {"release": name, **record}


def require_whole(store: Store, name: str) -> None:
    """Raise BundleError unless a release is there and undamaged."""
    if name not in store.releases() or not store.whole(name):
        whole = ", ".join(item for item in store.releases() if store.whole(item)) or "none"
        raise BundleError(f"release {name} of {store.name} is not here or damaged; whole ones: {whole}")
