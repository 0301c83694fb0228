"""The steps of a lesson in textures, resumable, and the file that comes of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint import CheckpointFolder, optimizer_tensors, parameter_names, restore_optimizer, write_tensors
from ..data.loader import normalise
from ..loop import LOG_EVERY, Loop
from ..optim import build_optimizer, clip_gradients, learning_rate, set_learning_rate
from ..seeding import derived_seed
from .textures import INPUT, MosaicBatches

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from ..._recipe import TrainConfig
    from ..models.backbones import Backbone
    from .textures import BATCH, Lesson, TextureRecipe


class LessonTrainer:
    """One lesson on the CPU, resumed from its newest checkpoint with the same bits.

    Args:
        lesson: what is learnt.
        recipe: of the mosaics.
        config: the lesson's budget.
        folder: receives `metrics.jsonl` and `checkpoints/`.
        first: number of the first mosaics.
    """

    def __init__(
        self, lesson: Lesson, recipe: TextureRecipe, config: TrainConfig, folder: Path, first: int = 0
    ) -> None:
        self.lesson = lesson.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe, self.config, self.folder, self.first = recipe, config, folder, first
        if config.threads:
            torch.set_num_threads(config.threads)
        self.optimizer = build_optimizer([lesson], config)
        self._names = parameter_names(lesson=lesson)
        self._checkpoints = CheckpointFolder(folder / "checkpoints")
        self._identity = {"recipe": dataclasses.asdict(recipe), "first": first}
        self.step = 0
        found = self._checkpoints.latest()
        if found is not None and found.meta["identity"] == self._identity:
            lesson.load_state_dict(found.part("lesson"))
            restore_optimizer(self.optimizer, self._names, found.part("optimizer"))
            self.step = found.step

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
        """
        if self.step >= self.config.steps:
            return
        Loop(
            budget=self.config,
            folder=self.folder,
            batches=MosaicBatches(self.recipe, self.config.batch, self.first),
            advance=self._advance,
            rate=lambda: learning_rate(max(0, self.step - 1), self.config),
            save=self._save,
            remedy=f"lower the rate ({self.config.lr})",
            log_every=LOG_EVERY,
        ).run(self.step)

    def _advance(self, batch: BATCH) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(derived_seed(self.config.seed, "step", self.step))
        set_learning_rate(self.optimizer, learning_rate(self.step, self.config))
        pixels = normalise(batch[0], INPUT).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.amp):
            total, parts = self.lesson.loss(pixels, *batch[1:])
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        clip_gradients(self.lesson, self.config.clip_norm)
        self.optimizer.step()
        self.step += 1
        return total.detach(), parts

    def _save(self) -> None:
        tensors = {f"lesson.{name}": value for name, value in self.lesson.state_dict().items()}
        state = optimizer_tensors(self.optimizer, self._names)
        tensors |= {f"optimizer.{name}": value for name, value in state.items()}
        self._checkpoints.write(self.step, tensors, {"identity": self._identity})


def write_teacher(backbone: Backbone, path: Path, source: dict[str, Any]) -> None:
    """Write a backbone up to layer3 in half precision, with where it comes from in the file."""
    tensors = {
        name: value.half() if value.is_floating_point() else value
        for name, value in backbone.state_dict().items()
        if not name.startswith(("layer4.", "fc."))
    }
    write_tensors(path, tensors, source)
