"""BatchNorm of a random teacher, fitted to normal images; the energy of the mean."""

from __future__ import annotations

import pytest
import torch

from edgekd.training.anomaly import Pyramid
from edgekd.training.anomaly.calibrate import batchnorms, fit_batchnorm, mean_shares
from edgekd.training.models.backbones import build_backbone

from .conftest import INPUT, textures


def random(name: str = "resnet18") -> Pyramid:
    return Pyramid(name, build_backbone(name, 0.25), INPUT)


def test_first_layer_gets_the_mean_and_variance_over_all_batches() -> None:
    teacher = random()
    batches = [textures(4, 1), 3 * textures(4, 2)]
    seen: list[torch.Tensor] = []
    first = next(iter(batchnorms(teacher).values()))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    fit_batchnorm(teacher, batches)
    torch.testing.assert_close(first.running_mean, torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([each.var((0, 2, 3)) for each in seen]).mean(0))
    assert int(first.num_batches_tracked) == 2


def test_fitting_changes_statistics_alone_forgets_earlier_ones_and_leaves_the_teacher_frozen() -> None:
    teacher = random()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    fit_batchnorm(teacher, [9 * textures(4, 3)])
    fit_batchnorm(teacher, [textures(4, 4)])
    once = random()
    once.load_state_dict(before)
    fit_batchnorm(once, [textures(4, 4)])
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, once.state_dict()[name]), name
        assert torch.equal(value, before[name]) != name.endswith(("running_mean", "running_var", "tracked")), name
    assert not any(module.training for module in teacher.modules())
    assert {layer.momentum for layer in batchnorms(teacher).values()} == {0.1}


def test_fitted_features_vary_more_than_random_ones() -> None:
    teacher = random()
    before = mean_shares(teacher, [textures(8)])
    fit_batchnorm(teacher, [textures(8)])
    assert all(after < share for after, share in zip(mean_shares(teacher, [textures(8)]), before, strict=True))


def test_mean_shares_are_those_computed_at_once_whatever_the_batches() -> None:
    teacher = random()
    images = textures(5, 7)
    expected = [
        float(each.double().mean((0, 2, 3)).square().sum() / each.double().square().sum(1).mean())
        for each in teacher(images)
    ]
    assert mean_shares(teacher, [images]) == pytest.approx(expected)
    assert mean_shares(teacher, [images[:1], images[1:]]) == pytest.approx(expected)


def test_shares_of_constant_and_of_dark_features() -> None:
    teacher = random()
    for layer in batchnorms(teacher).values():
        layer.weight.zero_()
        layer.bias.fill_(1.0)
    assert mean_shares(teacher, [textures(2)]) == pytest.approx((1.0, 1.0, 1.0))
    for layer in batchnorms(teacher).values():
        layer.bias.zero_()
    assert mean_shares(teacher, [textures(2)]) == (0.0, 0.0, 0.0)


def test_weights_with_folded_batchnorm_have_none_to_fit() -> None:
    assert not batchnorms(random("squeezenet1.1"))
