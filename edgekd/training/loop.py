"""The loop around optimiser steps: batches, log, progress, warnings, checkpoints, Ctrl-C. It knows no network."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ..errors import RecipeError
from .advice import Advice
from .distributed import rank
from .interrupt import Interrupted, StopSignal
from .models.heads.head import mean_over_ranks
from .prefetch import Prefetch
from .progress import MetricsLog, ProgressLine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .prefetch import Source

T = TypeVar("T")

LOG_EVERY = 10  # steps


class Budget(Protocol):
    """How long a run is: `TrainConfig`, or another section with these fields."""

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        ...

    @property
    def workers(self) -> int:
        """Threads that prepare batches."""
        ...

    @property
    def eval_every(self) -> int:
        """Steps between validations; 0: none."""
        ...

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        ...


@dataclass(frozen=True, kw_only=True)
class Loop(Generic[T]):
    """What drives a run from some step to its last.

    Attributes:
        budget: of the run.
        folder: receives `metrics.jsonl`.
        batches: random access by step.
        advance: does one optimiser step; returns the loss and its parts, detached.
        rate: the learning rate, for the log.
        save: writes a checkpoint of the steps done so far.
        validate: called every `eval_every` steps; None: never.
        remedy: what to change when the loss is no longer finite.
        log_every: steps between two lines of the log.
        remedies: of distillation entries, see `Advice`.
        tensorboard: write events to `folder/tensorboard` too.
    """

    budget: Budget
    folder: Path
    batches: Source[T]
    advance: Callable[[T], tuple[Tensor, dict[str, Tensor]]]
    rate: Callable[[], float]
    save: Callable[[], None]
    validate: Callable[[int, MetricsLog | None, ProgressLine], None] | None = None
    remedy: str
    log_every: int
    remedies: Mapping[str, str] = field(default_factory=dict)
    tensorboard: bool = False

    def run(self, start: int) -> None:
        """Do the steps from `start` (so many are done) to the last.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first.
            RecipeError: the loss is no longer finite.
        """
        if start >= self.budget.steps:
            return
        log = self._log(start) if rank() == 0 else None
        progress = ProgressLine(self.budget.steps, start)
        progress.on &= rank() == 0
        try:
            with StopSignal() as stop:
                self._steps(start, log, progress, stop)
        finally:
            progress.close()
            if log is not None:
                log.close()

    def _log(self, step: int) -> MetricsLog:
        return MetricsLog(
            self.folder / "metrics.jsonl", step, self.folder / "tensorboard" if self.tensorboard else None
        )

    def _steps(self, start: int, log: MetricsLog | None, progress: ProgressLine, stop: StopSignal) -> None:
        budget = self.budget
        prefetch = Prefetch(self.batches, start, budget.steps, budget.workers)
        clock, advice = _Clock(start), Advice(budget.steps, self.remedies)
        advice.recall(log.history if log is not None else [])
        for step, batch in enumerate(prefetch, start + 1):
            total, values = self.advance(batch)
            last = step == budget.steps
            if step % self.log_every == 0 or last:
                row = {"loss": self._finite(step, total), **_shared(values), "lr": self.rate()}
                if log is not None:
                    log.write(step, {**row, **clock.per_step(step, prefetch.waited)})
                    for text in advice.read(step, row):
                        log.warn(step, text)
                        progress.warn(f"step {step}: {text}")
                progress.show(step, row["loss"], row["lr"])
            if self.validate is not None and budget.eval_every and step % budget.eval_every == 0 and not last:
                self.validate(step, log, progress)
            stopping = stop.requested()
            if stopping or last or step % budget.checkpoint_every == 0:
                self._finite(step, total)
                self.save()
            if stopping and not last:
                raise Interrupted(step, budget.steps)

    def _finite(self, step: int, total: Tensor) -> float:
        """Return the loss over all ranks.

        Raises:
            RecipeError: it is no finite number.
        """
        loss = float(mean_over_ranks(total))
        if not math.isfinite(loss):
            raise RecipeError(f"the loss is {loss} at step {step} of {self.budget.steps}; {self.remedy}")
        return loss


class _Clock:
    """Milliseconds per step since the last question: all of it, and what was spent waiting for data."""

    def __init__(self, step: int) -> None:
        self._step, self._began, self._waited = step, time.perf_counter(), 0.0

    def per_step(self, step: int, waited: float) -> dict[str, float]:
        now, steps = time.perf_counter(), step - self._step
        spent = {"step_ms": 1e3 * (now - self._began) / steps, "data_ms": 1e3 * (waited - self._waited) / steps}
        self._step, self._began, self._waited = step, now, waited
        return spent


def _shared(values: dict[str, Tensor]) -> dict[str, float]:
    """Return the mean of each value over the ranks, in one exchange."""
    if not values:
        return {}
    means = mean_over_ranks(torch.stack([value.float() for value in values.values()])).tolist()
    return dict(zip(values, means, strict=True))
