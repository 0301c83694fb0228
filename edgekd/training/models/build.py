"""`build_model`: any backbone x neck x head x width from one recipe section."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ...errors import RecipeError
from .backbones import Backbone, build_backbone
from .detector import Detector
from .heads import build_head
from .necks import build_neck
from .weights import load_model_weights

if TYPE_CHECKING:
    from ..._recipe import InputConfig, ModelConfig


def build_model(config: ModelConfig, num_classes: int, size: InputConfig, seed: int | None = None) -> Detector:
    """Build a detector and load the weights its section names.

    Args:
        config: the recipe's [student] or [teacher].
        num_classes: number of classes C, at least 1.
        size: network input; height and width are multiples of the coarsest backbone stride in use.
        seed: of the random initialisation; None: torch's global generator. The generator is left as it was when given.

    Returns:
        The detector in training mode on the CPU.

    Raises:
        RecipeError: an impossible combination.
        WeightsError: the weights file is missing, damaged or does not fit.
    """
    if num_classes < 1:
        raise RecipeError(f"a detector needs at least one class, got {num_classes}")
    if seed is None:
        model = _build(config, num_classes, size)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _build(config, num_classes, size)
    if config.weights != "none":
        model.weights = load_model_weights(model, config.weights, sha256=config.sha256, stages=config.stages)
    return model


def _build(config: ModelConfig, num_classes: int, size: InputConfig) -> Detector:
    backbone = build_backbone(config.backbone, config.width)
    _check(config, backbone, size)
    strides = tuple(2**level for level in config.levels)
    inputs = [count for stride, count in zip(backbone.strides, backbone.channels, strict=True) if stride in strides]
    neck = build_neck(config.neck, inputs, config.channels, len(strides))
    side = math.sqrt(size.height * size.width)
    head = build_head(config.head, num_classes, neck.channels, config.head_depth, strides, side)
    return Detector(backbone, neck, head, config, size)


def _check(config: ModelConfig, backbone: Backbone, size: InputConfig) -> None:
    """Refuse impossible numbers before any layer is built from them."""
    levels = config.levels
    possible = [stride.bit_length() - 1 for stride in backbone.strides]
    consecutive = bool(levels) and list(levels) == list(range(levels[0], levels[-1] + 1))
    if not consecutive or levels[0] not in possible or levels[-1] > 7:
        raise RecipeError(
            f"levels should be consecutive, start at one of {possible} ({config.backbone}) and end at 7 or before,"
            f" for example [3, 4, 5]; got {list(levels)}"
        )
    if config.channels < 8 or config.channels % 2:
        raise RecipeError(f"channels should be an even number from 8, got {config.channels}")
    if config.head_depth < 0:
        raise RecipeError(f"head_depth should be 0 or more, got {config.head_depth}")
    coarsest = max(stride for stride in backbone.strides if stride <= 2 ** levels[-1])
    for name, value in (("height", size.height), ("width", size.width)):
        if value < coarsest or value % coarsest:
            near = max(coarsest, round(value / coarsest) * coarsest)
            raise RecipeError(f"input.{name} = {value} should be a multiple of {coarsest}, for example {near}")
