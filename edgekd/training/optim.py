"""Optimiser, learning-rate schedule and gradient clipping."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._recipe import TrainConfig

OPTIMIZERS = ("adamw", "sgd")


def build_optimizer(modules: Iterable[nn.Module], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser over the trainable parameters of `modules`.

    Weight decay applies to matrices and convolution kernels only: normalisation weights, biases and scalar scales
    (one dimension or none) are exempt (Goyal et al. 2017, section 5.3).

    Raises:
        RecipeError: `config.optimizer` is none of OPTIMIZERS.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    raise RecipeError(f"train.optimizer is {config.optimizer!r}; possible: {', '.join(OPTIMIZERS)}")


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the rate of step `step` (0-based): linear up to `lr`, then half a cosine down to `lr * final_lr`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup - 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(module: nn.Module, max_norm: float) -> Tensor:
    """Scale the gradients of `module` to a joint L2 norm of at most `max_norm` (0: no limit); return the norm before.

    Student and adapters are clipped apart: an adapter's gradient must not shrink the student's.
    """
    parameters = [p for p in module.parameters() if p.grad is not None]
    return nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else math.inf)
