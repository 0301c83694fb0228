"""SSIM of feature maps: against a plain loop over windows, on known pairs, at its edges, and what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from edgekd.training.methods._ssim import ssim, structure_loss

C1, C2 = 1e-4, 9e-4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def loss(ours: Tensor, theirs: Tensor, scaling: str = "teacher") -> float:
    return structure_loss(ours, theirs, scaling, C1, C2).item()


def ssim_by_loop(u: np.ndarray, v: np.ndarray, window: int = 11, sigma: float = 1.5) -> np.ndarray:
    """SSIM of two `(H, W)` images in float64, window by window, straight from the definition of each moment."""
    height, width = u.shape
    window = min(window, *(side if side % 2 else side - 1 for side in (height, width)))
    half = window // 2
    weights = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    found = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            rows = np.clip(np.arange(y - half, y + half + 1), 0, height - 1)
            columns = np.clip(np.arange(x - half, x + half + 1), 0, width - 1)
            a, b = (image[np.ix_(rows, columns)] for image in (u, v))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            means = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
            found[y, x] = means * (2 * covariance + C2) / (var_a + var_b + C2)
    return found


def loss_by_loop(ours: Tensor, theirs: Tensor) -> float:
    """Mean (1 − SSIM)/2 on the teacher's range, by the loop and NumPy's own moments."""
    x, y = (t.double().numpy().transpose(1, 0, 2, 3) for t in (ours, theirs))
    found = []
    for a, b in zip(x, y, strict=True):
        a, b = ((c - c.mean()) / c.std(ddof=1) for c in (a, b))
        low, high = b.min(), b.max()
        pairs = zip((a - low) / (high - low), (b - low) / (high - low), strict=True)
        found += [ssim_by_loop(*pair) for pair in pairs]
    return float(np.mean([(1 - each) / 2 for each in found]))


def smooth(*shape: int, right: int = 0, seed: int = 0) -> Tensor:
    """White noise averaged over 5×5 cells, read from column `right` on."""
    n, c, h, w = shape
    return F.avg_pool2d(noise(n, c, h + 4, w + 12, seed=seed), 5, 1)[..., right : right + w]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 16), st.integers(1, 16), st.sampled_from([3, 7, 11]))
def test_ssim_equals_a_loop_over_windows(seed: int, height: int, width: int, window: int) -> None:
    u, v = unit(2, 3, height, width, seed=seed), unit(2, 3, height, width, seed=seed + 1)
    v = 0.5 * u + 0.5 * v
    found = ssim(u, v, C1, C2, window).numpy()
    for n in range(2):
        for c in range(3):
            expected = ssim_by_loop(u[n, c].double().numpy(), v[n, c].double().numpy(), window)
            assert np.allclose(found[n, c], expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 3, 16, 12), (1, 2, 7, 11), (3, 1, 9, 9)])
def test_loss_equals_a_loop_over_windows(shape: tuple[int, ...]) -> None:
    theirs = noise(*shape) * 3 + 5
    ours = 0.2 * theirs + noise(*shape, seed=1)
    assert loss(ours, theirs) == pytest.approx(loss_by_loop(ours, theirs), abs=1e-5)


def test_memory_layout_does_not_count() -> None:
    ours, theirs = noise(2, 6, 12, 10), noise(2, 6, 12, 10, seed=1)
    last = loss(ours.contiguous(memory_format=torch.channels_last), theirs)
    assert last == pytest.approx(loss(ours, theirs), abs=1e-6)


@pytest.mark.parametrize("scaling", ["teacher", "minmax_raw"])
def test_loss_of_a_map_with_itself_is_zero(scaling: str) -> None:
    features = noise(2, 5, 16, 16) * 4 - 7
    assert 0 <= loss(features, features, scaling) < 1e-6


@pytest.mark.parametrize("scaling", ["teacher", "minmax_raw"])
def test_loss_of_the_negative_and_of_the_unrelated_is_as_specified(scaling: str) -> None:
    theirs, other = noise(4, 8, 32, 32), noise(4, 8, 32, 32, seed=1)
    assert loss(-theirs, theirs, scaling) == pytest.approx(0.97, abs=0.015)
    assert 0.47 < loss(other, theirs, scaling) < 0.49


def test_shift_by_two_cells_of_a_smooth_map_lies_between_equal_and_unrelated() -> None:
    shape = 4, 8, 32, 32
    theirs, shifted, other = smooth(*shape), smooth(*shape, right=2), smooth(*shape, seed=1)
    assert loss(shifted, theirs) == pytest.approx(0.30, abs=0.02)
    assert 0.05 < loss(smooth(*shape, right=1), theirs) < loss(shifted, theirs) < loss(other, theirs) - 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_loss_does_not_see_positive_scale_and_offset_of_the_student(seed: int, scale: float, offset: float) -> None:
    ours, theirs = noise(2, 4, 9, 9, seed=seed), noise(2, 4, 9, 9, seed=seed + 1)
    assert loss(ours * scale + offset, theirs) == pytest.approx(loss(ours, theirs), abs=1e-3 if scale < 1 else 1e-5)


def test_scale_of_one_channel_counts_on_the_raw_range_only() -> None:
    ours, theirs = noise(2, 4, 16, 16), noise(2, 4, 16, 16, seed=1)
    scaled = ours * torch.tensor([1.0, 2.0, 5.0, 10.0]).view(1, 4, 1, 1)
    assert loss(scaled, theirs) == pytest.approx(loss(ours, theirs), abs=1e-5)
    assert abs(loss(scaled, theirs, "minmax_raw") - loss(ours, theirs, "minmax_raw")) > 0.005


def test_raw_range_is_of_each_image() -> None:
    ours, theirs = noise(2, 3, 16, 16), noise(2, 3, 16, 16, seed=1)
    alone = [loss(ours[i : i + 1], theirs[i : i + 1], "minmax_raw") for i in range(2)]
    ours[1], theirs[1] = 5 * ours[1] + 3, 7 * theirs[1] - 2
    assert loss(ours, theirs, "minmax_raw") == pytest.approx(sum(alone) / 2, abs=1e-5)


def test_order_of_the_cells_counts() -> None:
    ours, theirs = smooth(2, 4, 16, 16, right=2), smooth(2, 4, 16, 16)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    mixed = [t.flatten(2)[..., order].view(t.shape) for t in (ours, theirs)]
    assert abs(loss(*mixed) - loss(ours, theirs)) > 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 4), st.integers(1, 13), st.integers(1, 13))
def test_loss_lies_in_the_unit_interval(seed: int, n: int, c: int, h: int, w: int) -> None:
    ours, theirs = noise(n, c, h, w, seed=seed), noise(n, c, h, w, seed=seed + 1)
    for scaling in ("teacher", "minmax_raw"):
        assert 0 <= loss(ours, theirs, scaling) <= 1


EDGES = {
    "dead student": (torch.zeros(2, 3, 8, 8), noise(2, 3, 8, 8)),
    "constant student": (torch.full((2, 3, 8, 8), 7.0), noise(2, 3, 8, 8)),
    "dead teacher": (noise(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
    "both dead": (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
    "one cell": (noise(1, 3, 1, 1), noise(1, 3, 1, 1, seed=1)),
    "one row": (noise(1, 3, 1, 9), noise(1, 3, 1, 9, seed=1)),
    "odd map": (noise(1, 3, 7, 11), noise(1, 3, 7, 11, seed=1)),
    "far scales": (noise(2, 3, 8, 8) * 1e4, noise(2, 3, 8, 8) * 1e-3),
}


@pytest.mark.parametrize("scaling", ["teacher", "minmax_raw"])
@pytest.mark.parametrize("edge", EDGES)
def test_value_and_gradient_stay_finite(edge: str, scaling: str) -> None:
    ours, theirs = EDGES[edge]
    ours = ours.clone().requires_grad_()
    found = structure_loss(ours, theirs, scaling, C1, C2)
    found.backward()
    assert 0 <= found.item() <= 1
    assert ours.grad is not None
    assert bool(torch.isfinite(ours.grad).all())


def test_rounding_of_a_flat_map_far_outside_the_range_makes_no_negative_variance() -> None:
    for side in (7, 8, 9, 16):
        found = ssim(torch.full((1, 1, side, side), 1000.0), torch.zeros(1, 1, side, side), C1, C2)
        assert bool((found >= 0).all())  # whose sign is the variances', as the covariance is 0


def test_gradient_of_a_dead_student_is_held_by_the_floor() -> None:
    theirs = noise(4, 8, 16, 16)
    usual, dead = noise(4, 8, 16, 16, seed=1).requires_grad_(), torch.zeros(4, 8, 16, 16, requires_grad=True)
    for ours in (usual, dead):
        structure_loss(ours, theirs, "teacher", C1, C2).backward()
    assert usual.grad is not None
    assert dead.grad is not None
    assert 0 < float(dead.grad.norm()) < 3e3 * float(usual.grad.norm())


def test_dead_teacher_channel_is_left_out_of_the_mean() -> None:
    ours, theirs = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    living = loss(ours[:, :2], theirs[:, :2])
    theirs[:, 2] = 0.5
    assert loss(ours, theirs) == pytest.approx(living, abs=1e-6)


def test_gradient_equals_finite_differences() -> None:
    ours, theirs = noise(2, 2, 7, 8).double().requires_grad_(), noise(2, 2, 7, 8, seed=1).double()
    for scaling in ("teacher", "minmax_raw"):
        torch.autograd.gradcheck(lambda x, how=scaling: structure_loss(x, theirs, how, C1, C2), ours, atol=1e-6)


def test_gradient_in_the_direction_of_scale_and_offset_is_nothing() -> None:
    ours, theirs = noise(2, 3, 8, 8).requires_grad_(), noise(2, 3, 8, 8, seed=1)
    structure_loss(ours, theirs, "teacher", C1, C2).backward()
    assert ours.grad is not None
    assert float(ours.grad.abs().max()) > 1e-4
    centred = ours.detach() - ours.detach().mean(dim=(0, 2, 3), keepdim=True)
    assert float((ours.grad * centred).sum(dim=(0, 2, 3)).abs().max()) < 1e-5
    assert float(ours.grad.sum(dim=(0, 2, 3)).abs().max()) < 1e-5
