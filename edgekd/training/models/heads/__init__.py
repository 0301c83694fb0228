"""Heads: pyramid maps in; training losses and decoded boxes and scores out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ....errors import RecipeError
from .dense import DenseHead
from .dense_obb import DenseOBBHead
from .head import Head, HeadOutputs, TowerHead
from .retina import RetinaHead
from .retina_obb import RetinaOBBHead
from .yolo import YOLOHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UPRIGHT: dict[str, Callable[[int, int, int, tuple[int, ...]], Head]] = {
    "dense": DenseHead,
    "retina": RetinaHead,
    "retina-giou": partial(RetinaHead, box_loss="giou"),
}
ORIENTED: dict[str, Callable[[int, int, int, tuple[int, ...]], Head]] = {
    "dense-obb": DenseOBBHead,
    "dense-obb-gwd": partial(DenseOBBHead, box_loss="gwd"),
    "dense-obb-kld": partial(DenseOBBHead, box_loss="kld"),
    "dense-obb-probiou": partial(DenseOBBHead, box_loss="probiou"),
    "retina-obb": RetinaOBBHead,
    "retina-obb-class": partial(RetinaOBBHead, angle="class"),
}
"""Heads of oriented boxes. Those of both tables share their convolutions between levels, which need equal channels."""

HEADS = (*UPRIGHT, *ORIENTED, "yolo")


def build_head(
    name: str, num_classes: int, channels: Sequence[int], depth: int, strides: tuple[int, ...], side: float
) -> Head:
    """Build a head.

    Args:
        name: one of `HEADS`.
        num_classes: number of classes C.
        channels: channels of the neck's output on each level.
        depth: stacked 3x3 convolutions per branch.
        strides: pixels per cell of each level.
        side: geometric mean of the network input's sides in pixels, to which anchors are scaled where they are.

    Raises:
        RecipeError: there is no such head, or it cannot take these levels or channels.
    """
    if name not in HEADS:
        raise RecipeError(f"no head {name!r}; possible: {', '.join(sorted(HEADS))}")
    if name == "yolo":
        return YOLOHead(num_classes, channels, depth, strides, side)
    if len(set(channels)) > 1:
        raise RecipeError(
            f"head {name!r} shares its layers between levels and needs equal channels on all of them, this neck gives"
            f" {', '.join(map(str, channels))}; possible: neck fpn or pafpn, or head yolo"
        )
    return {**UPRIGHT, **ORIENTED}[name](num_classes, channels[0], depth, strides)


def check_boxes(name: str, task: str) -> None:
    """Refuse a head whose boxes are not those of the data.

    Args:
        name: of the head.
        task: of the data set: "detect" (upright boxes) or "obb" (oriented ones).

    Raises:
        RecipeError: naming the heads that would do.
    """
    if (name in ORIENTED) != (task == "obb"):
        kind, others = ("upright", {*HEADS} - {*ORIENTED}) if name in ORIENTED else ("oriented", {*ORIENTED})
        possible = ", ".join(sorted(others))
        raise RecipeError(f"head {name!r} cannot learn the {kind} boxes of this data set; possible: {possible}")


__all__ = [
    "HEADS",
    "ORIENTED",
    "DenseHead",
    "DenseOBBHead",
    "Head",
    "HeadOutputs",
    "RetinaHead",
    "RetinaOBBHead",
    "TowerHead",
    "YOLOHead",
    "build_head",
    "check_boxes",
]
