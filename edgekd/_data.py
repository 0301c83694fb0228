"""Verbs on data sets: `data_lint` checks one, `data_synth` makes one, `data_tile` cuts the images of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .training.data.lint_report import LintReport
    from .training.data.tile import TileReport


def data_lint(
    paths: Sequence[str | Path] | str | Path,
    *,
    format: str = "auto",  # noqa: A002 - the recipe's name of it
    splits: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> LintReport:
    """Check data sets: boxes, classes, angles, image files, duplicates across splits.

    Args:
        paths: one path or several, training set first: COCO JSON, list files, data.yaml, or folders.
        format: auto, coco, coco-obb, voc, yolo, yolo-obb, dota, dior, hrsc, mvtec, btad or visa.
        splits: names of the splits each path holds; empty: each path is one split.
        progress: called with (images done, images in all).

    Returns:
        The report; `report.ok` is False when it holds an error.

    Raises:
        DataError: a path does not exist or the format is unknown.
        MissingPackageError: the packages of the extra `train` are missing.
    """
    try:
        from .training.data.lint import lint
    except ImportError as error:
        raise MissingPackageError(f"data lint needs {error.name}: pip install 'edgekd[train]'") from error
    listed = [paths] if isinstance(paths, (str, Path)) else paths
    return lint(listed, format=format, splits=splits, progress=progress)


def data_synth(
    kind: str,
    folder: str | Path,
    *,
    train: int = 300,
    val: int = 100,
    test: int = 100,
    seed: int = 0,
    size: int | tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a synthetic data set; the same arguments write the same pixels.

    Args:
        kind: "xray", "aerial" or "surface".
        folder: to create; must be missing or empty.
        train: number of training images.
        val: number of validation images.
        test: number of test images.
        seed: non-negative.
        size: long side in pixels, or (height, width); None: the kind's own.
        progress: called with (images done, images in all).

    Returns:
        The folder.

    Raises:
        UsageError: an unknown kind, a negative count, size or seed.
        DataError: the folder cannot be written.
        MissingPackageError: the packages of the extra `train` are missing.
    """
    try:
        from .training.data.synth import generate
    except ImportError as error:
        raise MissingPackageError(f"data synth needs {error.name}: pip install 'edgekd[train]'") from error
    return generate(kind, Path(folder), train=train, val=val, test=test, seed=seed, size=size, progress=progress)


def data_tile(
    data: str | Path,
    out: str | Path,
    *,
    size: int = 1024,
    overlap: int = 200,
    rates: Sequence[float] = (1.0,),
    keep: float = 0.7,
    pad: int | None = None,
    format: str = "auto",  # noqa: A002 - the recipe's name of it
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TileReport:
    """Cut the images of a data set into overlapping tiles, written as a data set of COCO JSON and PNG.

    Windows are those of `geometry.windows`; `<stem>__<size>__<left>___<top>.png` says where a tile lies, so that what
    is found on it can be moved back and merged by `ops.merge_tiles`. Boxes are written whole; an object that a window
    shows in part is difficult there: oriented ones are learnt, none counts in an evaluation. Tiles without objects are
    written too.

    Args:
        data: a set of upright or oriented boxes, as a recipe's data.train names one.
        out: folder to create; must be missing or empty, and appears once it is complete.
        size: side of a window in pixels.
        overlap: of neighbouring windows in pixels; objects no longer than it are whole in some tile.
        rates: scales to cut at: at 0.5 windows are twice as large in pixels of the image. Pixels are never resized.
        keep: least share of an object that a tile must show to hold it.
        pad: grey level 0..255 that fills the window of an image smaller than it; None: the tile is as small.
        format: of the set; "auto": found out.
        split: where `data` holds several: "train", "val" or "test"; also names the JSON.
        progress: called with (images done, images in all).

    Returns:
        The report: where the annotations are, and how many objects no tile shows whole, or at all.

    Raises:
        UsageError: an impossible size, overlap, rate, keep or pad.
        DataError: the set cannot be read, or the folder cannot be written.
        MissingPackageError: the packages of the extra `train` are missing.
    """
    try:
        from .training.data.tile import tile
    except ImportError as error:
        raise MissingPackageError(f"data tile needs {error.name}: pip install 'edgekd[train]'") from error
    return tile(
        data, Path(out), size=size, overlap=overlap, rates=rates, keep=keep, pad=pad, format=format, split=split,
        progress=progress,
    )  # fmt: skip
