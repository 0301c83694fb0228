"""Recipes of anomaly detection by name, for a folder of images and whatever weights of teachers there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ._anomaly_recipe import (
    ALPHA,
    AnomalyDataConfig,
    AnomalyModelConfig,
    AnomalyPredictConfig,
    AnomalyRecipe,
    AnomalyTeacherConfig,
    AnomalyTrainConfig,
)
from ._recipe import InputConfig
from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

MODELS = {
    "edge": AnomalyModelConfig(widths=(32, 48, 80), embedding=80, reduction=16, storage="fp16"),
    "quality": AnomalyModelConfig(),
}
STEPS = {"edge": 1500, "quality": 3000}
PAIR = ("resnet18", "mobilenetv2")
"""The teachers of both presets; with weights, those that are named."""

INPUTS = {
    "mobilenetv2-tf": InputConfig(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    "squeezenet1.1": InputConfig(color="bgr", mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0)),
}
"""What the published weights of a backbone know, where that is not torchvision's normalisation."""

STAGES = dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), "layer3")
"""The deepest stage that is looked at: files that end there will do."""


def preset(
    name: str, data: str | Path, *, alpha: float = ALPHA, teacher_weights: Mapping[str, str | Path] | None = None
) -> AnomalyRecipe:
    """Return the recipe of a preset.

    "edge": a bundle of at most 12 MB, for boards. "quality": bottleneck and student as large as RD4AD's for a
    ResNet-18. Two teachers are both predicted (`both_raw`, fused by iAFF for the bottleneck), one alone is RD4AD.

    Args:
        name: "edge" or "quality".
        data: folder of one category, `train/good` in it.
        alpha: expected share of false alarms among normal images, at most.
        teacher_weights: backbone -> file of its published weights, one or two, the first sets the student's channels;
            None: a random ResNet-18 and MobileNetV2, with BatchNorm fitted to the training images.

    Raises:
        UsageError: there is no such preset, or more than two teachers.
    """
    if name not in MODELS:
        raise UsageError(f"no preset {name!r}; possible: {', '.join(MODELS)}")
    weights = dict(teacher_weights or {})
    if len(weights) > 2:
        raise UsageError(f"one or two teachers are possible, got weights of {len(weights)}: {', '.join(weights)}")
    teachers = tuple(_teacher(each, path) for each, path in weights.items()) or tuple(
        AnomalyTeacherConfig(backbone=each) for each in PAIR
    )
    path = Path(data).resolve()
    return AnomalyRecipe(
        name=path.name,
        data=AnomalyDataConfig(path=str(path)),
        teachers=teachers,
        model=dataclasses.replace(MODELS[name], target="single" if len(teachers) == 1 else "both_raw"),
        train=AnomalyTrainConfig(steps=STEPS[name]),
        predict=AnomalyPredictConfig(alpha=alpha),
    )


def _teacher(backbone: str, weights: str | Path) -> AnomalyTeacherConfig:
    return AnomalyTeacherConfig(
        backbone=backbone,
        weights=str(Path(weights).resolve()),
        stages=STAGES.get(backbone, "all"),
        input=INPUTS.get(backbone),
    )
