"""Lint of the image files: readable, of the size annotated, and in one split only."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..._preprocess import open_image
from ...errors import DataError
from .lint_report import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from .sample import Dataset, Sample

FLAT = 2.0  # standard deviation in grey levels below which a picture has no pattern to compare
HASH_SIDE = 16
NEAR = 8  # bits of 256 in which difference hashes of one picture may differ after another compression
BLOCK = 256  # pictures compared at a time


@dataclass(frozen=True, eq=False)
class _Print:
    """What identifies one image file."""

    split: str
    path: Path
    content: str = ""  # SHA-256 of the file
    pattern: NDArray[np.float32] | None = None  # difference hash of the pixels; None where they are flat
    trouble: str = ""  # why it cannot be read
    mismatch: str = ""  # annotated and real size, where they differ
    mask: str = ""  # what is wrong with the defect mask


def check_images(datasets: Iterable[Dataset], progress: Callable[[int, int], None] | None = None) -> Iterator[Finding]:
    """Decode every image once and yield unreadable files, wrong sizes, bad masks and duplicates."""
    jobs = [(dataset.name, sample) for dataset in datasets for sample in dataset.samples]
    prints = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for done, item in enumerate(pool.map(lambda job: _print(*job), jobs), start=1):
            prints.append(item)
            if progress:
                progress(done, len(jobs))
    for split in dict.fromkeys(item.split for item in prints):
        yield from _file_findings(split, [item for item in prints if item.split == split])
    yield from _duplicates(prints)


def _print(split: str, sample: Sample) -> _Print:
    try:
        content = hashlib.sha256(sample.path.read_bytes()).hexdigest()
        image = sample.load()
    except (DataError, OSError) as error:
        return _Print(split, sample.path, trouble=str(error))
    height, width = image.shape[:2]
    mismatch = "" if (width, height) == sample.size else f"{width}x{height}, annotated as {_by(sample.size)}"
    mask = _mask_trouble(sample.mask, (height, width)) if sample.mask else ""
    return _Print(split, sample.path, content, _pattern(image), mismatch=mismatch, mask=mask)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _pattern(image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Return the difference hash: 256 of +1 or -1, as a cell of 16 x 17 is brighter than its left neighbour or not."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    if small.std() < FLAT:
        return None
    return np.where(np.diff(small, axis=1) > 0, 1, -1).astype(np.float32).ravel()


def _mask_trouble(path: Path, shape: tuple[int, int]) -> str:
    try:
        with open_image(path) as image:
            mask = np.asarray(image)
    except Exception as error:  # a damaged file raises anything
        return f"{path}: cannot read the mask: {error}"
    if mask.shape[:2] != shape:
        return f"{path}: the mask is {mask.shape[1]}x{mask.shape[0]}, its image {shape[1]}x{shape[0]}"
    return "" if mask.any() else f"{path}: the mask of a defect is empty"


def _file_findings(split: str, prints: list[_Print]) -> Iterator[Finding]:
    groups = (
        ("unreadable", "error", "images cannot be read", [item.trouble for item in prints if item.trouble]),
        (
            "size",
            "error",
            "images differ from their annotated size, so boxes are wrong or the image was exchanged",
            [f"{item.path}: {item.mismatch}" for item in prints if item.mismatch],
        ),
        ("mask", "error", "masks do not serve", [item.mask for item in prints if item.mask]),
    )
    for kind, severity, text, places in groups:
        if places:
            yield Finding(kind, severity, split, f"{len(places)} of {len(prints)} {text}", tuple(places))


def _duplicates(prints: list[_Print]) -> Iterator[Finding]:
    """Yield equal files (an error across splits) and pictures that look like one of an earlier split."""
    groups = defaultdict(list)
    for item in prints:
        groups[item.content].append(item)
    groups.pop("", None)
    same = [group for group in groups.values() if len(group) > 1]
    across = [group for group in same if len({item.split for item in group}) > 1]
    within = [group for group in same if len({item.split for item in group}) == 1]
    text = "images stand in several splits, so the test is no test: keep each in one"
    yield from _grouped("leak", "error", text, across)
    text = f"images look like one of another split (difference hashes within {NEAR} of 256 bits)"
    yield from _grouped("near-leak", "warning", text, list(_twins(prints)))
    yield from _grouped("duplicate", "warning", "images stand several times in their split", within)


def _twins(prints: list[_Print]) -> Iterator[list[_Print]]:
    """Yield each picture whose nearest one in the splits before it is near but another file."""
    prints = [item for item in prints if item.pattern is not None]
    patterns = np.array([item.pattern for item in prints], dtype=np.float32)
    splits = list(dict.fromkeys(item.split for item in prints))
    order = np.array([splits.index(item.split) for item in prints])
    for split in range(1, len(splits)):
        earlier = np.flatnonzero(order < split)
        for rows in np.array_split(np.flatnonzero(order == split), 1 + len(prints) // BLOCK):
            agreement = patterns[rows] @ patterns[earlier].T  # 256 minus twice the bits that differ
            nearest = agreement.argmax(axis=1)
            for row, column, value in zip(rows, nearest, agreement.max(axis=1), strict=True):
                pair = [prints[earlier[column]], prints[row]]
                if value >= 256 - 2 * NEAR and pair[0].content != pair[1].content:
                    yield pair


def _grouped(kind: str, severity: str, text: str, groups: list[list[_Print]]) -> Iterator[Finding]:
    by_splits: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        splits = " + ".join(dict.fromkeys(item.split for item in group))
        by_splits[splits].append(" = ".join(str(item.path) for item in group))
    for splits, places in by_splits.items():
        yield Finding(kind, severity, splits, f"{len(places)} {text}", tuple(places))
