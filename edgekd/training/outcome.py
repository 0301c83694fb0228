"""What a run leaves in its folder, and whether it is there already."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._bundle import Bundle
from .._comparison import Comparison
from .._recipe import Recipe
from ..errors import BundleError, RecipeError
from .metrics.coco import FIGURES
from .teacher import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .._manifest import Manifest
    from .trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """What a run left: its bundle, the network's weights, and split -> metrics of these.

    `comparisons` hold the same figures of other runs beside this one's, if the bundle tells of any. `page` is a report
    on the test images, `notes` say what to know before the figures are believed.
    """

    bundle: Path
    weights: Path
    metrics: dict[str, dict[str, Any]]
    comparisons: tuple[Comparison, ...] = ()
    page: Path | None = None
    notes: tuple[str, ...] = ()


def recorded(manifest: Manifest, figures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return split -> figure -> what the run measured, NaN where it had none; rows of a target came later."""
    found: dict[str, dict[str, Any]] = {}
    for row in manifest.receipts:
        if row["what"] in figures and "split" in row and "target" not in row:
            blank: dict[str, Any] = dict.fromkeys(figures, math.nan)
            found.setdefault(str(row["split"]), blank)[row["what"]] = float(row["value"])
    return found


def left_by(trainer: Trainer, folder: Path, recipe: Recipe | None = None) -> Outcome | None:
    """Return what the trainer's run left in `folder`: None unless it is finished and its bundle holds it as it is.

    Args:
        trainer: stands where the run does.
        folder: of the run.
        recipe: that the bundle tells of; None: the trainer's.
    """
    path, weights = folder / "model.bin", folder / "student.safetensors"
    if trainer.step < trainer.config.steps or not weights.is_file():
        return None
    try:
        with Bundle.read(path) as bundle:
            manifest = bundle.manifest
        state = (manifest.provenance.get("student") or {}).get("state_sha256")
        told = Recipe.from_dict(manifest.recipe or {}).replace(qat=None)  # says nothing of these weights
        if state != fingerprint(trainer.average.model) or told != (recipe or trainer.recipe).replace(qat=None):
            return None
    except (BundleError, RecipeError, AttributeError):  # none, of another kind, or from elsewhere
        return None
    metrics = {split: {**found, "per_class": {}} for split, found in recorded(manifest, FIGURES).items()}
    compared = (Comparison.from_dict(row) for row in manifest.receipts if "comparison" in row)
    return Outcome(path, weights, metrics, tuple(compared))
