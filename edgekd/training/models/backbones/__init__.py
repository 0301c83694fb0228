"""Backbones: images in, one feature map per stride out. Torchvision families keep torchvision's state-dict names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ....errors import RecipeError
from .backbone import Backbone
from .csp_tiny import CSPTiny
from .resnet import ResNet

BACKBONES: dict[str, Callable[[float], Backbone]] = {
    "csp-tiny": CSPTiny,
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
}


def build_backbone(name: str, width: float = 1.0) -> Backbone:
    """Build a randomly initialised backbone.

    Args:
        name: a key of `BACKBONES`.
        width: multiplier of all channel numbers; 1.0 is the published network.

    Raises:
        RecipeError: there is no such backbone, or the width is not in (0, 4].
    """
    if name not in BACKBONES:
        raise RecipeError(f"no backbone {name!r}; possible: {', '.join(sorted(BACKBONES))}")
    if not 0 < width <= 4:
        raise RecipeError(f"width should be above 0 and at most 4, got {width}")
    return BACKBONES[name](width)


__all__ = ["BACKBONES", "Backbone", "build_backbone"]
