"""Recipes of anomaly detection by name, for a folder of images and whatever weights of teachers there are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ._anomaly_recipe import (
    ALPHA,
    TEXTURES,
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
METHODS = ("rd", "rd++", "stfpm")
STEPS = {"edge": 1500, "quality": 3000}
TEXTURE_TEACHER = AnomalyTeacherConfig(backbone="resnet18", width=0.5, weights=TEXTURES)
"""The teacher where no weights are named."""

INPUTS = {
    "mobilenetv2-tf": InputConfig(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    "squeezenet1.1": InputConfig(color="bgr", mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0)),
}
"""What the published weights of a backbone know, where that is not torchvision's normalisation."""

STAGES = dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), "layer3")
"""The deepest stage that is looked at: files that end there will do."""


def preset(
    name: str,
    data: str | Path,
    *,
    method: str = "rd",
    alpha: float = ALPHA,
    teacher_weights: Mapping[str, str | Path] | None = None,
) -> AnomalyRecipe:
    """Return the recipe of a preset.

    "edge": a bundle of at most 12 MB, for boards. "quality": bottleneck and student as large as RD4AD's for a
    ResNet-18. Of two teachers the fused features are predicted (`fused_sg`, iAFF), one alone is RD4AD.
    RD++ and STFPM have one; STFPM has no bottleneck, so that both presets are one network of it, stored differently.

    Args:
        name: "edge" or "quality".
        data: folder of one category, `train/good` in it.
        method: "rd", "rd++" or "stfpm".
        alpha: expected share of false alarms among normal images, at most.
        teacher_weights: backbone -> file of its published weights, one or two, the first sets the student's channels;
            None: the one that edgekd brings along, which has learnt from drawn textures.

    Raises:
        UsageError: there is no such preset or method, or more teachers than it has.
    """
    for what, value, possible in (("preset", name, tuple(MODELS)), ("method", method, METHODS)):
        if value not in possible:
            raise UsageError(f"no {what} {value!r}; possible: {', '.join(possible)}")
    weights, most = dict(teacher_weights or {}), 2 if method == "rd" else 1
    if len(weights) > most:
        counted = "one or two teachers are" if most == 2 else f"with method {method!r} one teacher is"
        raise UsageError(f"{counted} possible, got weights of {len(weights)}: {', '.join(weights)}")
    teachers = tuple(_teacher(each, path) for each, path in weights.items()) or (TEXTURE_TEACHER,)
    model = MODELS[name]
    if method == "stfpm":
        model = AnomalyModelConfig(storage=model.storage)
    elif (method, name) == ("rd++", "edge"):
        model = dataclasses.replace(model, embedding=64)  # projectors are two of the twelve megabytes
    path = Path(data).resolve()
    return AnomalyRecipe(
        name=path.name,
        data=AnomalyDataConfig(path=str(path)),
        teachers=teachers,
        model=dataclasses.replace(model, method=method, target="single" if len(teachers) == 1 else "fused_sg"),
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
