"""Teacher features on the disk: the teacher looks at an image once, and many students learn from what it saw.

Entries are found by the content of the image, so any run whose images are the same pixels uses them: the same seed and
augmentation with another method, another student or another weight, or any run without augmentation.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from .._recipe import InputConfig, build_section
from ..errors import RecipeError
from .checkpoint import write_bytes, writing
from .methods import Taps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .teacher import Teacher

FORMAT = 1


class CachedTeacher:
    """A teacher that looks only at images it has not seen.

    Its network is built at the first miss and not before: with a full cache a run needs neither the network's memory
    nor its weights file. A method that runs the teacher's head needs both, and saves the time of all but the head.
    Losses are bit-equal to those of the teacher itself.

    Args:
        folder: of the cache; `cache.json` says whose features it holds.
        identity: what the features depend on besides the image: weights and input.
        load: builds the teacher.

    Raises:
        RecipeError: the folder holds the features of another teacher, or is no cache.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], load: Callable[[], Teacher]) -> None:
        self.folder = folder
        self.hits = self.misses = 0  # images found, and images that the teacher had to look at
        self._load = load
        self._teacher: Teacher | None = None
        self._device = torch.device("cpu")
        about = self._opened(dict(identity))
        self.input: InputConfig = build_section(InputConfig, about["input"], "cache.json: input")
        self.source: dict[str, Any] = about["source"]
        self.classes: tuple[str, ...] | None = None if about["classes"] is None else tuple(about["classes"])
        self.levels: tuple[int, ...] = tuple(about["levels"])
        self.channels: dict[int, int] = dict(zip(self.levels, about["channels"], strict=True))
        self.has_head: bool = about["has_head"]

    def to(self, device: torch.device) -> CachedTeacher:
        """Deliver features to this device."""
        self._device = device
        if self._teacher is not None:
            self._teacher.to(device)
        return self

    @property
    def teacher(self) -> Teacher:
        """The teacher itself, built when it is first asked for."""
        if self._teacher is None:
            self._teacher = self._load().to(self._device)
        return self._teacher

    def look(self, images: Tensor, seen_by: InputConfig, *, head: bool, amp: torch.dtype | None = None) -> Taps:
        """Return what `Teacher.look` does; a batch with an image that is not held is computed whole."""
        files = self._files(images, seen_by, amp)
        entries = [_read(file) for file in files]
        held = [entry for entry in entries if entry is not None]
        self.hits, self.misses = self.hits + len(held), self.misses + len(files) - len(held)
        if len(held) == len(files):
            features = {level: self._joined([entry[f"p{level}"] for entry in held]) for level in self.levels}
            return self.teacher.judge(features, amp) if head else Taps(features)
        shown = self.teacher.look(images, seen_by, head=head, amp=amp)
        for index, (file, entry) in enumerate(zip(files, entries, strict=True)):
            if entry is None:
                _write(file, {f"p{level}": features[index] for level, features in shown.features.items()})
        return shown

    def _files(self, images: Tensor, seen_by: InputConfig, amp: torch.dtype | None) -> list[Path]:
        """Return the file of each image of a uint8 batch `(B, 3, H, W)`."""
        context = repr((seen_by.color, tuple(images.shape[1:]), str(amp))).encode()
        names = []
        for image in images.cpu():
            digest = hashlib.sha256(context)
            digest.update(image.contiguous().numpy().data)
            names.append(digest.hexdigest())
        return [self.folder / name[:2] / f"{name}.safetensors" for name in names]

    def _joined(self, maps: list[Tensor]) -> Tensor:
        """Return maps `(H, W, C)` as float32 `(B, C, H, W)`, channels innermost in memory as the network's are."""
        return torch.stack(maps).to(self._device).float().permute(0, 3, 1, 2)

    def _opened(self, identity: dict[str, Any]) -> dict[str, Any]:
        """Return what `cache.json` says, written first if there is none."""
        path = self.folder / "cache.json"
        if path.exists():
            return _checked(path, identity)
        if self.folder.exists() and not self.folder.is_dir():
            raise RecipeError(f"{self.folder} is a file, a cache of features is a folder: use another --cache")
        if any(self.folder.glob("*/*.safetensors")):
            raise RecipeError(
                f"{self.folder} holds features, but no cache.json that says of which teacher: use another --cache, or "
                "remove the folder"
            )
        teacher = self.teacher
        about = {
            "format": FORMAT,
            "identity": identity,
            "input": dataclasses.asdict(teacher.input),
            "source": teacher.source,
            "classes": teacher.classes,
            "levels": list(teacher.levels),
            "channels": [teacher.channels[level] for level in teacher.levels],
            "has_head": teacher.has_head,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, (json.dumps(about, indent=2) + "\n").encode())
        return about


def _checked(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return what `cache.json` says.

    Raises:
        RecipeError: it is damaged, of another format, or of another teacher than `identity`; the message says in what.
    """
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        form, held = about["format"], dict(about["identity"])
        if form == FORMAT:
            _ = [about[key] for key in ("input", "source", "classes", "levels", "channels", "has_head")]
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no description of a feature cache: use another --cache") from error
    if form != FORMAT:
        raise RecipeError(f"{path.parent} is a cache of format {form}, this edgekd takes {FORMAT}: use another --cache")
    keys = [key for key in sorted({*identity, *held}) if identity.get(key) != held.get(key)]
    if keys:
        changes = "; ".join(f"{key}: {held.get(key)!r} there, {identity.get(key)!r} now" for key in keys)
        raise RecipeError(f"{path.parent} holds the features of another teacher ({changes}): use another --cache")
    return about


def _read(file: Path) -> dict[str, Tensor] | None:
    """Return an entry, or None if there is none or it is damaged: it will be computed again."""
    try:
        return dict(load_file(file))
    except (OSError, SafetensorError):
        return None


def _write(file: Path, features: Mapping[str, Tensor]) -> None:
    """Write maps `(C, H, W)` as `(H, W, C)`, in half the bytes where no bit is lost.

    Not synced to the disk: an entry that a power cut empties is computed again.
    """
    tensors = {name: _compact(item.permute(1, 2, 0).contiguous().cpu()) for name, item in features.items()}
    partial = file.with_suffix(f".{os.getpid()}.partial")
    with writing(file):
        file.parent.mkdir(exist_ok=True)
        try:
            partial.write_bytes(save(tensors))
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)


def _compact(features: Tensor) -> Tensor:
    """Return float32 as bfloat16 or float16 if that holds every value exactly, as under autocast, else as it is."""
    for dtype in (torch.bfloat16, torch.float16):
        half = features.to(dtype)
        if torch.equal(half.float(), features):
            return half
    return features
