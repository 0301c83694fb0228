"""The Sinkhorn divergence, beside a linear program and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.training.anomaly.transport import sinkhorn_divergence


def cloud(count: int, dims: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear_program(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return half the squared Wasserstein distance: the cheapest plan with the given sums of rows and columns."""
    optimize = pytest.importorskip("scipy.optimize")
    rows, columns = len(one), len(other)
    cost = (one[:, None] - other).square().sum(-1) / 2
    sums = np.zeros((rows + columns, rows, columns))
    for row in range(rows):
        sums[row, row] = 1
    for column in range(columns):
        sums[rows + column, :, column] = 1
    wanted = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns)])
    return float(optimize.linprog(cost.numpy().ravel(), A_eq=sums.reshape(rows + columns, -1), b_eq=wanted).fun)


def entropic(one: np.ndarray, other: np.ndarray, temperature: float) -> float:
    """Return <P, C> + t KL(P | a b) of the plan that a thousand plain scalings of exp(-C / t) lead to."""
    cost = ((one[:, None] - other) ** 2).sum(-1) / 2
    kernel, scale = np.exp(-cost / temperature), np.ones(len(other))
    for _ in range(1000):
        left = 1 / len(one) / (kernel @ scale)
        scale = 1 / len(other) / (kernel.T @ left)
    plan = left[:, None] * kernel * scale
    return float((plan * cost).sum() + temperature * (plan * np.log(plan * cost.size)).sum())


@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (5, 8), (1, 4)])
@pytest.mark.parametrize("blur", [0.2, 0.5])
def test_divergence_is_that_of_plans_found_by_plain_scaling(rows: int, columns: int, blur: float) -> None:
    one, other = cloud(rows), cloud(columns, seed=9) + 0.3
    pairs = [(one, other, 1.0), (one, one, -0.5), (other, other, -0.5)]
    expected = sum(share * entropic(a.numpy(), b.numpy(), blur**2) for a, b, share in pairs)
    assert float(sinkhorn_divergence(one, other, blur)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("rows", "columns", "error"), [(1, 1, 1e-9), (6, 6, 1e-4), (5, 8, 5e-3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_blur_is_the_linear_program(rows: int, columns: int, error: float, seed: int) -> None:
    one, other = cloud(rows, seed=seed), cloud(columns, seed=seed + 10) + 0.3
    assert float(sinkhorn_divergence(one, other, 0.03)) == pytest.approx(linear_program(one, other), abs=error)


def test_large_blur_is_half_the_squared_distance_of_the_means() -> None:
    one, other = cloud(5), cloud(7, seed=1) + 0.5
    expected = float((one.mean(0) - other.mean(0)).square().sum()) / 2
    assert float(sinkhorn_divergence(one, other, 100.0)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("blur", [0.01, 0.05, 0.3, 10.0])
def test_a_cloud_and_its_points_in_another_order_are_equal(blur: float) -> None:
    one = cloud(7)
    assert float(sinkhorn_divergence(one, one.flip(0), blur)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("blur", [0.05, 0.3])
def test_divergence_is_symmetric_and_not_negative(blur: float) -> None:
    one, other = cloud(5), cloud(8, seed=3)
    forth, back = (float(sinkhorn_divergence(*pair, blur)) for pair in ((one, other), (other, one)))
    assert forth == pytest.approx(back, rel=1e-12)
    assert forth > 0


def test_debiasing_keeps_a_cloud_from_being_drawn_to_the_others_middle() -> None:
    """Of entropic transport alone a shrunken cloud would be nearer than the cloud itself."""
    one = cloud(6)
    shrunk = one.mean(0) + 0.5 * (one - one.mean(0))
    assert float(sinkhorn_divergence(one, shrunk, 0.5)) > 1e-4


def test_gradient_is_that_of_finite_differences() -> None:
    pair = cloud(4).requires_grad_(), cloud(5, seed=2).requires_grad_()
    torch.autograd.gradcheck(lambda a, b: sinkhorn_divergence(a, b, 0.5), pair, atol=1e-4)


def test_bfloat16_around_it_changes_nothing() -> None:
    one, other = cloud(4, 50).float() * 1e-3, cloud(4, 50, seed=1).float() * 1e-3
    with torch.autocast("cpu", torch.bfloat16):
        inside = sinkhorn_divergence(one, other)
    assert torch.equal(inside, sinkhorn_divergence(one, other))
