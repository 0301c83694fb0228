"""Heads: pyramid maps in; training losses and decoded boxes and scores out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ....errors import RecipeError
from .dense import DenseHead
from .head import Head, HeadOutputs
from .retina import RetinaHead

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS: dict[str, Callable[[int, int, int, tuple[int, ...]], Head]] = {
    "dense": DenseHead,
    "retina": RetinaHead,
    "retina-giou": partial(RetinaHead, box_loss="giou"),
}


def build_head(name: str, num_classes: int, channels: int, depth: int, strides: tuple[int, ...]) -> Head:
    """Build a head.

    Args:
        name: a key of `HEADS`.
        num_classes: number of classes C.
        channels: channels of the neck's outputs and of the head's towers.
        depth: stacked 3x3 convolutions per branch.
        strides: pixels per cell of each level.

    Raises:
        RecipeError: there is no such head.
    """
    if name not in HEADS:
        raise RecipeError(f"no head {name!r}; possible: {', '.join(sorted(HEADS))}")
    return HEADS[name](num_classes, channels, depth, strides)


__all__ = ["HEADS", "DenseHead", "Head", "HeadOutputs", "RetinaHead", "build_head"]
