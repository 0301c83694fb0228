"""`inspect`: what a bundle holds, without running anything of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._bundle import MANIFEST, Bundle
from ._container import end_of

if TYPE_CHECKING:
    from pathlib import Path

    from ._container import Chunk
    from ._manifest import Manifest


@dataclass(frozen=True)
class Inspection:
    """What a sound bundle holds.

    Attributes:
        path: the file.
        size_bytes: of the whole file.
        digest: SHA-256 (hexadecimal) of the table of contents; stands for all of the contents.
        signed_by: id of the key that the signature names, *not checked*; None if unsigned.
        manifest: what the bundle says about itself.
        chunks: the table of contents, by name.
        uses: chunk name -> what the manifest needs it for; chunks that it does not need are absent.
    """

    path: str
    size_bytes: int
    digest: str
    signed_by: str | None
    manifest: Manifest
    chunks: tuple[Chunk, ...]
    uses: dict[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        chunks = [
            {**dataclasses.asdict(chunk), "alignment": chunk.alignment, "uses": list(self.uses.get(chunk.name, ()))}
            for chunk in self.chunks
        ]
        return {
            "path": self.path,
            "size_bytes": self.size_bytes,
            "digest": self.digest,
            "signed_by": self.signed_by,
            "manifest": dataclasses.asdict(self.manifest),
            "chunks": chunks,
        }


def inspect(path: str | Path) -> Inspection:
    """Check a bundle as `Bundle.read` does and say what it holds. Needs no target, no torch and no GPU.

    Raises:
        BundleError: the file is not a sound bundle; the message says why.
    """
    with Bundle.read(path) as bundle:
        signed_by = bundle.signature.key_id if bundle.signature else None
        return Inspection(
            str(path), end_of(bundle.toc), bundle.digest, signed_by, bundle.manifest, bundle.toc, _uses(bundle.manifest)
        )


def _uses(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return what each chunk is for."""
    uses = [(MANIFEST, "manifest")] + ([] if manifest.graph is None else [(manifest.graph, "portable graph")])
    for artifact in manifest.artifacts:
        uses += [(name, f"{artifact.target} {artifact.precision}") for name in artifact.files.values()]
    for index, golden in enumerate(manifest.golden):
        uses += [(name, f"golden {index}") for name in (golden.image, *golden.outputs)]
    return {name: tuple(use for other, use in uses if other == name) for name, _ in uses}
