"""`tile`: cut the images of a set into tiles, as a set of its own.

It is written as COCO JSON, which keeps the order of the classes and holds upright and oriented boxes alike (DOTA text
does neither), with PNG images, so that no pixel changes. Corners are written in full precision. What a window cuts,
and what was difficult before, has `iscrowd` 1, which the reader turns into `difficult`, and `difficult` 1 if no crowd.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, UsageError
from .polygon import xywhr_to_quads
from .read import read
from .synth.writing import whole_folder, write_image, write_json
from .tiles import Grid, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .sample import Dataset
    from .tiles import Tile

IMAGES = "images"


@dataclass(frozen=True)
class TileReport:
    """What `tile` wrote.

    Attributes:
        annotations: the COCO JSON, to be named as a set.
        images: how many were cut.
        tiles: how many were written.
        objects: of the images.
        cut: objects that no tile shows whole; difficult in each that holds them.
        lost: objects that no tile holds.
    """

    annotations: Path
    images: int
    tiles: int
    objects: int
    cut: int
    lost: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {**dataclasses.asdict(self), "annotations": str(self.annotations)}


def tile(
    data: str | Path,
    out: Path,
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
    """Write `out/<split, or "tiles">.json` and `out/images/<stem>__<size>__<left>___<top>.png`.

    Where two images have the same stem, `<folder>-<stem>` is in its place. The folder appears once it is complete; the
    same set and arguments write the same bytes.

    Args:
        data: a set of upright or oriented boxes, as `read` takes it.
        out: to write to; made if missing, refused if it holds anything.
        size: side of a window in pixels.
        overlap: of neighbouring windows; objects no longer than it are whole in some tile.
        rates: scales to cut at, see `tiles.Grid`.
        keep: least share of an object that a tile must show to hold it.
        pad: grey level 0..255 that fills the window of an image smaller than it on the right and below; None: the tile
            is as small as the image, as the runtime has it.
        format: of the set.
        split: where a path holds several.
        progress: called with (images done, images in all).

    Raises:
        UsageError: an impossible size, overlap, rate, keep or pad.
        DataError: the set cannot be read or has no boxes, two images share folder and stem, or `out` cannot be written.

    While it runs, Pillow's limit on the size of images is off, for the whole process.
    """
    grid = Grid(size, overlap, tuple(rates), keep)
    if pad is not None and not 0 <= pad <= 255:
        raise UsageError(f"pad should be a grey level 0 to 255, got {pad}")
    name = f"{split or 'tiles'}.json"
    with _any_size():
        dataset = read(data, format, split)
        _check(dataset)
        writer = _written(dataset, out, name, grid, pad, progress)
    return TileReport(out / name, len(dataset), len(writer.content["images"]), writer.objects, writer.cut, writer.lost)


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Let Pillow open images of any size for as long.

    From 179 megapixels on it takes them for bombs; to cut such scenes (DOTA has sides up to 20000) is what this is for.
    """
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _written(
    dataset: Dataset, out: Path, name: str, grid: Grid, pad: int | None, progress: Callable[[int, int], None] | None
) -> _Writer:
    """Write `out` and return who knows what is in it."""
    with whole_folder(out) as folder:
        try:
            writer = _Writer(folder, dataset, grid, pad)
            for done, number in enumerate(range(len(dataset)), start=1):
                writer.add(number)
                if progress is not None:
                    progress(done, len(dataset))
            write_json(folder / name, writer.content)
        except OSError as error:
            raise DataError(f"cannot write the tiles to {out}: {error.strerror or error}") from error
    return writer


def _check(dataset: Dataset) -> None:
    if dataset.task not in ("detect", "obb"):
        raise DataError(f"{dataset.name}: a set of task {dataset.task} has no boxes to put on tiles")
    twice = [stem for stem, count in Counter(_stems(dataset)).items() if count > 1]
    if twice:
        raise DataError(f"{dataset.name}: several images would name their tiles {twice[0]!r}; rename one of them")


def _stems(dataset: Dataset) -> list[str]:
    """Return what the tiles of each image are named after: its stem, after its folder where another has it too."""
    count = Counter(sample.path.stem for sample in dataset.samples)
    paths = [sample.path for sample in dataset.samples]
    return [path.stem if count[path.stem] == 1 else f"{path.parent.name}-{path.stem}" for path in paths]


class _Writer:
    """Writes tiles into `folder/images` and collects their COCO JSON."""

    def __init__(self, folder: Path, dataset: Dataset, grid: Grid, pad: int | None) -> None:
        self.folder, self.dataset, self.grid, self.pad = folder / IMAGES, dataset, grid, pad
        self.folder.mkdir()
        self.stems = _stems(dataset)
        self.objects = self.cut = self.lost = 0
        layout = "xywhr" if dataset.task == "obb" else "xyxy"
        self.content: dict[str, Any] = {
            "info": {
                "description": f"tiles of {Path(dataset.name).name}",
                "layout": layout,
                **dataclasses.asdict(grid),
            },
            "images": [],
            "annotations": [],
            "categories": [{"id": label + 1, "name": name} for label, name in enumerate(dataset.classes)],
        }

    def add(self, number: int) -> None:
        """Cut one image."""
        sample = self.dataset.samples[number]
        pixels = sample.load()
        tiles = cut(sample, pixels.shape[0], pixels.shape[1], self.grid, self.stems[number])
        shown = np.zeros(len(sample.boxes), np.int64)  # 0: nowhere, 1: in part, 2: whole
        for each in tiles:
            shown[each.objects] = np.maximum(shown[each.objects], np.where(each.cut, 1, 2))
            self._write(each, pixels, sample.path.name)
            crowd = np.zeros(len(shown), np.bool_) if sample.crowd is None else sample.crowd
            hard = sample.difficult[each.objects] | each.cut
            self._annotate(each, sample.labels[each.objects], hard, crowd[each.objects])
        self.objects += len(shown)
        self.cut += int((shown == 1).sum())
        self.lost += int((shown == 0).sum())

    def _write(self, each: Tile, pixels: NDArray[np.uint8], source: str) -> None:
        left, top, right, bottom = each.window
        part = pixels[top:bottom, left:right]
        if self.pad is not None:
            canvas = np.full((each.name.size, each.name.size, 3), self.pad, np.uint8)
            canvas[: bottom - top, : right - left] = part
            part = canvas
        file = f"{each.name}.png"
        write_image(self.folder / file, part)
        height, width = part.shape[:2]
        row = {"id": len(self.content["images"]) + 1, "file_name": file, "width": width, "height": height}
        self.content["images"].append({**row, "source": source, "window": list(each.window)})

    def _annotate(
        self, each: Tile, labels: NDArray[np.int64], difficult: NDArray[np.bool_], crowd: NDArray[np.bool_]
    ) -> None:
        rows = self.content["annotations"]
        for box, label, hard, many in zip(each.boxes, labels, difficult, crowd, strict=True):
            row = {"id": len(rows) + 1, "image_id": len(self.content["images"]), "category_id": int(label) + 1}
            marks = {"iscrowd": int(hard), **({"difficult": 1} if hard and not many else {})}
            rows.append({**row, **_outline(box), **marks})


def _outline(box: NDArray[np.float64]) -> dict[str, Any]:
    """Return a box as COCO has it: its hull, its area and, of an oriented one, its corners."""
    if len(box) == 4:
        left, top, right, bottom = box.tolist()
        return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
    corners = xywhr_to_quads(box[None])[0]
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    outline = {"bbox": [left, top, right - left, bottom - top], "area": float(box[2] * box[3])}
    return {**outline, "segmentation": [corners.reshape(-1).tolist()]}
