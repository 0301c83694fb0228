"""Backbones: images in, one feature map per stride out. Torchvision families keep torchvision's state-dict names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ....errors import RecipeError
from .backbone import Backbone
from .csp_tiny import CSPTiny
from .cspdarknet import CSPDarkNet53
from .mobilenetv2 import MobileNetV2
from .mobilenetv3 import MobileNetV3
from .resnet import ResNet
from .squeezenet import SqueezeNet

if TYPE_CHECKING:
    from collections.abc import Callable

BACKBONES: dict[str, Callable[[float], Backbone]] = {
    "csp-tiny": CSPTiny,
    "cspdarknet53": CSPDarkNet53,
    "mobilenetv2": MobileNetV2,
    "mobilenetv2-tf": partial(MobileNetV2, folded=True),
    "mobilenetv3-large": partial(MobileNetV3, "large"),
    "mobilenetv3-small": partial(MobileNetV3, "small"),
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "squeezenet1.1": SqueezeNet,
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
