"""PKD's loss: its invariances, its closed form, its guards (numbers as in the specification's unit tests)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import RecipeError
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods._align import align_channels
from edgekd.training.methods._correlation import correlation_loss
from edgekd.training.methods.pkd import PKD

SCENE = Scene([], [], 64, 64, 0, 1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's r of each channel in float64, from its definition."""
    x, y = (t.double().transpose(0, 1).flatten(1) for t in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))


def test_loss_of_a_map_with_itself_is_zero() -> None:
    features = noise(2, 5, 8, 8)
    assert float(correlation_loss(features, features)) < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_loss_does_not_see_positive_scale_and_offset_of_either_side(seed: int, scale: float, offset: float) -> None:
    ours, theirs = noise(2, 4, 8, 8, seed=seed), noise(2, 4, 8, 8, seed=seed + 1)
    plain = float(correlation_loss(ours, theirs))
    assert float(correlation_loss(ours * scale + offset, theirs)) == pytest.approx(plain, abs=2e-4)
    assert float(correlation_loss(ours, theirs * scale + offset)) == pytest.approx(plain, abs=2e-4)


def test_loss_of_the_negative_is_two_and_of_the_unrelated_is_one() -> None:
    features, other = noise(4, 8, 16, 16), noise(4, 8, 16, 16, seed=1)
    m = 4 * 16 * 16
    assert float(correlation_loss(-features, features)) == pytest.approx(2 * (m - 1) / m, abs=1e-5)
    assert float(correlation_loss(other, features)) == pytest.approx(1, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 6), st.integers(4, 9), st.integers(4, 11))
def test_loss_equals_one_minus_pearson(seed: int, n: int, c: int, h: int, w: int) -> None:
    theirs = noise(n, c, h, w, seed=seed)
    ours = 0.6 * theirs + noise(n, c, h, w, seed=seed + 1)
    m = n * h * w
    expected = ((1 - correlation(ours, theirs)) * (m - 1) / m).mean()
    assert float(correlation_loss(ours, theirs)) == pytest.approx(float(expected), abs=1e-5)


def test_gradient_is_orthogonal_to_scale_and_offset_and_none_reaches_the_teacher() -> None:
    ours, theirs = noise(2, 3, 8, 8).requires_grad_(), noise(2, 3, 8, 8, seed=1).requires_grad_()
    correlation_loss(ours, theirs.detach()).backward()
    assert theirs.grad is None
    grad = ours.grad
    assert grad is not None
    assert float(grad.abs().max()) > 1e-4
    centred = ours.detach() - ours.detach().mean(dim=(0, 2, 3), keepdim=True)
    assert float((grad * centred).sum(dim=(0, 2, 3)).abs().max()) < 1e-5
    assert float(grad.sum(dim=(0, 2, 3)).abs().max()) < 1e-5


def test_gradient_equals_the_published_formula() -> None:
    ours, theirs = noise(2, 1, 8, 8).requires_grad_(), noise(2, 1, 8, 8, seed=1)
    correlation_loss(ours, theirs).backward()
    m = 2 * 8 * 8
    z_ours, z_theirs = ((t - t.mean()) / t.std() for t in (ours.detach(), theirs))
    r = correlation(ours.detach(), theirs).float()
    expected = (z_ours * r - z_theirs) / (m * ours.detach().std())
    assert torch.allclose(ours.grad, expected, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch.zeros(2, 3, 8, 8), noise(2, 3, 8, 8)),
        (torch.full((2, 3, 8, 8), 7.0), noise(2, 3, 8, 8)),
        (noise(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
        (noise(1, 3, 1, 1), noise(1, 3, 1, 1, seed=1)),
        (noise(1, 3, 7, 11), noise(1, 3, 7, 11, seed=1)),
        (noise(2, 3, 8, 8) * 1e4, noise(2, 3, 8, 8) * 1e-4),
    ],
    ids=["dead student", "constant student", "dead teacher", "both dead", "one cell", "odd map", "far scales"],
)
def test_value_and_gradient_stay_finite_and_small(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    ours = ours.clone().requires_grad_()
    loss = correlation_loss(ours, theirs)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert 0 <= loss.item() <= 2
    assert ours.grad is not None
    assert bool(torch.isfinite(ours.grad).all())


def test_gradient_of_a_dead_student_is_held_by_the_floor() -> None:
    theirs = noise(4, 8, 16, 16)
    usual, dead = noise(4, 8, 16, 16, seed=1).requires_grad_(), torch.zeros(4, 8, 16, 16, requires_grad=True)
    for ours in (usual, dead):
        correlation_loss(ours, theirs).backward()
    assert float(dead.grad.norm()) < 2e3 * float(usual.grad.norm())  # type: ignore[union-attr]  # without a floor: 1e6


def test_dead_teacher_channel_is_left_out_of_the_mean() -> None:
    ours, theirs = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    living = float(correlation_loss(ours[:, :2], theirs[:, :2]))
    theirs[:, 2] = 0.5
    assert float(correlation_loss(ours, theirs)) == pytest.approx(living, abs=1e-6)


def test_statistics_are_the_batchs_not_each_images() -> None:
    ours, theirs = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    ours[1] += 3
    theirs[1] += 3
    images = [float(correlation_loss(ours[i : i + 1], theirs[i : i + 1])) for i in range(2)]
    assert abs(float(correlation_loss(ours, theirs)) - sum(images) / 2) > 0.1


def test_map_below_sixteen_values_is_skipped_with_a_connected_zero() -> None:
    method = PKD(adapt="always")
    adapters = method.adapters({6: (4, 4)})
    ours = noise(1, 4, 3, 5).requires_grad_()
    losses = method(Taps({6: ours}), Taps({6: noise(1, 4, 3, 5, seed=1)}), adapters, SCENE)
    losses["p6"].backward()
    assert losses["p6"].item() == 0
    assert ours.grad is not None
    assert all(parameter.grad is not None for parameter in adapters.parameters())


def test_unequal_channels_get_an_adapter_and_equal_ones_none() -> None:
    adapters = PKD().adapters({3: (8, 16), 4: (16, 16)})
    assert adapters.get_submodule("p3").weight.shape == (16, 8, 1, 1)
    assert isinstance(adapters.get_submodule("p4"), torch.nn.Identity)
    taps = {3: noise(2, 8, 8, 8), 4: noise(2, 16, 8, 8)}
    losses = PKD()(Taps(taps), Taps({3: noise(2, 16, 8, 8, seed=1), 4: taps[4]}), adapters, SCENE)
    assert set(losses) == {"p3", "p4"}
    assert losses["p4"].item() < 1e-5 < losses["p3"].item()


def test_adapter_between_equal_counts_starts_as_the_identity() -> None:
    features = noise(2, 6, 4, 4)
    adapter = align_channels({3: (6, 6)}, always=True).get_submodule("p3")
    assert torch.allclose(adapter(features), features, atol=1e-6)


def test_factor_multiplies_every_level() -> None:
    student, teacher = Taps({3: noise(2, 4, 8, 8)}), Taps({3: noise(2, 4, 8, 8, seed=1)})
    one, six = (PKD(factor=f)(student, teacher, PKD().adapters({3: (4, 4)}), SCENE)["p3"] for f in (1.0, 6.0))
    assert float(six) == pytest.approx(6 * float(one))


def test_wrong_adapt_names_the_possible_ones() -> None:
    with pytest.raises(RecipeError, match="adapt is 'never'; possible: auto, always"):
        PKD(adapt="never")
