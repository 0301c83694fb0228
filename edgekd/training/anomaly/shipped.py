"""The weights that edgekd brings along, `weights = "textures"`: what came of the lessons in `textures`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._anomaly_presets import TEXTURE_TEACHER
from ...errors import RecipeError
from ..checkpoint import read_meta
from ..models import load_weights

if TYPE_CHECKING:
    from ..._anomaly_recipe import AnomalyTeacherConfig
    from ..models.backbones import Backbone

FILE = Path(__file__).with_name("textures.safetensors")
SHA256 = "119f4c6fd5808d6351007a8b767069ba99824a5550cb30203a4e1d098a19c4f6"


def load_textures(backbone: Backbone, config: AnomalyTeacherConfig) -> dict[str, Any]:
    """Load them, and return where they come from: file, SHA-256, how they were trained and what they imitate.

    Raises:
        RecipeError: the recipe asks for another network than they are for.
        WeightsError: the file is damaged.
    """
    wanted = TEXTURE_TEACHER
    if (config.backbone, config.width, config.input) != (wanted.backbone, wanted.width, None):
        raise RecipeError(
            f"weights = 'textures' are for backbone = {wanted.backbone!r}, width = {wanted.width:g} and the network's "
            f"own input; got {config.backbone!r}, {config.width:g}{'' if config.input is None else ' and an input'}"
        )
    report = load_weights(backbone, FILE, sha256=config.sha256 or SHA256, stages="layer3")
    return {"file": report.path.name, "sha256": report.sha256, "trained": read_meta(FILE)}
