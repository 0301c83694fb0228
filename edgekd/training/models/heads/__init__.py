"""Heads: pyramid maps in; training losses and decoded boxes and scores out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ....errors import RecipeError
from .dense import DenseHead
from .head import Head, HeadOutputs

HEADS: dict[str, Callable[[int, int, int, tuple[int, ...]], Head]] = {
    "dense": DenseHead,
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


__all__ = ["HEADS", "DenseHead", "Head", "HeadOutputs", "build_head"]
