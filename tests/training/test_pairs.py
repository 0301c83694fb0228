"""The two published pairs, narrow: both train and distil through the same harness."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
import torch

from edgekd._recipe import DistillConfig, ModelConfig, Recipe
from edgekd.training import trainer as trainer_module
from edgekd.training.models import build_model
from edgekd.training.run import read_splits
from edgekd.training.teacher import Teacher
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RETINA = ModelConfig(
    backbone="resnet50", width=0.125, neck="fpn", channels=8, head="retina", head_depth=4, levels=(3, 4, 5, 6, 7)
)
YOLO = ModelConfig(
    backbone="mobilenetv3-large", width=0.25, neck="yolov4", channels=8, head="yolo", head_depth=1, levels=(3, 4, 5)
)
PAIRS = {
    "RetinaNet R101 -> R50": (dataclasses.replace(RETINA, backbone="resnet101", channels=16), RETINA),
    "YOLOv4 CSPDarkNet53 -> MobileNetV3": (
        dataclasses.replace(YOLO, backbone="cspdarknet53", width=0.125, channels=16),
        YOLO,
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_pair_trains_and_distils_through_the_same_harness(
    pair: str, small: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
    config, student = PAIRS[pair]
    recipe = small(steps=2, student=student, distill=(DistillConfig(method="pkd"),))
    splits = read_splits(recipe)
    levels = len(student.levels)

    def train(of: Recipe, folder: Path, teacher: Teacher | None) -> tuple[Trainer, list[dict[str, float]]]:
        trainer = Trainer(of, folder, splits["train"], splits["val"], teacher=teacher, device=torch.device("cpu"))
        trainer.run()
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return trainer, [row for row in rows if "loss" in row]

    alone, rows = train(recipe.replace(student=config, distill=()), tmp_path / "teacher", None)
    assert [row["step"] for row in rows] == [1, 2]
    network = build_model(config, 2, recipe.input, seed=0)
    network.load_state_dict(alone.average.model.state_dict())
    taught, rows = train(recipe, tmp_path / "student", Teacher(network, recipe.input, {}))
    for row in rows:
        shown = [value for name, value in row.items() if name.startswith("pkd.p")]
        assert len(shown) == levels
        assert sum(value > 0 for value in shown) >= 3  # maps of a cell or two have no correlation
        assert row["loss"] == pytest.approx(sum(v for name, v in row.items() if name.startswith(("pkd", "loss_"))))
    counts = taught.student.channels
    assert counts == (8,) * 5 if levels == 5 else (8, 16, 32)
