"""What a user says of somebody else's detector, checked: in the call, or in a sidecar."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._manifest import ANGLE, InputSpec, Manifest, OutputSpec, Suppression
from ._manifest_json import MAX_SIDE
from ._preprocess import image_files
from ._sidecar import read_sidecar
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .importing.heads import Head

GOLDEN_IMAGES = 4
INPUT = "images"  # name of the network's input, once it is imported
CONF = 0.25


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of an import.

    Attributes:
        head: what the outputs mean.
        head_name: of it.
        classes: names by label.
        pictures: for the golden set.
        name: of the model.
        size: height and width of the input; None: the file's.
        color: "rgb" or "bgr".
        mean: in 0..255 units.
        std: the same.
        predict: defaults of `predict`.
        sidecar: the file that said some of it, or None.
        files: all that is read: the model, the sidecar, class names, every image that was named.
    """

    head: Head
    head_name: str
    classes: tuple[str, ...]
    pictures: tuple[Path, ...]
    name: str
    size: tuple[int, int] | None
    color: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    predict: Suppression
    sidecar: Path | None
    files: tuple[Path, ...]

    def manifest(
        self,
        size: tuple[int, int],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        layout: str,
        imported: dict[str, Any],
        **rest: Any,
    ) -> Manifest:
        """Return the manifest of the bundle.

        Args:
            size: height and width of the input.
            shapes: of boxes and scores, without the batch.
            layout: of the boxes.
            imported: provenance beside what is known here.
            **rest: `graph` and `artifacts` of the manifest, where they are not the usual ones.
        """
        from importlib import metadata  # 40 modules that loading a bundle does without

        if self.sidecar is not None:
            imported = {**imported, "sidecar": digests([self.sidecar])}
        return Manifest(
            name=self.name,
            task="detect",
            classes=self.classes,
            input=InputSpec(name=INPUT, height=size[0], width=size[1], color=self.color, mean=self.mean, std=self.std),
            outputs=(
                OutputSpec(name="boxes", kind="boxes", shape=shapes[0], layout=layout),
                OutputSpec(name="scores", kind="scores", shape=shapes[1], activation="sigmoid"),
            ),
            predict=self.predict,
            angle=ANGLE if layout == "xywhr" else None,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            edgekd=metadata.version("edgekd"),
            provenance={"imported": {**imported, "head": self.head_name}},
            **rest,
        )


def request(path: Path, sidecar: Path | None, given: dict[str, Any]) -> Request:
    """Return what is asked of an import.

    Args:
        path: of the model.
        sidecar: a file that says more, or None.
        given: arguments of `import_model`; None where one was not given.

    Raises:
        UsageError: something is missing, said twice, or impossible.
    """
    said = {} if sidecar is None else read_sidecar(sidecar)
    called = {key: value for key, value in given.items() if value is not None}
    twice = sorted(said.keys() & called.keys())
    if twice:
        raise UsageError(f"{', '.join(twice)}: said in {sidecar} and in the call; leave one of them out")
    found = {**said, **called}
    missing = [key for key in ("head", "classes", "images") if key not in found]
    if missing:
        raise UsageError(
            f"nobody says which {', '.join(missing)} {path} has: give {', '.join(f'--{key}' for key in missing)}, or "
            f"a sidecar with {'it' if len(missing) == 1 else 'them'} (--sidecar model.toml)"
        )
    head = _head(found["head"])
    pictures = image_files(found["images"])
    named = [Path(found["classes"])] if isinstance(found["classes"], (str, Path)) else []
    return Request(
        head=head,
        head_name=found["head"] if isinstance(found["head"], str) else "generic",
        classes=_classes(found["classes"]),
        pictures=tuple(pictures[:GOLDEN_IMAGES]),
        name=found.get("name", path.stem),
        size=_size(found.get("size")),
        color=found.get("color", head.pixels.color),
        mean=_three("mean", found.get("mean", head.pixels.mean)),
        std=_three("std", found.get("std", head.pixels.std)),
        predict=Suppression(conf=found.get("conf", CONF), iou=found.get("iou", head.iou)),
        sidecar=sidecar,
        files=(path, *([] if sidecar is None else [sidecar]), *named, *pictures),
    )


def refuse_to_overwrite(out: Path, files: Iterable[Path]) -> None:
    """Refuse a bundle's name that is one of the files it is made of: writing would destroy what the user has.

    Raises:
        UsageError: it is one, under this name or another.
    """
    if out.exists() and any(file.exists() and out.samefile(file) for file in files):
        raise UsageError(f"{out} is a file that the import reads; give the bundle another name (--out)")


def digests(files: Sequence[Path]) -> dict[str, str]:
    """Return name -> SHA-256 of files."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _head(head: str | Head) -> Head:
    from .importing.heads import HEADS

    if not isinstance(head, str):
        return head
    if head not in HEADS:
        raise UsageError(f"no head {head!r}; possible: {', '.join(HEADS)}, or generic (Python: edgekd.GenericHead)")
    return HEADS[head]


def _classes(given: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Return names by label from a list, or from a text file with one a line."""
    if isinstance(given, (str, Path)):
        try:
            given = [line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            why = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise UsageError(f"cannot read class names, one a line, from {given}: {why}") from error
    if not given or len(set(given)) != len(given):
        raise UsageError(
            f"class names should be different and at least one, got {len(given)}: {', '.join(given)[:200]}"
        )
    return tuple(given)


def _size(given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if given is None:
        return None
    sides = (given, given) if isinstance(given, int) else tuple(given)
    if len(sides) != 2 or not all(isinstance(side, int) and 1 <= side <= MAX_SIDE for side in sides):
        raise UsageError(f"size should be one side or (height, width), each 1 to {MAX_SIDE} pixels, got {given}")
    return sides


def _three(what: str, values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) != 3:
        raise UsageError(f"{what} should be three numbers in 0..255 units, got {list(values)}")
    first, second, third = (float(value) for value in values)
    return first, second, third
