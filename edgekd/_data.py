"""Verbs on data sets: `data_lint` checks one, `data_synth` makes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .training.data.lint_report import LintReport


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
        format: auto, coco, coco-obb, voc, yolo, yolo-obb, dota, hrsc, mvtec, btad or visa.
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
