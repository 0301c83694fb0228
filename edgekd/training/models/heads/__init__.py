"""Heads: pyramid maps in; training losses and decoded boxes and scores out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ....errors import RecipeError
from .dense import DenseHead
from .head import Head, HeadOutputs, TowerHead
from .retina import RetinaHead
from .yolo import YOLOHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARED: dict[str, Callable[[int, int, int, tuple[int, ...]], Head]] = {
    "dense": DenseHead,
    "retina": RetinaHead,
    "retina-giou": partial(RetinaHead, box_loss="giou"),
}
"""Heads whose convolutions are shared by all levels, so that these have equal channels."""

HEADS = (*SHARED, "yolo")


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
    return SHARED[name](num_classes, channels[0], depth, strides)


__all__ = ["HEADS", "DenseHead", "Head", "HeadOutputs", "RetinaHead", "TowerHead", "YOLOHead", "build_head"]
