"""The optimiser step of reverse distillation, and the state of a run on the disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ...errors import RecipeError
from ..checkpoint import CheckpointFolder, keep_recipe, optimizer_tensors, parameter_names, restore_optimizer
from ..data.loader import normalise
from ..distributed import world_size
from ..loop import LOG_EVERY, Loop
from ..optim import clip_gradients
from ..resume import RunIdentity
from ..seeding import derived_seed, seed_everything
from .build import build_network
from .calibrate import batchnorms, fit_batchnorm, mean_shares
from .images import NormalBatches
from .optim import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from ..._anomaly_recipe import AnomalyRecipe
    from ..checkpoint import Checkpoint
    from ..data.sample import Dataset
    from .pyramid import Pyramid

FROZEN = "teachers."
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
LOOKED_AT = 64  # images that tell how constant a teacher's features are


class AnomalyTrainer:
    """One run. Everything random is a function of seed and step: resumed on a CPU, it ends with the same bits.

    Args:
        recipe: what to do.
        folder: receives `recipe.json`, `metrics.jsonl` and `checkpoints/`.
        train: normal images.
        device: where to train.
        resume: go on from the newest checkpoint in `folder`; False: start anew and remove what is there.
        tensorboard: write TensorBoard events to `folder/tensorboard` too.

    Attributes:
        network: after `run`, as the last step left it.
        step: finished optimiser steps.

    Raises:
        RecipeError: an impossible recipe, or `folder` holds a run of another one.
    """

    def __init__(
        self,
        recipe: AnomalyRecipe,
        folder: Path,
        train: Dataset,
        *,
        device: torch.device,
        resume: bool = True,
        tensorboard: bool = False,
    ) -> None:
        if world_size() > 1:
            raise RecipeError(f"anomaly detection trains in one process, not in {world_size()}: leave out torchrun")
        self.recipe, self.folder, self.device, self.tensorboard = recipe, folder, device, tensorboard
        config = recipe.train
        if config.threads:
            torch.set_num_threads(config.threads)
        seed_everything(config.seed)
        self.batches = NormalBatches(train.samples, recipe.input, config.batch, config.seed)
        self.network = build_network(recipe).to(device)
        known = {f"teacher {place}": teacher for place, teacher in enumerate(self.network.pyramids)}
        self.identity = RunIdentity(recipe, {"train": train}, known)  # of the teachers as their files have them
        self.identity.values["teachers.calibrate"] = self._fits()
        if recipe.model.method == "rd":  # it does not depend on the keys of others, and may have begun before them
            self.identity.values["model"].pop("method")
            self.identity.values.pop("train.projector_lr")
            self.identity.values.pop("train.sgd_lr")
        self.names = parameter_names(network=self.network)
        self.optimizer = build_optimizer(self.network, config)
        self.checkpoints = CheckpointFolder(folder / "checkpoints")
        self.step = 0
        self._start(resume)

    def run(self) -> None:
        """Train to the last step.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
            RecipeError: the loss is no longer finite.
        """
        config = self.recipe.train
        key = "sgd_lr" if self.recipe.model.method == "stfpm" else "lr"
        rate = float(getattr(config, key))
        Loop(
            budget=config,
            folder=self.folder,
            batches=self.batches,
            advance=self._advance,
            rate=lambda: rate,
            save=self._save,
            remedy=f"lower train.{key} ({rate}), or set train.clip_norm = 1.0 (now {config.clip_norm})",
            log_every=LOG_EVERY,
            tensorboard=self.tensorboard,
        ).run(self.step)

    def _advance(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Do one step; return the loss, and what the network tells of it.

        The optimiser moves at the last of every `accumulate` steps, along the mean gradient of these.
        """
        config, model = self.recipe.train, self.recipe.model
        torch.manual_seed(derived_seed(config.seed, "step", self.step))
        if self.step >= math.ceil(model.freeze * config.steps):
            self.network.freeze_fusion()
        self.network.train()
        pixels = normalise(images.to(self.device), self.recipe.input)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.amp):
            total, values = self.network.loss(pixels, model.loss)
        together = self.network.accumulate
        if self.step % together == 0:
            self.optimizer.zero_grad(set_to_none=True)
        (total / together).backward()  # type: ignore[no-untyped-call]
        self.step += 1
        if self.step % together == 0 or self.step == config.steps:
            values["grad_norm"] = clip_gradients(self.network, config.clip_norm)
            self.optimizer.step()
        return total.detach(), values

    def _start(self, resume: bool) -> None:
        """Restore the newest checkpoint, or prepare folder and scales for a new run."""
        found = self.checkpoints.latest() if resume else None
        if found is not None:
            self.identity.check(found.meta["identity"], self.folder)
            self._restore(found)
        else:
            self.checkpoints.clear()
            for teacher in self._fitted():
                fit_batchnorm(teacher, self._images())
            self.network.equalise(self._images())
        for teacher in self._fitted():
            teacher.calibrated = len(self.batches.samples)
        for teacher in self.network.pyramids:
            teacher.mean_shares = mean_shares(teacher, self._images(LOOKED_AT))
        keep_recipe(self.folder, self.recipe.to_dict())

    def _images(self, most: int | None = None) -> Iterator[Tensor]:
        """Yield training images, normalised, in batches; `most` of them, or all."""
        for each in self.batches.all(most):
            yield normalise(each.to(self.device), self.recipe.input)

    def _fits(self) -> list[bool]:
        """Return of each teacher whether its BatchNorm is fitted to the training images."""
        return [
            bool(batchnorms(teacher))
            and (each.calibrate == "always" or (each.calibrate == "auto" and each.weights == "none"))
            for each, teacher in zip(self.recipe.teachers, self.network.pyramids, strict=True)
        ]

    def _fitted(self) -> list[Pyramid]:
        return [each for each, fits in zip(self.network.pyramids, self._fits(), strict=True) if fits]

    def _save(self) -> None:
        fitted = {id(layer) for teacher in self._fitted() for layer in batchnorms(teacher).values()}
        names = {name for name, layer in self.network.named_modules() if id(layer) in fitted}
        state = {
            name: value
            for name, value in self.network.state_dict().items()
            if not name.startswith(FROZEN) or (name.rpartition(".")[0] in names and name.endswith(STATISTICS))
        }
        parts: dict[str, dict[str, Tensor]] = {
            "network": state,
            "optimizer": optimizer_tensors(self.optimizer, self.names),
        }
        if self.step % self.network.accumulate:
            parts["waiting"] = {name: each.grad for each, name in self.names.items() if each.grad is not None}
        tensors = {f"{part}.{name}": tensor for part, held in parts.items() for name, tensor in held.items()}
        meta: dict[str, Any] = {"identity": self.identity.to_dict()}
        self.checkpoints.write(self.step, tensors, meta)

    def _restore(self, found: Checkpoint) -> None:
        """Put back all but the teachers' files, whose fingerprints the identity has compared."""
        state = self.network.state_dict()
        self.network.load_state_dict({**state, **found.part("network")})
        restore_optimizer(self.optimizer, self.names, found.part("optimizer"))
        waiting = found.part("waiting")  # gradients of steps that the optimiser has not done yet
        for parameter, name in self.names.items():
            if name in waiting:
                parameter.grad = torch.empty_like(parameter).copy_(waiting[name])
        self.step = found.step
