"""Finding and opening the files of a data set: lists of stems, sibling folders, images by stem, header sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..._preprocess import open_image
from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
PARTS = ("JPEGImages-trainval", "JPEGImages-test")  # DIOR keeps its images in two folders
IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "AllImages", "FullDataSet/AllImages", *PARTS)
EXIF_ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})  # orientations that exchange width and height
PARENTS = 3  # how far above a list file its folders are looked for

_FLAG = re.compile(r"\s+-?[01]$")  # the lists of one VOC class say "stem 1" or "stem -1"


def read_text(path: Path) -> str:
    """Read a small text file as UTF-8, with or without a byte order mark.

    Raises:
        DataError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_stems(path: Path) -> list[tuple[str, str]]:
    """Read a list file, one image a line, and return `(stem, "file:line")` pairs.

    A line is a stem, a file name or a path; the class flag of VOC lists is cut off.
    """
    stems = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = Path(_FLAG.sub("", line.strip())).name
        if name:
            stems.append((stem_of(name), f"{path}:{number}"))
    return stems


def stem_of(name: str) -> str:
    """Return a file name without its image suffix; a dot inside a bare stem stays."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def sibling(start: Path, names: Iterable[str]) -> Path | None:
    """Return the first folder of `names` in `start` or in up to three folders above it."""
    for folder in (start, *list(start.resolve().parents)[:PARENTS]):
        for name in names:
            if (folder / name).is_dir():
                return folder / name
    return None


def is_file(path: Path) -> bool:
    """Return whether a name from an annotation is a file; one that no file can have (too long a name) is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether a name from an annotation is a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def header_size(path: Path) -> tuple[int, int]:
    """Return `(width, height)` of an image from its header, upright as its EXIF orientation says.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode all of it to look for more
                return width, height
            sideways = image.getexif().get(EXIF_ORIENTATION, 1) in SIDEWAYS
            return (height, width) if sideways else (width, height)
    except Exception as error:  # a damaged header raises anything: OSError, SyntaxError, struct.error, ...
        raise DataError(f"cannot read the image {path}: {error}") from error


@dataclass(eq=False)
class ImageFolder:
    """The images directly in `folder`, found by stem whatever their suffix (.bmp and .png may be mixed).

    `also` are folders whose images count as if they lay there too.
    """

    folder: Path
    also: tuple[Path, ...] = ()
    _by_stem: dict[str, list[Path]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        try:
            files = [path for folder in (self.folder, *self.also) for path in sorted(folder.iterdir())]
        except OSError as error:
            raise DataError(f"cannot list the folder {error.filename}: {error.strerror or error}") from error
        for path in files:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._by_stem.setdefault(path.stem, []).append(path)

    def __len__(self) -> int:
        return len(self._by_stem)

    @property
    def stems(self) -> list[str]:
        """Every stem, sorted."""
        return sorted(self._by_stem)

    def get(self, stem: str) -> Path | None:
        """Return the image of a stem, or None.

        Raises:
            DataError: two images share the stem.
        """
        found = self._by_stem.get(stem)
        if found is None:
            return None
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{self.folder} holds several images of one stem: {names}; keep one of them")
        return found[0]


def part_of(path: Path, split: str, suffix: str, folders: tuple[str, ...], *, whole: bool) -> Path:
    """Return the list file or folder of one split: a list, or `path` if its name says so, is that already.

    Args:
        path: what was named.
        split: which part of it.
        suffix: of the annotation files.
        folders: names of the folder the annotation files may lie in.
        whole: where there is none, take all of `path`.

    Raises:
        DataError: there is none, or several.
    """
    if path.is_file():
        return path
    inner = path / split
    if any((inner / name).is_dir() for name in folders) or any(inner.glob(f"*{suffix}")):
        return inner
    for pattern in (f"{split}.txt", f"ImageSets/Main/{split}.txt", f"ImageSets/**/{split}.txt"):
        lists = sorted(path.glob(pattern))
        if len(lists) > 1:
            listed = ", ".join(str(each.relative_to(path)) for each in lists[:8])
            raise DataError(f"{path} has several lists of split {split!r} ({listed}): name one of them")
        if lists:
            return lists[0]
    if whole or _owner(path, folders).name == split:
        return path
    raise DataError(
        f"{path} has no split {split!r}, neither {split}/ nor {split}.txt nor ImageSets/**/{split}.txt: "
        "name a list file or the folder of that split"
    )


def _owner(path: Path, folders: tuple[str, ...]) -> Path:
    """Return the folder that a folder of annotations is part of."""
    for name in folders:
        parts = Path(name).parts
        if path.parts[-len(parts) :] == parts:
            return path.parents[len(parts) - 1]
    return path


def annotation_pairs(path: Path, suffix: str, folders: tuple[str, ...]) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pair each annotation file with its image, by stem.

    Args:
        path: a list file (one stem a line), a folder of annotation files, or a folder that holds one of `folders`.
        suffix: of the annotation files, ".xml" or ".txt".
        folders: names of the folder the annotation files may lie in.

    Returns:
        `(annotation, image)` pairs in the list's order (or sorted), and one line for each annotation without image.

    Raises:
        DataError: the path is missing, a folder is not found, or a listed stem lacks a file.
    """
    if path.is_file():
        return _listed_pairs(path, suffix, folders), []
    if not path.is_dir():
        raise DataError(f"no file or folder at {path}")
    inner = next((path / name for name in folders if (path / name).is_dir()), path)
    annotations = sorted(inner.glob(f"*{suffix}"))
    if not annotations:
        raise DataError(f"{path} holds no *{suffix}, neither does a folder {' or '.join(folders)} in it")
    images = ImageFolder(inner)
    if not len(images):
        images = _images_near(inner.parent)
    pairs, problems = [], []
    for annotation in annotations:
        image = images.get(annotation.stem)
        if image is None:
            problems.append(f"{annotation}: no image of this stem in {images.folder}; dropped")
        else:
            pairs.append((annotation, image))
    return pairs, problems


def _listed_pairs(path: Path, suffix: str, folders: tuple[str, ...]) -> list[tuple[Path, Path]]:
    annotations = sibling(path.parent, folders)
    if annotations is None:
        raise DataError(f"no folder {' or '.join(folders)} beside {path} or up to {PARENTS} folders above it")
    images = _images_near(path.parent)
    pairs = []
    for stem, where in read_stems(path):
        annotation, image = annotations / f"{stem}{suffix}", images.get(stem)
        if image is None:
            raise DataError(f"{where}: no image {stem}.* in {images.folder}")
        if not is_file(annotation):
            raise DataError(f"{where}: no {annotation.name} in {annotations}")
        pairs.append((annotation, image))
    return pairs


def _images_near(start: Path) -> ImageFolder:
    folder = sibling(start, IMAGE_FOLDERS)
    if folder is None:
        raise DataError(f"no folder {' or '.join(IMAGE_FOLDERS)} in {start} or up to {PARENTS} folders above it")
    parts = PARTS if folder.name in PARTS else ()
    others = (folder.parent / name for name in parts if name != folder.name)
    return ImageFolder(folder, tuple(other for other in others if other.is_dir()))
