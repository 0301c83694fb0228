"""Schedule, parameter groups and clipping."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekd._recipe import TrainConfig
from edgekd.errors import RecipeError
from edgekd.training.optim import build_optimizer, clip_gradients, learning_rate, set_learning_rate

CONFIG = TrainConfig(steps=101, warmup=10, lr=0.5, final_lr=0.1)


def test_rate_rises_linearly_to_the_peak_then_falls_as_a_cosine() -> None:
    assert [learning_rate(step, CONFIG) for step in (0, 4, 9)] == pytest.approx([0.05, 0.25, 0.5])
    assert learning_rate(10, CONFIG) == pytest.approx(0.5)
    assert learning_rate(55, CONFIG) == pytest.approx(0.5 * (0.1 + 0.9 * 0.5))  # half-way: mean of peak and end
    assert learning_rate(100, CONFIG) == pytest.approx(0.05)


def test_rate_of_a_run_shorter_than_its_warmup_stays_finite() -> None:
    config = TrainConfig(steps=3, warmup=10, lr=1.0)
    assert [learning_rate(step, config) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert all(math.isfinite(learning_rate(step, TrainConfig(steps=1, warmup=0))) for step in range(2))


def test_norms_and_biases_are_not_decayed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = build_optimizer([model], TrainConfig(weight_decay=0.3)).param_groups
    decayed, exempt = groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert decayed["weight_decay"] == 0.3
    assert [p.ndim for p in exempt["params"]] == [1, 1, 1]
    assert exempt["weight_decay"] == 0


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    groups = build_optimizer([model], TrainConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers_step_downhill(name: str, kind: type) -> None:
    model = nn.Linear(3, 1)
    optimizer = build_optimizer([model], TrainConfig(optimizer=name, lr=0.1))
    assert isinstance(optimizer, kind)
    set_learning_rate(optimizer, 0.05)
    losses = []
    for _ in range(20):
        loss = (model(torch.ones(1, 3)) - 2).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_unknown_optimizer_lists_the_possible_ones() -> None:
    with pytest.raises(RecipeError, match=r"train\.optimizer is 'lion'; possible: adamw, sgd"):
        build_optimizer([nn.Linear(1, 1)], TrainConfig(optimizer="lion"))


@pytest.mark.parametrize(("limit", "after"), [(1.0, 1.0), (100.0, 5.0), (0.0, 5.0)])
def test_clipping_limits_the_joint_norm_and_zero_means_no_limit(limit: float, after: float) -> None:
    model = nn.Linear(1, 1)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), -4.0)
    assert clip_gradients(model, limit).item() == pytest.approx(5)
    assert math.hypot(model.weight.grad.item(), model.bias.grad.item()) == pytest.approx(after, rel=1e-4)
