"""`build_network`: an anomaly network from a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..._anomaly_recipe import TEXTURES, AnomalyModelConfig, AnomalyTrainConfig
from ...errors import RecipeError
from ..export import STORAGES
from ..models import load_weights
from ..models.backbones import build_backbone
from .calibrate import CALIBRATE, batchnorms
from .cosine import LOSSES
from .embedding import Embedding
from .fusion import FUSIONS, AddFusion, AttentionalFusion
from .matching import UNFOLDED, EncoderStudent, MatchingNetwork
from .network import METHODS, TARGETS, AnomalyNetwork
from .projected import ProjectedNetwork
from .projector import Projector
from .pyramid import TAPS, Pyramid
from .shipped import load_textures
from .students import STUDENTS, MirrorStudent, PlainStudent

if TYPE_CHECKING:
    from torch import nn

    from ..._anomaly_recipe import AnomalyRecipe, AnomalyTeacherConfig
    from ..._recipe import InputConfig


def build_network(recipe: AnomalyRecipe) -> AnomalyNetwork:
    """Build a network on the CPU, in training mode; random parts depend on the recipe's seed alone.

    Raises:
        RecipeError: an impossible combination.
        WeightsError: a teacher's weights are missing, damaged or do not fit.
    """
    _check(recipe)
    model = recipe.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        teachers = [_teacher(each, recipe.input) for each in recipe.teachers]
        if model.method == "stfpm":
            (first,) = recipe.teachers
            backbone = build_backbone(UNFOLDED.get(first.backbone, first.backbone), first.width)
            return MatchingNetwork(teachers[0], EncoderStudent(first.backbone, backbone)).train()
        channels = teachers[0].channels
        fusion: AddFusion | AttentionalFusion | None = None
        if len(teachers) == 2:
            fusion = AttentionalFusion(channels, model.reduction) if model.fusion == "iaff" else AddFusion()
        deep = teachers[0].name in ("resnet50", "resnet101")
        embedding = Embedding(channels, bottleneck=deep, outputs=model.embedding)
        student: nn.Module
        if model.student == "mirror":
            student = MirrorStudent(teachers[0], embedding.outputs)
        else:
            targets = [each.channels for each in teachers] if model.target == "both_raw" else [channels]
            student = PlainStudent(embedding.outputs, targets, model.widths)
        if model.method == "rd++":
            return ProjectedNetwork(teachers[0], Projector(channels), embedding, student, recipe.input.std).train()
        return AnomalyNetwork(teachers, fusion, embedding, student, model.target).train()


def _teacher(config: AnomalyTeacherConfig, ours: InputConfig) -> Pyramid:
    if config.backbone not in TAPS:
        raise RecipeError(f"a {config.backbone!r} backbone is no anomaly teacher; possible: {', '.join(sorted(TAPS))}")
    backbone = build_backbone(config.backbone, config.width)
    pretrained = None
    if config.weights == TEXTURES:
        pretrained = load_textures(backbone, config)
    elif config.weights != "none":
        report = load_weights(backbone, config.weights, sha256=config.sha256, stages=config.stages)
        pretrained = {"file": report.path.name, "sha256": report.sha256}
    teacher = Pyramid(config.backbone, backbone, ours, config.input)
    teacher.pretrained = pretrained
    if config.calibrate == "always" and not batchnorms(teacher):
        raise RecipeError(
            f"teachers.calibrate = 'always', but {config.backbone!r} has no BatchNorm to fit; use 'auto' or 'never'"
        )
    return teacher


def _check(recipe: AnomalyRecipe) -> None:
    model = recipe.model
    choices = (
        ("method", model.method, METHODS),
        ("target", model.target, TARGETS),
        ("student", model.student, STUDENTS),
        ("fusion", model.fusion, FUSIONS),
        ("loss", model.loss, LOSSES),
        ("storage", model.storage, STORAGES),
    )
    for name, value, possible in choices:
        if value not in possible:
            raise RecipeError(f"model.{name} = {value!r}; possible: {', '.join(possible)}")
    for each in recipe.teachers:
        if each.calibrate not in CALIBRATE:
            raise RecipeError(f"teachers.calibrate = {each.calibrate!r}; possible: {', '.join(CALIBRATE)}")
    if model.method != "rd" and model.target != "single":
        raise RecipeError(
            f"model.method = {model.method!r} has one teacher: use target = 'single' (now {model.target!r}) and one "
            "[[teachers]], or method = 'rd'"
        )
    if model.method == "stfpm":
        _check_matching(recipe)
    wanted = 1 if model.target == "single" else 2
    if len(recipe.teachers) != wanted:
        raise RecipeError(
            f"model.target = {model.target!r} takes {wanted} [[teachers]], the recipe has {len(recipe.teachers)}; "
            "'single' is for one, 'fused_sg' and 'both_raw' are for two"
        )
    if model.target == "both_raw" and model.student == "mirror":
        raise RecipeError("model.target = 'both_raw' predicts two pyramids, a mirror only one: use student = 'plain'")
    _check_numbers(recipe)


def _check_matching(recipe: AnomalyRecipe) -> None:
    """Refuse what means nothing without a bottleneck, rather than leave it unread."""
    usual, model = AnomalyModelConfig(), recipe.model
    for name in ("student", "widths", "embedding"):
        if getattr(model, name) != getattr(usual, name):
            raise RecipeError(
                f"model.{name} = {getattr(model, name)!r}: with model.method = 'stfpm' the student is a second "
                f"backbone like the teacher's, without a bottleneck; leave model.{name} out"
            )
    if recipe.train.lr != AnomalyTrainConfig().lr:
        raise RecipeError(
            f"train.lr = {recipe.train.lr}: model.method = 'stfpm' learns by SGD at train.sgd_lr "
            f"({recipe.train.sgd_lr}); set that one, and leave train.lr out"
        )


def _check_numbers(recipe: AnomalyRecipe) -> None:
    coarsest = AnomalyNetwork.strides[-1]
    for name, size in (("height", recipe.input.height), ("width", recipe.input.width)):
        if size < coarsest or size % coarsest:
            near = max(coarsest, round(size / coarsest) * coarsest)
            raise RecipeError(f"input.{name} = {size} should be a multiple of {coarsest}, for example {near}")
    if recipe.model.embedding % 4:
        raise RecipeError(
            f"model.embedding should be 0 (as published) or a multiple of 4, got {recipe.model.embedding}"
        )
