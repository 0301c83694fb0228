"""The training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..errors import RecipeError
from .checkpoint import Checkpoint, CheckpointFolder, keep_recipe, optimizer_tensors, parameter_names, restore_optimizer
from .data.loader import Batch, MixedBatches, TrainBatches, normalise
from .distill import Distiller
from .distributed import join_batch_norm, rank, world_size
from .ema import WeightAverage
from .evaluate import evaluate
from .loop import LOG_EVERY, Loop
from .methods import Scene, Taps
from .models import build_model
from .models.heads import check_boxes
from .objective import Objective
from .observe import OBSERVE_EVERY
from .optim import build_optimizer, clip_gradients, learning_rate, set_learning_rate
from .resume import RunIdentity
from .seeding import derived_seed, seed_everything
from .teacher import channels_of
from .teacher_cache import CachedTeacher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .._recipe import Recipe
    from .data.sample import Dataset
    from .models import Detector
    from .models.detector import MadeDetector
    from .progress import MetricsLog, ProgressLine
    from .teacher import Guide


class Trainer:
    """One run: student, optional teacher, optimiser, average and their state on the disk.

    Everything random is a function of the recipe's seed and the step, so a run that was killed and resumed ends, on a
    CPU with the same number of threads, with the same bits as one that was not. Under `torchrun` each rank takes its
    slice of every batch; BatchNorm sees the joined batch.

    Args:
        recipe: what to do.
        folder: receives `recipe.json`, `metrics.jsonl` and `checkpoints/`.
        train: training set.
        val: validation set, for `train.eval_every`.
        teacher: frozen network, or several by name; needed if the recipe has [[distill]].
        unlabelled: images without annotations, or with a teacher's, if the recipe has [unlabelled].
        prepare: called with the student before the optimiser is made: a hook for parametrizations of your own.
        student: trained instead of the recipe's; it says how it was made in `made_of`, which decides whether a run in
            `folder` is this one.
        device: where to train.
        resume: go on from the newest checkpoint in `folder`; False: start anew and remove what is there.
        tensorboard: write TensorBoard events to `folder/tensorboard` too.

    Raises:
        RecipeError: an impossible recipe, or `folder` holds a run of another one.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        train: Dataset,
        val: Dataset,
        *,
        teacher: Guide | Mapping[str, Guide] | None = None,
        unlabelled: Dataset | None = None,
        prepare: Callable[[Detector], None] | None = None,
        student: MadeDetector | None = None,
        device: torch.device,
        resume: bool = True,
        tensorboard: bool = False,
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        self.config = recipe.train
        self.train_set, self.val_set = train, val
        self.tensorboard = tensorboard
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        seed_everything(self.config.seed)
        self._check()
        self.unlabelled = unlabelled
        given = teacher if isinstance(teacher, Mapping) else {} if teacher is None else {"teacher": teacher}
        self.teachers: dict[str, Guide] = {name: each.to(device) for name, each in given.items()}
        self._build(prepare, student)
        data = {"train": train, "val": val, **({} if unlabelled is None else {"unlabelled": unlabelled})}
        made_of = {} if student is None else student.made_of
        self.identity = RunIdentity(recipe, data, self.teachers, prepare, made_of)
        self.checkpoints = CheckpointFolder(folder / "checkpoints")
        self.step = 0  # finished optimiser steps
        self._start(resume)

    def run(self) -> None:
        """Train to the last step; `average.model` holds the result.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
            RecipeError: the loss is no longer finite.
        """
        config = self.config
        loop = Loop(
            budget=config,
            folder=self.folder,
            batches=self._batches(),
            advance=self._advance,
            rate=lambda: float(self.optimizer.param_groups[0]["lr"]),
            save=self._save,
            validate=self._validate,
            remedy=f"lower train.lr ({config.lr}) or train.clip_norm ({config.clip_norm}), or lengthen train.warmup",
            log_every=LOG_EVERY,
            remedies={} if self.distiller is None else self.distiller.remedies,
            tensorboard=self.tensorboard,
        )
        loop.run(self.step)

    def _check(self) -> None:
        config = self.config
        if config.batch % world_size():
            raise RecipeError(f"train.batch = {config.batch} does not divide over {world_size()} processes")

    def _build(self, prepare: Callable[[Detector], None] | None, given: Detector | None) -> None:
        recipe, config = self.recipe, self.config
        check_boxes(recipe.student.head, self.train_set.task)
        student = given or build_model(recipe.student, len(self.train_set.classes), recipe.input, seed=config.seed)
        if prepare is not None:
            prepare(student)
        student.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(student, config.ema)
        self.student = student
        join_batch_norm(student, self.device)
        self.distiller = self._distiller()
        half = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        self.amp = half if config.amp else None
        self.objective: Objective | DistributedDataParallel = Objective(student, self.distiller, self.amp)
        parts = {"student": student, **({} if self.distiller is None else {"distiller": self.distiller})}
        self.names = parameter_names(**parts)
        self.optimizer = build_optimizer(parts.values(), config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp is torch.float16)
        if world_size() > 1:
            self.objective = DistributedDataParallel(self.objective, broadcast_buffers=False)

    def _distiller(self) -> Distiller | None:
        """Build what the recipe's [[distill]] entries ask for, on the device."""
        recipe = self.recipe
        if not recipe.distill:
            return None
        if not self.teachers:
            raise RecipeError("[[distill]] needs a [teacher]")
        channels = {name: each.channels for name, each in self.teachers.items()}
        distiller = Distiller(recipe.distill, channels_of(self.student), channels, recipe.train.seed)
        for name, each in self.teachers.items():
            _check_classes(distiller.comparing_classes(name), name, each.classes, self.train_set.classes)
            if not distiller.needs_head(name):
                continue
            asking = ", ".join(p.name for p in distiller.parts if p.entry.teacher == name and p.method.needs_head)
            if not each.has_head:
                raise RecipeError(
                    f"{asking}: needs a teacher with a head; {name!r} has none: use a detector, or a method that "
                    "compares features"
                )
            if isinstance(each, CachedTeacher):
                _ = each.teacher  # features are cached, the head runs: weights that are missing are missed now
        return distiller.to(self.device)

    def _batches(self) -> TrainBatches | MixedBatches:
        recipe, config, extra = self.recipe, self.config, self.recipe.unlabelled
        labelled = TrainBatches(self.train_set, recipe.input, recipe.augment, config.batch, config.seed)
        if extra is None or self.unlabelled is None:
            return labelled
        seed = derived_seed(config.seed, "unlabelled")
        others = TrainBatches(self.unlabelled, recipe.input, recipe.augment, extra.batch, seed)
        return MixedBatches(labelled, others, targets=extra.pseudo_labels)

    def _start(self, resume: bool) -> None:
        """Restore the newest checkpoint, or prepare the folder for a new run."""
        if resume:
            found = self.checkpoints.latest()
            if found is not None:
                self.identity.check(found.meta["identity"], self.folder)
                self._restore(found)
        if rank() == 0:
            if self.step == 0:
                self.checkpoints.clear()
            keep_recipe(self.folder, self.recipe.to_dict())

    def _advance(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Do one optimiser step; return the loss and its parts, detached."""
        step, config = self.step, self.config
        torch.manual_seed(derived_seed(config.seed, "step", step, rank()))
        set_learning_rate(self.optimizer, learning_rate(step, config))
        images = batch.images.to(self.device, non_blocking=True)
        scene = Scene(
            [boxes.to(self.device, non_blocking=True) for boxes in batch.boxes],
            [labels.to(self.device, non_blocking=True) for labels in batch.labels],
            self.recipe.input.height,
            self.recipe.input.width,
            step,
            config.steps,
            batch.labelled,
        )
        pixels = normalise(images, self.recipe.input).contiguous(memory_format=torch.channels_last)
        observe = step + 1 == LOG_EVERY or (step + 1) % OBSERVE_EVERY == 0
        total, values = self.objective(pixels, scene, self._look(images, scene), observe=observe)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimizer)
        values["grad_norm"] = clip_gradients(self.student, config.clip_norm)
        if self.distiller is not None:
            clip_gradients(self.distiller, config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.student, step)
        self.step += 1
        return total.detach(), values

    def _look(self, images: Tensor, scene: Scene) -> dict[str, Taps]:
        """Return what each teacher that is compared with in this step shows for the batch; the others do not run."""
        if self.distiller is None:
            return {}
        asked = self.distiller.asked(scene.step, scene.steps)
        return {
            name: each.look(images, self.recipe.input, head=asked[name], amp=self.amp)
            for name, each in self.teachers.items()
            if name in asked
        }

    def _validate(self, step: int, log: MetricsLog | None, progress: ProgressLine) -> None:
        if log is None:
            return
        found = evaluate(self.average.model, self.val_set, self.recipe.input, self.device)
        log.write(step, {f"val.{name}": value for name, value in found.items() if isinstance(value, float)})
        accuracy = f"AP {100 * found['AP']:.1f} %, AP50 {100 * found['AP50']:.1f} %"
        progress.say(f"step {step}: {accuracy} on {self.val_set.name}")

    def _save(self) -> None:
        if rank() != 0:
            return
        parts: dict[str, dict[str, Tensor]] = {
            "student": self.student.state_dict(),
            "average": self.average.model.state_dict(),
            "distiller": self.distiller.state_dict() if self.distiller is not None else {},
            "optimizer": optimizer_tensors(self.optimizer, self.names),
        }
        tensors = {f"{part}.{name}": tensor for part, held in parts.items() for name, tensor in held.items()}
        meta: dict[str, Any] = {"identity": self.identity.to_dict(), "scaler": self.scaler.state_dict()}
        self.checkpoints.write(self.step, tensors, meta)

    def _restore(self, found: Checkpoint) -> None:
        self.student.load_state_dict(found.part("student"))
        self.average.model.load_state_dict(found.part("average"))
        if self.distiller is not None:
            self.distiller.load_state_dict(found.part("distiller"))
        restore_optimizer(self.optimizer, self.names, found.part("optimizer"))
        self.scaler.load_state_dict(found.meta["scaler"])
        self.step = found.step


def _check_classes(entries: Sequence[str], teacher: str, theirs: Sequence[str] | None, ours: Sequence[str]) -> None:
    """Refuse entries that would teach one class with what the teacher says of another; unknown names are taken."""
    if not entries or theirs is None or tuple(theirs) == tuple(ours):
        return
    remedy = (
        f"set data.classes = {list(theirs)}"
        if set(theirs) == set(ours)
        else "train the teacher on the same classes, or use a method that compares features"
    )
    raise RecipeError(
        f"{', '.join(entries)}: class is compared with class by number, but the classes of the teacher {teacher!r} are "
        f"{', '.join(theirs)} and those of the data {', '.join(ours)}; {remedy}"
    )
