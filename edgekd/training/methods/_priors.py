"""What two heads say of the same priors, and what each prior learns, level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from ...errors import RecipeError
from ..models.heads import ORIENTED, UPRIGHT, TowerHead
from ..models.heads.head import join_levels
from ..teacher import levels_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.heads import HeadOutputs
    from . import Scene, Taps


class Said(NamedTuple):
    """What one network says of N priors, float32.

    `logits` `(B, C, N)` of the classes; `box` `(B, 4 | 5, N)` as `TowerHead.encoded`; `angle` `(B, K, N)`, logits of K
    classes of angles, or None.
    """

    logits: Tensor
    box: Tensor
    angle: Tensor | None


class Level(NamedTuple):
    """One pyramid level of both networks.

    `grid` is its H and W; N is H W A, the A priors of a cell side by side. `labels` `(B, N)` int64: the class that a
    prior of the student learns, -1 background, -2 ignored; `angle_labels` likewise of classes of angles, or None.
    """

    grid: tuple[int, int]
    labels: Tensor
    angle_labels: Tensor | None
    ours: Said
    theirs: Said

    @property
    def priors(self) -> int:
        """A, the priors of a cell."""
        return self.labels.shape[1] // (self.grid[0] * self.grid[1])

    def per_cell(self, values: Tensor) -> Tensor:
        """Return `(B, H, W)`: the sum of `(B, N)` over the priors of each cell."""
        return values.view(len(values), *self.grid, self.priors).sum(dim=3)


def paired_levels(student: Taps, teacher: Taps, scene: Scene, *, angles: bool) -> dict[int, Level]:
    """Return both networks' predictions on the levels that are taught, finest first.

    Args:
        student: whose head assigns the objects.
        teacher: whose head should have the same priors.
        scene: the objects.
        angles: whether angles are compared, so that both should be numbers or both classes.

    Raises:
        RecipeError: a head that does not tell what its priors learn, or heads of unlike priors.
    """
    heads = _head(student, "student"), _head(teacher, "teacher")
    levels = sorted(student.features)
    _check(heads, (student, teacher), levels, angles=angles)
    found = heads[0].matches(student.head, scene.boxes, scene.labels)
    labels = _split(found.labels, student)
    turned = _split(heads[0].angle_labels(student.head, found), student) if heads[0].bins > 1 else {}
    ours, theirs = (_said(head, taps) for head, taps in zip(heads, (student, teacher), strict=True))
    grids = dict(zip(levels_of(student.network.strides), student.head.shapes, strict=True))
    return {
        level: Level(grids[level], labels[level], turned.get(level), ours[level], theirs[level]) for level in levels
    }


def _head(taps: Taps, whose: str) -> TowerHead:
    head = getattr(taps.network, "head", None)
    if not isinstance(head, TowerHead):
        raise RecipeError(
            f"nsd: the {whose}'s head ({type(head).__name__}) does not tell which of its predictions are background;"
            f" heads that do: {', '.join(sorted({*UPRIGHT, *ORIENTED}))}"
        )
    return head


def _check(heads: tuple[TowerHead, TowerHead], networks: tuple[Taps, Taps], levels: list[int], *, angles: bool) -> None:
    """Refuse heads of unlike priors."""
    ours, theirs = (_priors(head, taps, levels, angles) for head, taps in zip(heads, networks, strict=True))
    if ours != theirs:
        angle = ", or with angle_weight = 0 and box_angle = false, if only the angles differ" if angles else ""
        raise RecipeError(
            f"nsd: predictions are compared one to one, but the student has {ours} and the teacher {theirs};"
            f" use heads of one kind on one input size, with the same classes{angle}"
        )


def _priors(head: TowerHead, taps: Taps, levels: list[int], angles: bool) -> str:
    """Return in words what has to be the same on both sides."""
    outputs: HeadOutputs = taps.head
    grids = dict(zip(levels_of(taps.network.strides), outputs.shapes, strict=True))
    kind = f"{type(head).__name__} with {outputs.logits[0].shape[1] // head.num_classes} priors a cell"
    bins = f", {head.bins} classes of angles" if angles and head.bins > 1 else ""
    cells = ", ".join(f"P{level} {grids[level][0]}×{grids[level][1]}" for level in levels)
    return f"{kind}, {head.num_classes} classes{bins} on {cells}"


def _said(head: TowerHead, taps: Taps) -> dict[int, Said]:
    outputs: HeadOutputs = taps.head
    logits = _split(join_levels(outputs.logits, head.num_classes).float(), taps)
    boxes = _split(head.encoded(outputs), taps)
    angles = _split(join_levels(outputs.angle, head.bins).float(), taps) if head.bins > 1 else {}
    return {level: Said(logits[level], boxes[level], angles.get(level)) for level in logits}


def _split(flat: Tensor, taps: Taps) -> dict[int, Tensor]:
    """Return `(..., N)` of all levels by pyramid level."""
    cells = [height * width for height, width in taps.head.shapes]
    sizes = [count * (flat.shape[-1] // sum(cells)) for count in cells]
    return dict(zip(levels_of(taps.network.strides), torch.split(flat, sizes, dim=-1), strict=True))
