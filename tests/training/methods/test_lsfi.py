"""LSFI, the imitation in FAD: energies, attention and their weights, by definition and by invariance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.training.methods import Scene, Taps
from edgekd.training.methods._correlation import correlation_loss
from edgekd.training.methods._lsfi import channel_energy, spatial_energies
from edgekd.training.methods._standardise import standardised
from edgekd.training.methods.fad import FAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

SCENE = Scene([], [], 64, 64, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def imitation(ours: Mapping[int, Tensor], theirs: Mapping[int, Tensor], **options: Any) -> dict[int, float]:
    method = FAD(alpha=1, beta=0, gamma=0, **options)
    adapters = method.adapters({level: (x.shape[1], x.shape[1]) for level, x in theirs.items()})
    found = method(Taps(ours), Taps(theirs), adapters, SCENE)
    return {level: found[f"lsfi.p{level}"].item() for level in theirs}


def lsfi(ours: Tensor, theirs: Tensor, **options: Any) -> float:
    return imitation({3: ours}, {3: theirs}, **options)[3]


def attention(features: Tensor, **options: Any) -> Tensor:
    method = FAD(**options)
    adapters = method.adapters({3: (features.shape[1], features.shape[1])})
    return method.observe(Taps({3: features}), Taps({3: features}), adapters, SCENE).maps["teacher attention"][3]


def energy_by_loop(features: Tensor, scales: tuple[int, ...]) -> Tensor:
    """E of one map `(N, C, H, W)` at its definition; interpolated by hand between the centres of the k×k cells."""
    n, _, height, width = features.shape
    magnitude = features.double().abs()
    parts = [magnitude.mean(1), magnitude.amax(1)]
    e = sum(part / part.mean((1, 2), keepdim=True) for part in parts) / 2
    total = torch.zeros(n, height, width, dtype=torch.float64)
    for k in scales:
        rows, columns = -(-height // k), -(-width // k)
        pooled = torch.stack(
            [e[:, k * i : k * i + k, k * j : k * j + k].mean((1, 2)) for i in range(rows) for j in range(columns)], 1
        ).view(n, rows, columns)
        for y in range(height):
            for x in range(width):
                v, u = max((y + 0.5) / k - 0.5, 0), max((x + 0.5) / k - 0.5, 0)
                i, j = int(v), int(u)
                below, right = min(i + 1, rows - 1), min(j + 1, columns - 1)
                a, b = v - i, u - j
                upper = (1 - b) * pooled[:, i, j] + b * pooled[:, i, right]
                lower = (1 - b) * pooled[:, below, j] + b * pooled[:, below, right]
                total[:, y, x] += ((1 - a) * upper + a * lower) / len(scales)
    return total


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(7, 14), st.integers(7, 14), st.sampled_from([(1,), (1, 2, 4), (3,), (2, 5)]))
def test_spatial_energy_equals_its_definition(seed: int, height: int, width: int, scales: tuple[int, ...]) -> None:
    features = noise(2, 3, height, width, seed=seed)
    found = spatial_energies({3: features}, scales, refine=True)[3]
    assert torch.allclose(found.double(), energy_by_loop(features, scales), atol=1e-5)


def test_refinement_averages_each_level_with_the_refined_coarser_one() -> None:
    maps = {4: noise(2, 3, 10, 8, seed=1), 3: noise(2, 3, 20, 16), 5: noise(2, 3, 5, 4, seed=2)}
    alone, refined = (spatial_energies(maps, (1, 2, 4), refine=refine) for refine in (False, True))
    assert torch.equal(refined[5], alone[5])
    for level in (4, 3):
        above = torch.nn.functional.interpolate(refined[level + 1][:, None], scale_factor=2.0, mode="bilinear")[:, 0]
        assert torch.allclose(refined[level], (alone[level] + above) / 2, atol=1e-6)


def test_switches_of_the_attention_change_it() -> None:
    features = noise(2, 4, 16, 16).exp()
    coarser = {3: features, 4: noise(2, 4, 8, 8).exp()}
    assert not torch.allclose(attention(features, scales=(1,)), attention(features), atol=1e-2)
    assert not torch.allclose(attention(features, tau_s=1.0), attention(features), atol=1e-2)
    ours = {level: noise(2, 4, *x.shape[2:], seed=5) for level, x in coarser.items()}
    refined, alone = (imitation(ours, coarser, refine=refine) for refine in (True, False))
    assert refined[4] == alone[4]
    assert refined[3] != pytest.approx(alone[3], rel=1e-3)


def test_attention_has_mean_one_and_does_not_see_the_maps_scale() -> None:
    features = noise(3, 5, 16, 16).exp()
    for scale in (1.0, 1e-3, 1e3):
        found = attention(features * scale)
        assert torch.allclose(found.mean(dim=(1, 2)), torch.ones(3), atol=1e-5)
        assert torch.allclose(found, attention(features), rtol=1e-3)
    assert torch.allclose(attention(torch.full((2, 4, 9, 9), -3.0)), torch.ones(2, 9, 9), atol=1e-5)


def test_channel_energy_is_its_definition() -> None:
    features = noise(2, 6, 8, 8)
    mean, peak = features.abs().mean(dim=(2, 3)), features.abs().amax(dim=(2, 3))
    expected = (mean / mean.mean(1, keepdim=True) + peak / peak.mean(1, keepdim=True)) / 2
    assert torch.allclose(channel_energy(features), expected, atol=1e-6)
    assert torch.allclose(channel_energy(torch.ones(2, 6, 8, 8)), torch.ones(2, 6))


def test_imitation_equals_its_definition_and_its_weights_have_mean_one() -> None:
    ours, theirs = noise(2, 4, 16, 16), noise(2, 4, 16, 16, seed=1).exp()
    cells = attention(theirs, tau_s=0.7).double().view(2, 1, 16, 16)
    channels = 4 * (channel_energy(theirs).double() / 0.4).softmax(1).view(2, 4, 1, 1)
    weights = {"both": cells * channels, "spatial": cells, "channel": channels}
    error = (ours - theirs).double().square() / theirs.double().square().mean()
    found = {which: lsfi(ours, theirs, lsfi=which, tau_s=0.7, tau_c=0.4) for which in weights}
    for which, weight in weights.items():
        assert float(weight.expand_as(error).mean()) == pytest.approx(1, abs=1e-5)
        assert found[which] == pytest.approx(float((error * weight).mean()), rel=1e-4)
    assert len({round(value, 3) for value in found.values()}) == 3


def test_imitation_of_uniform_magnitudes_is_the_mean_square_over_the_teachers() -> None:
    theirs = torch.where(noise(2, 4, 8, 8, seed=1) > 0, 2.0, -2.0)
    ours = noise(2, 4, 8, 8)
    expected = float((ours - theirs).square().mean() / 4)
    assert lsfi(ours, theirs) == pytest.approx(expected, rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_imitation_does_not_see_a_common_scale(seed: int, scale: float) -> None:
    ours, theirs = noise(2, 4, 8, 8, seed=seed), noise(2, 4, 8, 8, seed=seed + 1)
    scaled = lsfi(ours * scale, theirs * scale)
    assert scaled == pytest.approx(lsfi(ours, theirs), rel=1e-3)


def test_imitation_of_standardised_maps_with_equal_weights_is_twice_the_correlation_loss() -> None:
    ours, theirs = noise(2, 4, 8, 8) * 5 + 2, noise(2, 4, 8, 8, seed=1)
    z_ours, z_theirs, alive = standardised(ours, theirs)
    assert bool(alive.all())
    assert float((z_ours - z_theirs).square().mean()) == pytest.approx(
        2 * correlation_loss(ours, theirs).item(), rel=1e-5
    )
    even = {"tau_s": 1e6, "tau_c": 1e6, "imitate": "standardised"}
    m = 2 * 8 * 8
    # standardised maps have a mean square of (m - 1)/m, over which imitation_loss divides
    twice = 2 * correlation_loss(ours, theirs).item() * m / (m - 1)
    assert lsfi(ours, theirs, **even) == pytest.approx(twice, rel=1e-4)
