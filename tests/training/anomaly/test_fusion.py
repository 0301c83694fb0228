"""Channel attention, iterative fusion, and the energies of two teachers."""

from __future__ import annotations

import pytest
import torch

from edgekd.training.anomaly.attention import ChannelAttention, ChannelContext, IterativeFusion
from edgekd.training.anomaly.fusion import AddFusion, AttentionalFusion, Equaliser


def maps(count: int = 2, channels: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, channels, 5, 5), torch.randn(count, channels, 5, 5)


def test_fused_map_lies_between_the_two() -> None:
    one, other = maps()
    fused, gate = IterativeFusion(8)(one, other)
    assert (fused >= torch.minimum(one, other) - 1e-6).all()
    assert (fused <= torch.maximum(one, other) + 1e-6).all()
    assert ((gate > 0) & (gate < 1)).all()


def test_two_equal_maps_are_kept() -> None:
    one, _ = maps()
    torch.testing.assert_close(IterativeFusion(8)(one, one)[0], one)


def test_fusion_of_known_contexts_is_that_computed_by_hand() -> None:
    """First gate sigmoid(u), second sigmoid(2 z): u = a + b = 0, so w1 = 1/2, z = 0, w2 = 1/2; and another pair."""
    fusion = IterativeFusion(1)
    fusion.first.forward = lambda features: features  # type: ignore[method-assign]
    fusion.second.forward = lambda features: 2 * features  # type: ignore[method-assign]
    one, other = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2), torch.tensor([-1.0, -2.0]).view(1, 1, 1, 2)
    w1 = 1 / (1 + 2.718281828459045**-1.0)
    w2 = 1 / (1 + 2.718281828459045 ** -(2 * (w1 * 3 - (1 - w1) * 2)))
    expected = torch.tensor([0.0, w2 * 3 - (1 - w2) * 2])
    torch.testing.assert_close(fusion(one, other)[0].view(-1), expected)


def test_all_four_branches_learn_even_from_one_image() -> None:
    fusion = IterativeFusion(8)
    fused, _ = fusion(*maps(count=1))
    fused.square().sum().backward()
    for context in (fusion.first, fusion.second):
        for branch in (context.near, context.far):
            for layer in (branch[-1], branch[0], branch[1], branch[3]):
                for parameter in layer.parameters():
                    assert parameter.grad is not None
                    assert parameter.grad.abs().sum() > 0 or isinstance(layer, torch.nn.BatchNorm2d)


def test_global_context_of_an_image_does_not_depend_on_its_batch() -> None:
    context = ChannelContext(8).train()
    one, other = maps(count=1)
    alone = context.far(one)
    torch.testing.assert_close(context.far(torch.cat([one, other]))[:1], alone)


def test_attention_gates_its_input_by_local_and_global_context() -> None:
    attention = ChannelAttention(8).eval()
    one, _ = maps()
    expected = one * torch.sigmoid(attention.context.near(one) + attention.context.far(one))
    torch.testing.assert_close(attention(one), expected)
    assert attention.context.far(one).shape == (2, 8, 1, 1)


@pytest.mark.parametrize(("channels", "millions"), [(256, 0.135), (512, 0.53), (1024, 2.1)])
def test_fusion_has_about_the_published_number_of_parameters(channels: int, millions: float) -> None:
    count = sum(parameter.numel() for parameter in IterativeFusion(channels).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03)


def test_frozen_fusion_stays_as_it_is_when_the_parent_trains() -> None:
    fusion = AttentionalFusion([8])
    torch.nn.Sequential(fusion).train()
    assert fusion.training
    fusion.freeze()
    before = {name: value.clone() for name, value in fusion.state_dict().items()}
    torch.nn.Sequential(fusion).train()
    one, other = maps()
    fused, _ = fusion([one], [other])
    assert not any(module.training for module in fusion.modules())
    assert not fused[0].requires_grad
    assert all(torch.equal(value, before[name]) for name, value in fusion.state_dict().items())


def test_added_pyramids_have_no_gates() -> None:
    one, other = maps()
    fused, gates = AddFusion()([one], [other])
    torch.testing.assert_close(fused[0], one + other)
    assert gates == []


def test_projection_to_more_channels_keeps_every_cosine() -> None:
    features = [torch.randn(1, 6, 3, 3), torch.randn(1, 8, 2, 2), torch.randn(1, 12, 1, 1)]
    equal = Equaliser([6, 8, 12], [10, 8, 16])
    for before, after in zip(features, equal(features), strict=True):
        flat, moved = before.flatten(2)[0], after.flatten(2)[0]
        torch.testing.assert_close(moved.T @ moved, flat.T @ flat, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in equal.parameters())


def test_projection_to_fewer_channels_has_orthonormal_rows() -> None:
    weight = Equaliser([12], [5]).project[0].weight.view(5, 12)
    torch.testing.assert_close(weight @ weight.T, torch.eye(5), atol=1e-5, rtol=0)


def test_after_fitting_a_map_has_a_root_mean_square_of_one() -> None:
    features = [7 * torch.randn(4, 6, 3, 3), torch.zeros(4, 8, 2, 2)]
    equal = Equaliser([6, 8], [10, 8])
    equal.fit(equal.energies(features))
    loud, silent = equal(features)
    assert float(loud.square().mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(equal.scales[1]) == 1.0
    assert (silent == 0).all()
