"""The average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.training.ema import WeightAverage


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_average_follows_the_ramp_formula() -> None:
    model = net()
    average = WeightAverage(model, 0.9)
    expected = model[0].weight.detach().clone()
    for step in range(120):
        with torch.no_grad():
            model[0].weight.normal_()
        average.update(model, step)
        decay = min(0.9, (2 + step) / (11 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
        assert torch.allclose(average.model[0].weight, expected, atol=1e-6)


def test_buffers_are_averaged_and_counters_copied() -> None:
    model = net()
    average = WeightAverage(model, 0.5)
    model(torch.randn(4, 1, 3, 3))
    average.update(model, 10**6)
    mean = average.model[1].running_mean
    assert torch.allclose(mean, 0.5 * model[1].running_mean)
    assert average.model[1].num_batches_tracked == 1


def test_decay_zero_is_the_weights_themselves() -> None:
    model = net()
    average = WeightAverage(model, 0.0)
    for step in range(3):
        with torch.no_grad():
            model[0].weight.normal_()
        average.update(model, step)
    assert torch.equal(average.model[0].weight, model[0].weight)


def test_average_takes_no_gradient_and_stays_in_evaluation_mode() -> None:
    model = net().train()
    average = WeightAverage(model, 0.5)
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert average.model[0].weight.data_ptr() != model[0].weight.data_ptr()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_update_does_not_depend_on_the_memory_layout(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(4, 8, 3)
    plain = WeightAverage(model, 0.5)
    other = WeightAverage(model.to(memory_format=layout), 0.5)
    with torch.no_grad():
        model.weight.normal_()
    plain.update(model, 50)
    other.update(model, 50)
    assert torch.equal(plain.model.weight, other.model.weight)
