"""Verbs on data sets: `data_lint` checks one, `data_synth` makes, `data_tile` cuts, `data_label` annotates one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._container import check_place, write_file
from ._detector import load
from ._preprocess import decode, image_files
from .errors import ImageError, MissingPackageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ._detections import Detections
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
        format: auto, coco, coco-obb, voc, yolo, yolo-obb, dota, dior, hrsc, ucas, mvtec, btad or visa.
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


@dataclass(frozen=True)
class LabelReport:
    """What `data_label` wrote.

    Attributes:
        path: the COCO JSON.
        images: how many.
        empty: how many of them without any object.
        objects: class -> how many.
        unreadable: files that are no image, and why; they are left out.
    """

    path: str
    images: int
    empty: int
    objects: dict[str, int]
    unreadable: dict[str, str]


def data_label(
    path: str | Path,
    images: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    conf: float = 0.5,
    classes: Sequence[int | str] | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> LabelReport:
    """Annotate images with what a bundle finds on them: a set to train a smaller detector on, or to correct first.

    Args:
        path: `model.bin`; an imported one may be the teacher too.
        images: files or folders.
        out: COCO JSON to write, atomically, in a folder that holds the images, or folders of them: a set names its
            images by their way from there.
        conf: objects that score above this. Missed objects teach the student to miss them: look at some.
        classes: only these, by name or index, which are then the classes of the set; None: all.
        tile: as in `Detector.predict`.
        overlap: as in `Detector.predict`.
        device: as in `load`.
        precision: as in `load`.
        progress: called with (images done, images in all).

    Raises:
        BundleError: as `load`.
        UsageError: as `load` and `predict`; no images, none that can be read, or some that lie elsewhere.
        TargetUnavailableError: as `load`.
    """
    files, out = image_files(images), Path(out)
    _check_below(files, out)
    check_place(out)
    with load(path, device=device, precision=precision) as detector:
        names = detector.names
        oriented = detector.manifest.angle is not None
        listed, rows, unreadable = _labelled(
            files,
            lambda pixels, order: detector.predict(
                pixels, color=order, conf=conf, classes=classes, tile=tile, overlap=overlap
            ),
            out.resolve().parent,
            progress,
        )
    if not listed:
        raise UsageError(f"none of {len(files)} files is an image: {next(iter(unreadable.values()))}")
    chosen = names if classes is None else [item if isinstance(item, str) else names[item] for item in classes]
    wanted = tuple(dict.fromkeys(chosen))
    for row in rows:
        row["category_id"] = wanted.index(names[row["category_id"]])
    categories = [{"id": label, "name": name} for label, name in enumerate(wanted)]
    info = {"description": f"what {Path(path).name} finds, score above {conf:g}"}
    if oriented:
        info["layout"] = "xywhr"  # so the corners are read
    held = {"info": info, "images": listed, "annotations": rows, "categories": categories}
    write_file(out, [(json.dumps(held) + "\n").encode()])
    counts = {name: sum(row["category_id"] == label for row in rows) for label, name in enumerate(wanted)}
    empty = len(listed) - len({row["image_id"] for row in rows})
    return LabelReport(str(out), len(listed), empty, counts, unreadable)


def _sides(found: Detections) -> NDArray[np.float32]:
    """Return width and height `(N, 2)`, pixels."""
    return found.boxes[:, 2:4] if found.oriented else found.boxes[:, 2:] - found.boxes[:, :2]


def _check_below(files: Sequence[Path], out: Path) -> None:
    """Raise UsageError for images that the set could not name."""
    folder = out.resolve().parent
    for file in files:
        if folder not in file.resolve().parents:
            raise UsageError(
                f"{file} does not lie below {folder}, so {out.name} cannot name it there: write it beside the images, "
                f"for example --out {file.parent / 'labels.json'}"
            )


def _labelled(
    files: Sequence[Path],
    find: Callable[[Any, str], Detections],
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Return COCO's images and annotations, and why which file is no image."""
    listed: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for done, file in enumerate(files, 1):
        try:
            pixels, order = decode(file)
        except ImageError as error:
            unreadable[str(file)] = str(error)
            continue
        found = find(pixels, order)
        (height, width), number = found.image_size, len(listed)
        listed.append(
            {"id": number, "file_name": os.path.relpath(file.resolve(), folder), "width": width, "height": height}
        )
        sides = _sides(found)
        whole = sides.min(axis=1, initial=np.inf) >= 1  # what lies beside the image was cut to a line at its border
        found, sides = found[whole], sides[whole]
        for row, area in zip(found.to_coco(number), sides.prod(axis=1).tolist(), strict=True):
            rows.append({**row, "id": len(rows) + 1, "iscrowd": 0, "area": area})
        if progress is not None:
            progress(done, len(files))
    return listed, rows, unreadable
