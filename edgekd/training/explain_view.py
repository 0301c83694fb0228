"""What each distillation method compares on one image, as numbers and maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import ops
from .data.loader import normalise
from .methods import Scene, Taps
from .methods._correlation import SMALLEST_MAP, channel_correlation, spread
from .methods._standardise import DEAD
from .models.rotated import hulls
from .teacher import levels_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from .data.sample import Dataset, Sample
    from .distill import Observation
    from .methods import Observed
    from .trainer import Trainer

PEAKED = 100  # times the lowest value


@dataclass(frozen=True, eq=False)
class MapView:
    """One map `(h, w)` with the range of its colours.

    `on_objects` is its mean over the cells whose centres lie in a box, divided by its mean over all cells; None where
    there is no such cell or the mean is 0.
    """

    name: str
    values: NDArray[np.float32]
    low: float
    high: float
    on_objects: float | None

    @property
    def logarithmic(self) -> bool:
        """Whether the colours follow the logarithm: a softmax may put all of its range into a cell or two."""
        return 0 < PEAKED * self.low < self.high


@dataclass(frozen=True, eq=False)
class LevelView:
    """One pyramid level of one entry; `correlation` is the mean over channels, None where there is none."""

    level: int
    cells: tuple[int, int]  # height, width
    correlation: float | None
    maps: tuple[MapView, ...]


@dataclass(frozen=True, eq=False)
class EntryView:
    """One [[distill]] entry on one image, by its name in the log: "pkd", "pkd2" ..."""

    name: str
    levels: tuple[LevelView, ...]


@dataclass(frozen=True, eq=False)
class ImageView:
    """One image as the student sees it: `(H, W, 3)` RGB, boxes or hulls `(n, 4)` xyxy, labels, entries."""

    name: str
    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: tuple[int, ...]
    entries: tuple[EntryView, ...]


def chosen(dataset: Dataset, count: int) -> list[Sample]:
    """Return up to `count` samples with objects, evenly spread over the set and always the same.

    If no sample has an object, of all samples.
    """
    useful = [sample for sample in dataset.samples if dataset.taught(sample).any()] or list(dataset.samples)
    places = np.linspace(0, len(useful) - 1, min(count, len(useful))).round().astype(int)
    return [useful[place] for place in places]


@torch.no_grad()
def view(trainer: Trainer, sample: Sample) -> ImageView:
    """Run student and teacher on one image, letterboxed as in validation, and return what the methods compare.

    The student's are the weights that the losses see, not their moving average; BatchNorm runs on stored statistics.
    """
    size = trainer.recipe.input
    canvas, place = ops.letterbox(
        sample.load(), size.height, size.width, swap=size.color == "bgr", mean=(0, 0, 0), std=(1, 1, 1), pad=size.pad,
        dtype=np.uint8,
    )  # fmt: skip
    kept = trainer.train_set.taught(sample)
    boxes = _placed(sample.boxes[kept], place)
    upright = boxes if boxes.shape[1] == 4 else hulls(torch.from_numpy(boxes)).numpy()
    labels = sample.labels[kept]
    scene = Scene(
        [torch.from_numpy(boxes).to(trainer.device)], [torch.from_numpy(labels).to(trainer.device)],
        size.height, size.width, min(trainer.step, trainer.config.steps - 1), trainer.config.steps,
    )  # fmt: skip
    images = torch.from_numpy(canvas[None]).to(trainer.device)
    entries = tuple(
        EntryView(name, _levels(ours, theirs, found, upright, (size.height, size.width)))
        for name, ours, theirs, found in _observed(trainer, images, scene)
    )
    planes = canvas if size.color == "rgb" else canvas[::-1]
    pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
    return ImageView(sample.path.name, pixels, upright, tuple(int(label) for label in labels), entries)


def _placed(boxes: NDArray[np.float32], place: ops.Placement) -> NDArray[np.float32]:
    """Return boxes of an image, xyxy or xywhr, in pixels of its letterbox."""
    offset = (place.left, place.top)
    if boxes.shape[1] == 4:
        return (boxes * ((place.scale_x, place.scale_y) * 2) + offset * 2).astype(np.float32)
    sides = math.sqrt(place.scale_x * place.scale_y)  # rounding makes the two differ by a pixel over the picture
    return (boxes * (place.scale_x, place.scale_y, sides, sides, 1) + (*offset, 0, 0, 0)).astype(np.float32)


def _observed(trainer: Trainer, images: Tensor, scene: Scene) -> list[Observation]:
    """Return what every entry compares and shows, in fp32."""
    student, distiller = trainer.student, trainer.distiller
    assert distiller is not None
    training = [each for each in (student, distiller) if each.training]
    student.eval()
    distiller.eval()
    try:
        features = student.features(normalise(images, trainer.recipe.input))
        ours = Taps(
            dict(zip(levels_of(student.strides), features, strict=True)), student.head_outputs(features), student
        )
        theirs = {
            name: each.look(images, trainer.recipe.input, head=distiller.needs_head(name))
            for name, each in trainer.teachers.items()
        }
        return list(distiller.observe(ours, theirs, scene, over=True))
    finally:
        for each in training:
            each.train()


def _levels(
    ours: Taps, theirs: Taps, found: Observed, boxes: NDArray[np.float32], size: tuple[int, int]
) -> tuple[LevelView, ...]:
    views = []
    for level, wanted in sorted(theirs.features.items()):
        mine = found.aligned.get(level, ours.features[level])[0].float().cpu()
        named = {name: maps[level][0].float().cpu() for name, maps in found.maps.items() if level in maps}
        if not any(name.endswith("attention") for name in named):
            named = {"teacher energy": _energy(wanted[0].cpu()), "student energy": _energy(mine), **named}
        inside = cells_inside(boxes, (wanted.shape[2], wanted.shape[3]), size)
        views.append(
            LevelView(
                level, (wanted.shape[2], wanted.shape[3]), correlation(mine, wanted[0].cpu()), _maps(named, inside)
            )
        )
    return tuple(views)


def _energy(features: Tensor) -> Tensor:
    """Return mean |F| over the channels of `(C, H, W)`, divided by its mean: the two networks differ in scale."""
    energy = features.abs().mean(dim=0)
    return energy / energy.mean().clamp(min=1e-12)


def _maps(named: Mapping[str, Tensor], inside: NDArray[np.bool_]) -> tuple[MapView, ...]:
    """Return the maps, those of teacher and student on one scale."""
    arrays = {name: np.nan_to_num(values.numpy()) for name, values in named.items()}
    views = []
    for name, values in arrays.items():
        subject = name.removeprefix("teacher ").removeprefix("student ")
        pair = [arrays[other] for other in (f"teacher {subject}", f"student {subject}") if other in arrays]
        together = np.concatenate([each.ravel() for each in (pair if name != subject else [values])])
        mean = float(values.mean())
        on_objects = float(values[inside].mean()) / mean if inside.any() and mean else None
        views.append(MapView(name, values, float(together.min()), float(together.max()), on_objects))
    return tuple(views)


def cells_inside(boxes: NDArray[np.float32], cells: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which of `(h, w)` cells have their centre in a box; boxes are xyxy in pixels of `(height, width)`."""
    down = (np.arange(cells[0]) + 0.5) * size[0] / cells[0]
    across = (np.arange(cells[1]) + 0.5) * size[1] / cells[1]
    inside = np.zeros(cells, bool)
    for left, top, right, bottom in boxes:
        inside |= ((down >= top) & (down < bottom))[:, None] & ((across >= left) & (across < right))[None]
    return inside


def correlation(ours: Tensor, theirs: Tensor) -> float | None:
    """Return `channel_correlation` of two `(C, H, W)` maps; None: too few cells, no variation, other channels."""
    if theirs[0].numel() < SMALLEST_MAP or ours.shape != theirs.shape:
        return None
    x, y = (each.unsqueeze(0).double() for each in (ours, theirs))
    if not bool((spread(y) > DEAD).any()):
        return None
    mean = float(channel_correlation(x, y))
    return mean if math.isfinite(mean) else None
