"""The terms of NSD, one by one: golden values, and what the authors' code gets wrong."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.training.methods._negatives import (
    divergence,
    pixel_coefficients,
    pixel_error,
    ramp,
    sampled,
    score_divergence,
    without_target,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prior(*logits: float) -> Tensor:
    """Return the logits of one prior, `(1, C, 1)`."""
    return torch.tensor(logits).view(1, -1, 1)


def test_golden_divergence() -> None:
    found = divergence(prior(0, 0), prior(2, -2), 4.0).item()
    assert found / 16 == pytest.approx(0.11094407, rel=1e-6)
    assert 8 * found == pytest.approx(14.200841, rel=1e-6)
    assert 1.8 * 8 * found == pytest.approx(25.561514, rel=1e-6)


def test_divergence_is_kl_of_the_teacher_from_the_student() -> None:
    ours, theirs = noise(2, 5, 7), noise(2, 5, 7, seed=1)
    p, q = (theirs / 3).softmax(dim=1), (ours / 3).softmax(dim=1)
    torch.testing.assert_close(divergence(ours, theirs, 3.0), 9 * (p * (p.log() - q.log())).sum(dim=1))


def test_divergence_at_a_temperature_is_its_square_times_that_of_cooler_logits() -> None:
    ours, theirs = noise(2, 5, 7), noise(2, 5, 7, seed=1)
    torch.testing.assert_close(divergence(4 * ours, 4 * theirs, 4.0), 16 * divergence(ours, theirs, 1.0))


def test_divergence_does_not_see_a_constant_on_all_classes_and_scores_do() -> None:
    ours, theirs = (noise(2, 5, 7, seed=seed).mul(64).round() / 64 for seed in (0, 1))  # sums are exact
    assert torch.equal(divergence(ours + 8, theirs, 4.0), divergence(ours, theirs, 4.0))
    assert bool((score_divergence(ours + 8, theirs) > score_divergence(ours, theirs) + 1).all())


def test_huge_logits_stay_finite_and_apart() -> None:
    ours = torch.full((1, 4, 3), 50.0) * torch.tensor([1.0, -1, 1, -1]).view(1, 4, 1)
    for found in (divergence(ours, -ours, 4.0), divergence(ours, -ours, 0.5), score_divergence(ours, -ours)):
        assert bool((found > 10).all())
        assert bool(found.isfinite().all())


@pytest.mark.parametrize(
    ("sample", "include_ignored", "expected"),
    [
        ("negatives", True, [0, 1, 1, 0]),
        ("negatives", False, [0, 1, 0, 0]),
        ("positives", True, [1, 0, 0, 1]),
        ("positives", False, [1, 0, 0, 1]),
        ("both", True, [1, 1, 1, 1]),
        ("both", False, [1, 1, 0, 1]),
        ("nontarget", True, [1, 1, 1, 1]),
        ("nontarget", False, [1, 1, 0, 1]),
    ],
)
def test_priors_that_count(sample: str, include_ignored: bool, expected: list[int]) -> None:
    labels = torch.tensor([[0, -1, -2, 3]])
    assert sampled(labels, sample, include_ignored=include_ignored).tolist() == [expected]


def test_positives_without_their_target_are_compared_on_the_other_classes() -> None:
    ours, theirs, labels = noise(1, 4, 3) * 5, noise(1, 4, 3, seed=1) * 5, torch.tensor([[2, -1, -2]])
    found = divergence(without_target(ours, labels), without_target(theirs, labels), 4.0)
    others = [0, 1, 3]
    expected = divergence(ours[:, others], theirs[:, others], 4.0)[0, 0]
    torch.testing.assert_close(found[0, 0], expected)
    assert torch.equal(found[0, 1:], divergence(ours, theirs, 4.0)[0, 1:])


def test_score_divergence_is_cross_entropy_less_its_minimum() -> None:
    ours, theirs = noise(2, 3, 5).requires_grad_(), noise(2, 3, 5, seed=1)
    target = theirs.sigmoid()
    entropy = -(target * target.log() + (1 - target) * (1 - target).log())
    expected = F.binary_cross_entropy(ours.sigmoid(), target, reduction="none") - entropy
    found = score_divergence(ours, theirs)
    torch.testing.assert_close(found, expected.sum(dim=1))
    assert float(score_divergence(theirs, theirs).abs().max()) == 0
    found.sum().backward()
    torch.testing.assert_close(ours.grad, ours.detach().sigmoid() - target)


def test_ramp_goes_through_the_epochs_of_the_authors() -> None:
    epochs = [ramp(epoch / 12, 0.25) for epoch in range(13)]
    assert epochs[:4] == [0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    assert set(epochs[3:]) == {1.0}
    assert [ramp(done, 0.0) for done in (0.0, 0.5)] == [1, 1]


def loop_error(ours: Tensor, theirs: Tensor, mask: Tensor) -> float:
    """Return the error of one level, anchor by anchor as it is written down; mask `(B, H, W, A)`."""
    squared, total, count = (ours - theirs).square(), 0.0, 0.0
    for anchor in range(mask.shape[3]):
        kept = mask[..., anchor].unsqueeze(1).expand_as(squared)
        total += float((squared * kept).sum())
        count += float(kept.sum())
    return total / max(1.0, 2 * count)


@pytest.mark.parametrize("images", [1, 2, 3])  # the authors' code takes two images, and no other number
def test_pixel_error_is_that_of_the_formula(images: int) -> None:
    ours, theirs = noise(images, 5, 4, 3), noise(images, 5, 4, 3, seed=1)
    mask = (noise(images, 4, 3, 9, seed=2) > 0.5).float()
    found = pixel_error(ours, theirs, mask.sum(dim=3)).item()
    assert found == pytest.approx(loop_error(ours, theirs, mask), rel=1e-5)
    full = pixel_error(ours, theirs, torch.full((images, 4, 3), 9.0)).item()
    assert full == pytest.approx(float((ours - theirs).square().mean()) / 2, rel=1e-5)


def test_pixel_error_of_nothing_is_a_connected_zero_and_of_little_is_not_blown_up() -> None:
    ours = noise(1, 1, 2, 2).requires_grad_()
    none = pixel_error(ours, torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2))
    none.backward()
    assert none.item() == 0
    assert ours.grad is not None
    assert float(ours.grad.abs().max()) == 0
    few = torch.zeros(1, 2, 2)
    few[0, 0, 0] = 0.25  # half a channel: below the floor of the divisor
    assert pixel_error(ours, torch.zeros(1, 1, 2, 2), few).item() == pytest.approx(0.25 * ours[0, 0, 0, 0].item() ** 2)


@pytest.mark.parametrize(("weight", "levels", "priors"), [(12.0, 5, 9), (3.0, 3, 1), (1.0, 1, 9)])
def test_compat_coefficients_are_those_of_the_recurrence(weight: float, levels: int, priors: int) -> None:
    errors = [1.0, 0.7, 1.9, 0.4, 2.2][:levels]
    total, accumulated = 0.0, 0.0
    for error in errors:  # the sum is never reset, and the factor is inside
        accumulated += error
        total = (total + accumulated / priors) * (weight / levels)
    found = pixel_coefficients("nsd_compat", weight, levels, priors)
    assert sum(c * e for c, e in zip(found, errors, strict=True)) == pytest.approx(total)


def test_golden_compat_coefficients_and_the_intended_ones() -> None:
    half = [0.5 * each for each in pixel_coefficients("nsd_compat", 12.0, 5, 9)]  # of the mean squared error
    assert half == pytest.approx([7.49, 3.07, 1.22, 0.45, 0.13], abs=0.006)
    assert sum(half) == pytest.approx(12.4, abs=0.05)
    assert pixel_coefficients("normalised", 12.0, 5, 9) == pytest.approx([2.4] * 5)
