"""`Bundle`: one file, `model.bin`, with everything that is needed to run a model and to trust it."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from . import _signature
from ._container import (
    MAX_CHUNKS,
    MAX_FILE_BYTES,
    MAX_TOC_BYTES,
    Contents,
    compose,
    encode_toc,
    end_of,
    is_name,
    layout,
    parse,
    toc_bytes,
    write_file,
)
from ._foreign import describe
from ._manifest_json import check_chunks, manifest_from_json, manifest_to_json
from .errors import BundleError, BundleVersionError, ClosedError, CorruptBundleError, NotABundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from ._manifest import Artifact, Manifest

MANIFEST = "manifest.json"


class Bundle:
    """A bundle, read from a file or made in memory. It never changes: `replace` and `sign` return another one.

    Attributes:
        manifest: what the bundle says about itself.
        toc: one row a chunk, by name: name, offset, length (bytes), SHA-256. Equal chunks share their bytes.
        digest: SHA-256 (hexadecimal) of the table of contents: stands for every byte of content, not for the signature.
        signature: Ed25519 signature, or None. Only `verify_signature` checks it.
        path: the file it was read from, or None.
    """

    def __init__(
        self,
        manifest: Manifest,
        contents: Contents,
        data: Mapping[str, memoryview],
        path: Path | None = None,
        mapping: mmap.mmap | None = None,
    ) -> None:
        """Tie checked parts together; users call `Bundle.read` or `Bundle.create`."""
        self.manifest = manifest
        self.toc = contents.chunks
        self.digest = contents.toc_sha256
        self.signature = contents.signature
        self.path = path
        self._data = dict(data)
        self._mapping = mapping
        self._closed = False

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle. Its length, every hash and the whole manifest are checked before this returns.

        The file stays mapped until `close`: chunks cost no memory of their own. Replace the file by renaming another
        over it, as `write` does; cutting a mapped file short kills the processes that read it.

        Raises:
            NotABundleError: another kind of file; the message says which.
            BundleVersionError: written by a newer edgekd.
            CorruptBundleError: truncated, damaged or inconsistent.
            BundleError: there is no such file, or it cannot be read.
        """
        path = Path(path)
        mapping = _map(path)
        view = memoryview(mapping)
        contents = parse(view, str(path))
        data = {chunk.name: view[chunk.offset : chunk.offset + chunk.length] for chunk in contents.chunks}
        if MANIFEST not in data:
            raise CorruptBundleError(f"{path} holds no {MANIFEST}")
        try:
            manifest = manifest_from_json(bytes(data[MANIFEST]))
            check_chunks(manifest, {name: len(chunk) for name, chunk in data.items()})
        except (BundleVersionError, CorruptBundleError) as error:
            raise type(error)(f"{path}: {error}") from error
        return cls(manifest, contents, data, path, mapping)

    @classmethod
    def create(cls, manifest: Manifest, chunks: Mapping[str, bytes | bytearray | memoryview]) -> Bundle:
        """Make a bundle in memory. Equal arguments give a bundle with equal bytes.

        Args:
            manifest: its graph, artifacts and golden images name chunks.
            chunks: name -> content. Names are ASCII path segments joined by "/"; "manifest.json" is taken.

        Raises:
            BundleError: a name, the manifest or a size is not allowed, or the manifest names a chunk that is not there.
        """
        if MANIFEST in chunks:
            raise BundleError(f"{MANIFEST} is written from the manifest; name the chunk otherwise")
        data = {name: _frozen(content) for name, content in chunks.items()}
        return cls._place(manifest, data, {})

    def replace(
        self,
        manifest: Manifest | None = None,
        add: Mapping[str, bytes | bytearray | memoryview] | None = None,
        drop: Iterable[str] = (),
    ) -> Bundle:
        """Return an unsigned bundle with another manifest, chunks added or replaced, and chunks dropped.

        Chunks that stay are neither copied nor hashed again.

        Raises:
            BundleError: as `create`; or a chunk to be dropped does not exist.
            ClosedError: after `close`.
        """
        self._require_open()
        dropped = set(drop)
        for name in sorted(dropped | set(add or ())):
            if name == MANIFEST or (name in dropped and name not in self._data):
                raise BundleError(f"cannot add or drop chunk {name!r}; droppable: {', '.join(self._own())}")
        data = {name: memoryview(self._data[name]) for name in self._own() if name not in dropped}
        known = {chunk.name: chunk.sha256 for chunk in self.toc if chunk.name in data}
        for name, content in (add or {}).items():
            data[name] = _frozen(content)
            known.pop(name, None)
        return self._place(self.manifest if manifest is None else manifest, data, known)

    def sign(self, private_key: bytes | str) -> Bundle:
        """Return the same contents with an Ed25519 signature over the table of contents.

        Args:
            private_key: PEM (PKCS #8, not encrypted) or the 32 raw bytes of the key.

        Raises:
            UsageError: no Ed25519 private key.
            MissingPackageError: cryptography is not installed.
            ClosedError: after `close`.
        """
        self._require_open()
        contents = Contents(self.toc, self.digest, _signature.sign(self.digest, private_key))
        return Bundle(self.manifest, contents, {name: memoryview(view) for name, view in self._data.items()})

    def verify_signature(self, public_keys: Iterable[bytes | str]) -> str:
        """Check that one of these keys signed exactly these contents, and return that key's id (hexadecimal).

        Args:
            public_keys: trusted Ed25519 keys, each PEM or 32 raw bytes.

        Raises:
            SignatureError: unsigned, signed by another key, or the signature does not fit.
            UsageError: one of the keys is no Ed25519 public key.
            MissingPackageError: cryptography is not installed.
        """
        return _signature.verify(self.digest, self.signature, public_keys, str(self.path or "the bundle"))

    def names(self) -> tuple[str, ...]:
        """Return the names of all chunks, sorted."""
        return tuple(chunk.name for chunk in self.toc)

    def chunk(self, name: str) -> memoryview:
        """Return a chunk's bytes, read-only and not copied; drop the view before or after `close`, as you like.

        Raises:
            BundleError: there is no such chunk; the message lists those that exist.
            ClosedError: after `close`.
        """
        self._require_open()
        if name not in self._data:
            raise BundleError(f"no chunk {name!r} in {self.path or 'the bundle'}; it holds: {', '.join(self.names())}")
        return memoryview(self._data[name])

    def graph(self) -> bytes:
        """Return the portable graph: ONNX, with its weights inside.

        Raises:
            BundleError: there is none: the bundle was imported from a file of one target's own format.
            ClosedError: after `close`.
        """
        if self.manifest.graph is None:
            raise BundleError(self.why_no_graph())
        return bytes(self.chunk(self.manifest.graph))

    def why_no_graph(self) -> str:
        """Return what to tell a user who asks for more than a bundle without a portable graph can give."""
        have = ", ".join(f"{item.target} {item.precision}" for item in self.manifest.artifacts)
        return (
            f"{self.path or 'the bundle'} has no portable graph to build from: it was imported from a file of one "
            f"target's own format, and holds {have} alone. For other targets and int8 import the ONNX model that the "
            "file was made from: edgekd import model.onnx"
        )

    def file(self, artifact: Artifact, name: str) -> memoryview:
        """Return one file of an artifact, by the name its target gave it.

        Raises:
            BundleError: the artifact has no such file.
            ClosedError: after `close`.
        """
        if name not in artifact.files:
            listed = ", ".join(sorted(artifact.files)) or "none"
            raise BundleError(f"artifact {artifact.target} {artifact.precision} has no file {name!r}; it has: {listed}")
        return self.chunk(artifact.files[name])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the bundle to a file, atomically: whoever opens `path` sees the old file or the whole new one.

        Raises:
            BundleError: it cannot be written (no space, no permission, ...); nothing is left behind.
            ClosedError: after `close`.
        """
        self._require_open()
        write_file(Path(path), compose(self.toc, self._data, self.signature))

    def close(self) -> None:
        """Let the file go; a second call does nothing. Views that are still held keep the mapping alive."""
        self._closed = True
        self._data.clear()
        if self._mapping is not None:
            with contextlib.suppress(BufferError):  # a view is still held: its end frees the mapping
                self._mapping.close()
            self._mapping = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        where = self.path or "in memory"
        return f"Bundle({self.manifest.name!r}, {len(self.toc)} chunks, {end_of(self.toc)} bytes, {where})"

    @classmethod
    def _place(cls, manifest: Manifest, data: dict[str, memoryview], known: Mapping[str, str]) -> Bundle:
        """Lay out chunks; `known` holds the hashes that need not be computed."""
        for name in data:
            if not is_name(name):
                raise BundleError(
                    f"{name!r} is no chunk name: ASCII letters, digits and ._+-, folders with /, at most 128"
                )
        if len({name.lower() for name in data}) != len(data):
            raise BundleError("two chunk names differ only in case")
        encoded = manifest_to_json(manifest)
        try:
            check_chunks(manifest, {name: len(view) for name, view in data.items()})
        except CorruptBundleError as error:
            raise BundleError(f"the bundle would be inconsistent: {error}") from error
        data = {**data, MANIFEST: memoryview(encoded)}
        hashes = {name: known.get(name) or hashlib.sha256(view).hexdigest() for name, view in data.items()}
        chunks = layout({name: (len(view), hashes[name]) for name, view in data.items()})
        if len(chunks) > MAX_CHUNKS or toc_bytes(data) > MAX_TOC_BYTES or end_of(chunks) > MAX_FILE_BYTES:
            raise BundleError(
                f"{len(chunks)} chunks of {end_of(chunks)} bytes are too much: at most {MAX_CHUNKS} of {MAX_FILE_BYTES}"
            )
        digest = hashlib.sha256(encode_toc(chunks)).hexdigest()
        return cls(manifest_from_json(encoded), Contents(chunks, digest, None), data)

    def _own(self) -> tuple[str, ...]:
        return tuple(name for name in self.names() if name != MANIFEST)

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this bundle was closed; read it again: Bundle.read({str(self.path or 'model.bin')!r})")


def _frozen(content: bytes | bytearray | memoryview) -> memoryview:
    """Return a view of bytes that nobody can change; copied only if somebody could."""
    view = memoryview(content)
    if view.readonly and view.contiguous:
        return view.cast("B")
    return memoryview(bytes(view))


def _map(path: Path) -> mmap.mmap:
    """Map a whole file, read-only."""
    try:
        # O_NONBLOCK: opening a named pipe would wait for somebody to write to it
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        if path.is_dir():
            raise NotABundleError(f"{path} is a folder; a bundle is one file") from error
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"cannot open the bundle {path}: {reason}") from error
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise NotABundleError(f"{path} is a folder; a bundle is one file")
        if not stat.S_ISREG(status.st_mode):
            raise NotABundleError(f"{path} is a device or a pipe; a bundle is a file")
        if status.st_size > MAX_FILE_BYTES:
            raise NotABundleError(
                f"{path} is not an edgekd bundle: it has {status.st_size} bytes, at most {MAX_FILE_BYTES}"
            )
        if status.st_size == 0:
            raise NotABundleError(f"{path} is not an edgekd bundle: {describe(b'')}")
        return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot map the bundle {path}: {error}") from error
    finally:
        os.close(handle)
