"""XFKD: the mix's closed form and invariances, and the faults that "released" has and "intended" has not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import RecipeError
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods._cbam import CBAM
from edgekd.training.methods._dual_attention import DualAttention, pooled, relation_divergence
from edgekd.training.methods._focal import Attention, magnitude_attention
from edgekd.training.methods._mix import mixed
from edgekd.training.methods._released import BatchStatistics, _released_distance
from edgekd.training.methods.fgd import FGD
from edgekd.training.methods.xfkd import XFKD

BOXES = [torch.tensor([[4.0, 6, 30, 40], [20, 8, 55, 30]]), torch.tensor([[33.0, 30, 64, 64]])]
SCENE = Scene(BOXES, [torch.zeros(len(boxes), dtype=torch.long) for boxes in BOXES], 64, 64, 3, 10)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def run(
    method: XFKD | FGD, ours: Tensor, theirs: Tensor, scene: Scene = SCENE, adapters: nn.Module | None = None
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    adapters = adapters or method.adapters({3: (ours.shape[1], theirs.shape[1])})
    losses = method(Taps({3: ours}), Taps({3: theirs}), adapters, scene)
    return {name.removesuffix(".p3"): loss for name, loss in losses.items()}


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def slope(method: XFKD, ours: Tensor, theirs: Tensor, term: str, adapters: nn.Module | None = None) -> Tensor:
    """The gradient of one term in the student's map."""
    ours = ours.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(run(method, ours, theirs, adapters=adapters)[term], ours)
    return gradient


def cosine(a: Tensor, b: Tensor) -> float:
    """The mean over channels of the cosine of the centred maps."""
    x, y = (t - t.mean(dim=(0, 2, 3), keepdim=True) for t in (a, b))
    return float(F.cosine_similarity(x.transpose(0, 1).flatten(1), y.transpose(0, 1).flatten(1)).mean())


# The mix.


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2), st.floats(-0.95, 0.95))
def test_mix_has_the_closed_form_in_the_correlation(seed: int, rho: float, like: float) -> None:
    theirs = noise(2, 4, 8, 8, seed=seed)
    ours = 3 * (like * theirs + noise(2, 4, 8, 8, seed=seed + 1)) - 7
    x, y = (t.double() - t.double().mean(dim=(0, 2, 3), keepdim=True) for t in (ours, theirs))
    r = (x * y).sum((0, 2, 3)) / (x.square().sum((0, 2, 3)) * y.square().sum((0, 2, 3))).sqrt()
    m, t, alive = mixed(ours, theirs, "pre_norm", rho)
    expected = 1 - (rho + r) / (1 + rho**2 + 2 * rho * r).sqrt()
    found = 0.5 * (m - t).square().mean(dim=(0, 2, 3))
    assert bool(alive.all())
    assert torch.allclose(found, expected.float(), atol=2e-5)


def test_mix_at_rho_one_is_one_minus_the_root_of_half_of_one_plus_r() -> None:
    theirs, other = (F.layer_norm(noise(1, 1, 32, 32, seed=seed), (32, 32)) for seed in (0, 1))
    other = F.layer_norm(other - (other * theirs).mean() * theirs, (32, 32))
    for r, expected in ((1, 0.0), (0.5, 0.1340), (0, 0.2929), (-0.5, 0.5), (-0.9, 0.7764)):
        m, t, _ = mixed(r * theirs + math.sqrt(1 - r**2) * other, theirs, "pre_norm", 1.0)
        assert float(0.5 * (m - t).square().mean()) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("mode", ["pre_norm", "none"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), offset=st.floats(-20, 20))
def test_mix_does_not_see_scale_and_offset_of_either_side(mode: str, seed: int, scale: float, offset: float) -> None:
    ours, theirs = noise(2, 4, 8, 8, seed=seed), noise(2, 4, 8, 8, seed=seed + 1)
    plain = mixed(ours, theirs, mode, 1.0)
    for other in (mixed(ours * scale + offset, theirs, mode, 1.0), mixed(ours, theirs * scale + offset, mode, 1.0)):
        assert torch.allclose(plain.ours, other.ours, atol=2e-3)
        assert torch.allclose(plain.theirs, other.theirs, atol=2e-3)


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_floor_of_a_deviation_goes_with_the_teachers(scale: float) -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    plain, scaled = mixed(ours, theirs, "pre_norm", 1.0), mixed(scale * ours, scale * theirs, "pre_norm", 1.0)
    assert torch.allclose(plain.ours, scaled.ours, atol=1e-4)
    assert bool(scaled.alive.all())


@pytest.mark.parametrize("ratio", [2e-3, 1e-2, 0.1, 1, 10, 1e3])
def test_descent_goes_towards_the_teacher_at_any_scale_and_never_shrinks(ratio: float) -> None:
    theirs, ours = noise(4, 16, 16, 16), (ratio * noise(4, 16, 16, 16, seed=1)).requires_grad_()
    m, t, _ = mixed(ours, theirs, "pre_norm", 1.0)
    (gradient,) = torch.autograd.grad((m - t).square().sum(), ours)
    assert cosine(-gradient, theirs) == pytest.approx(0.999, abs=0.002)
    assert abs(cosine(gradient, ours.detach())) < 1e-3


@pytest.mark.parametrize(("ratio", "expected"), [(2, 0.90), (1, 0.71), (0.5, 0.45), (0.1, 0.10)])
def test_descent_of_the_plain_sum_shrinks_a_small_student(ratio: float, expected: float) -> None:
    theirs, ours = noise(4, 32, 16, 16), (ratio * noise(4, 32, 16, 16, seed=1)).requires_grad_()
    m, t, _ = mixed(ours, theirs, "sum", 1.0)
    (gradient,) = torch.autograd.grad((m - t).square().sum(), ours)
    assert cosine(-gradient, theirs) == pytest.approx(expected, abs=0.02)
    assert cosine(gradient, ours.detach()) == pytest.approx(1 / math.sqrt(1 + ratio**2), abs=0.02)


def test_dead_channel_of_the_student_costs_as_much_as_an_unrelated_one_or_more() -> None:
    theirs, ours = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    ours[:, 1] = 4.0
    leaf = ours.clone().requires_grad_()
    m, t, _ = mixed(leaf, theirs, "pre_norm", 1.0)
    error = (m - t).square().mean(dim=(0, 2, 3))
    assert error[1].item() == pytest.approx(1, abs=1e-3)
    assert error[1].item() > error[0].item()
    error.sum().backward()
    norms = leaf.grad.square().sum(dim=(0, 2, 3)).sqrt()  # type: ignore[union-attr]
    assert 10 < float(norms[1] / norms[0]) < 5e3  # twice standardised it would be a million times


def test_dead_channel_of_the_teacher_does_not_count() -> None:
    theirs, ours = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    theirs[:, 1] = 4.0
    assert mixed(ours, theirs, "pre_norm", 1.0).alive.tolist() == [True, False, True]
    gradients = [slope(XFKD(), ours, theirs, term)[:, 1] for term in ("fg", "bg", "gc")]
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients)


def test_schedule_goes_from_rho_to_none() -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    ends = [dataclasses.replace(SCENE, step=step) for step in (0, 9)]
    first, last = (values(run(XFKD(rho_schedule="linear"), ours, theirs, scene)) for scene in ends)
    assert first == pytest.approx(values(run(XFKD(), ours, theirs)))
    assert last == pytest.approx(values(run(XFKD(mode="none"), ours, theirs)))
    middle = values(run(XFKD(rho_schedule="linear"), ours, theirs))
    assert middle == pytest.approx(values(run(XFKD(rho=1 - 3 / 9), ours, theirs)))
    single = dataclasses.replace(SCENE, step=0, steps=1)
    assert values(run(XFKD(rho_schedule="linear"), ours, theirs, single)) == pytest.approx(first)


# The terms.


def test_without_a_mix_it_is_fgd_on_standardised_maps() -> None:
    """The same code takes its attention from raw maps, so both sides are standardised here to begin with."""
    ours, theirs = (mixed(t, t, "none", 1.0).theirs for t in (noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)))
    found = values(run(XFKD(mode="none", gamma=5e-4), ours, theirs))
    assert found == pytest.approx(values(run(FGD(), ours, theirs)), rel=1e-4)


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (3, -2), (0.1, 5)])
def test_student_equal_to_the_teacher_up_to_scale_and_offset_costs_only_attention(scale: float, offset: float) -> None:
    theirs = noise(2, 4, 8, 8)
    found = values(run(XFKD(alpha=1, beta=1, gamma=1, lambda_=1), scale * theirs + offset, theirs))
    assert max(found["fg"], found["bg"]) < 1e-6
    assert found["gc"] < 1e-4  # a sum over 256 values
    assert (found["mask"] == 0) == (scale == 1 and offset == 0)


def test_opposite_of_the_teacher_stays_below_the_bound() -> None:
    """(M - t)² is at most 4 a value on the mean of a channel; at r = -1 the mix is flat, and it is 1."""
    theirs = noise(2, 4, 8, 8)
    found = values(run(XFKD(gc="mean"), -theirs, theirs))
    assert found["gc"] == pytest.approx(1, abs=1e-2)
    almost = values(run(XFKD(gc="mean"), -theirs + 1e-4 * noise(2, 4, 8, 8, seed=1), theirs))
    assert 0.5 < almost["gc"] <= 4


def test_shortcut_of_the_sum_is_none_of_pre_norm() -> None:
    theirs = noise(2, 4, 8, 8)
    weights = {"alpha": 1.0, "beta": 1.0}
    for ours in (torch.zeros(2, 4, 8, 8), 1e-4 * noise(2, 4, 8, 8, seed=1)):
        assert run(XFKD(mode="sum", **weights), ours, theirs)["fg"].item() < 1e-5  # type: ignore[arg-type]
        assert run(XFKD(**weights), ours, theirs)["fg"].item() > 0.1  # type: ignore[arg-type]


def test_context_as_a_mean_is_the_sum_over_its_values() -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    mean, total = run(XFKD(gc="mean"), ours, theirs)["gc"], run(XFKD(lambda_=1.0), ours, theirs)["gc"]
    assert mean.item() == pytest.approx(total.item() / (4 * 8 * 8))
    assert run(XFKD(), ours, theirs)["gc"].item() == pytest.approx(5e-6 * total.item())


def test_weights_multiply_their_terms() -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    ones = values(run(XFKD(alpha=1, beta=1, gamma=1, lambda_=1, dan=True, omega=1), ours, theirs))
    found = values(run(XFKD(alpha=2, beta=3, gamma=5, lambda_=7, dan=True, omega=11), ours, theirs))
    expected = {"fg": 2, "bg": 3, "mask": 5, "gc": 7, "dan": 11}
    assert {name: found[name] / ones[name] for name in ones} == pytest.approx(expected, rel=1e-5)


def test_skipping_empty_images_divides_by_those_that_are_left() -> None:
    """With statistics as if nothing had been left out: the batch is the same picture twice."""
    ours, theirs = (noise(1, 4, 8, 8, seed=seed).repeat(2, 1, 1, 1) for seed in (0, 1))
    one_empty = dataclasses.replace(SCENE, boxes=[BOXES[0], torch.zeros(0, 4)])
    both = dataclasses.replace(SCENE, boxes=[BOXES[0], BOXES[0]])
    skipped = values(run(XFKD(skip_empty=True), ours, theirs, one_empty))
    assert skipped == pytest.approx(values(run(XFKD(skip_empty=True), ours, theirs, both)))
    kept = values(run(XFKD(), ours, theirs, one_empty))
    assert kept["fg"] == pytest.approx(skipped["fg"] / 2)
    assert kept["bg"] > 0.6 * skipped["bg"]
    nothing = values(
        run(XFKD(skip_empty=True), ours, theirs, dataclasses.replace(SCENE, boxes=[torch.zeros(0, 4)] * 2))
    )
    assert set(nothing.values()) == {0.0}


def test_normalised_attention_does_not_see_the_scale_of_a_map() -> None:
    features = noise(2, 4, 8, 8)
    for one, other in zip(
        magnitude_attention(features, 0.5, normalise=True),
        magnitude_attention(1e3 * features, 0.5, normalise=True),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-4)
    loud = magnitude_attention(1e3 * features, 0.5).spatial
    assert float(loud.max()) > 10 * float(magnitude_attention(features, 0.5).spatial.max())


def test_observe_shows_what_the_call_weighs() -> None:
    method = XFKD(adapt="always")
    student, teacher = Taps({3: noise(2, 4, 8, 8)}), Taps({3: noise(2, 6, 8, 8, seed=1)})
    seen = method.observe(student, teacher, method.adapters({3: (4, 6)}), SCENE)
    assert seen.aligned[3].shape == (2, 6, 8, 8)
    assert torch.equal(seen.maps["teacher attention"][3], magnitude_attention(teacher.features[3], 0.5).spatial)
    assert torch.allclose(seen.maps["student attention"][3].mean(dim=(1, 2)), torch.ones(2), atol=1e-5)
    released = XFKD(variant="released")
    seen = released.observe(teacher, teacher, released.adapters({3: (6, 6)}), SCENE)
    assert torch.equal(seen.aligned[3], teacher.features[3])


# The dual attention and CBAM.


def test_dual_attention_starts_as_twice_the_map_and_equals_its_formula() -> None:
    torch.manual_seed(0)
    parts, features = DualAttention(8), noise(1, 8, 3, 4)
    assert torch.allclose(parts(features), 2 * features)
    parts.cell_scale.data.fill_(0.7)
    parts.channel_scale.data.fill_(-0.3)
    flat = features[0].flatten(1)
    query, key, value = (conv(features)[0].flatten(1) for conv in (parts.query, parts.key, parts.value))
    cells = torch.stack([value @ (query[:, i] @ key).softmax(dim=0) for i in range(12)], dim=1)
    affinity = flat @ flat.T
    channels = torch.stack([(row.max() - row).softmax(dim=0) @ flat for row in affinity])
    expected = 2 * flat + 0.7 * cells - 0.3 * channels
    assert torch.allclose(parts(features)[0].flatten(1), expected, atol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [((52, 33), (26, 17)), ((32, 8), (32, 8)), ((100, 168), (25, 28))])
def test_dual_attention_sees_at_most_thirty_two_cells_a_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert pooled(torch.ones(1, 2, *size)).shape == (1, 2, *expected)
    assert torch.equal(pooled(torch.ones(1, 2, *size)), torch.ones(1, 2, *expected))


def test_divergence_is_zero_for_equal_maps_and_its_scales_learn() -> None:
    """The authors detach both sides, so that nothing learns."""
    ours, theirs = noise(2, 8, 6, 6), noise(2, 8, 6, 6, seed=1)
    parts = DualAttention(8)
    assert relation_divergence(theirs, theirs, parts).abs().max().item() < 1e-6
    relation_divergence(ours, theirs, parts).sum().backward()
    for scale in (parts.cell_scale, parts.channel_scale):
        assert float(scale.grad.abs()) > 1e-4  # type: ignore[arg-type]


def test_divergence_is_of_the_student_from_the_teacher_on_pooled_maps() -> None:
    ours, theirs = noise(2, 8, 40, 6), noise(2, 8, 40, 6, seed=1)
    q, p = ((2 * F.avg_pool2d(f, (2, 1))).flatten(2).softmax(dim=2) for f in (ours, theirs))
    found = relation_divergence(ours, theirs, DualAttention(8)).detach()
    assert torch.allclose(found, (p * (p / q).log()).sum(dim=2), atol=1e-5)


def test_gates_are_those_of_cbam() -> None:
    torch.manual_seed(0)
    gates, magnitudes = CBAM(32), noise(2, 32, 6, 5).abs()
    cells, channels = gates(magnitudes)
    pair = torch.stack([magnitudes.max(dim=1).values, magnitudes.mean(dim=1)], dim=1)
    assert torch.allclose(cells, F.conv2d(pair, gates.cells.weight, padding=3)[:, 0].sigmoid())
    first, last = gates.channels[0].weight, gates.channels[2].weight
    assert first.shape == (2, 32)
    pools = (magnitudes.flatten(2).max(dim=2).values, magnitudes.mean(dim=(2, 3)))
    assert torch.allclose(channels, sum((p @ first.T).relu() @ last.T for p in pools).sigmoid(), atol=1e-6)  # type: ignore[union-attr]


# What the authors' code computes, and what of it "intended" has not: the findings by their number.


def test_2_released_takes_boxes_in_pixels_too() -> None:
    method = XFKD(variant="released")
    maps = Taps({3: noise(2, 4, 8, 8)})
    seen = method.observe(maps, maps, method.adapters({3: (4, 4)}), SCENE).maps["foreground"][3]
    assert seen[1].nonzero().amin(dim=0).tolist() == [3, 4]


def test_3_box_at_the_border_counts_whole_in_intended_only() -> None:
    maps = Taps({3: noise(2, 4, 8, 8)})
    sums = {}
    for variant in ("intended", "released"):
        method = XFKD(variant=variant)
        seen = method.observe(maps, maps, method.adapters({3: (4, 4)}), SCENE).maps["foreground"][3]
        sums[variant] = float(seen[1].sum())
    assert sums["intended"] == pytest.approx(1)
    assert sums["released"] == pytest.approx(4 / 5 * 5 / 6)  # columns 4 to 8 and rows 3 to 8, without the eighth ones


def test_4_attention_of_released_does_not_see_the_teacher_and_wants_to_be_flat() -> None:
    ours, theirs, other = (
        Attention(F.softmax(noise(2, 64, seed=seed), 1).view(2, 8, 8) * 64, F.softmax(noise(2, 4, seed=seed), 1) * 4)
        for seed in (0, 1, 2)
    )
    assert torch.allclose(_released_distance(ours, theirs), _released_distance(ours, other), atol=1e-6)
    flat = Attention(torch.ones(2, 8, 8), torch.ones(2, 4))
    assert torch.allclose(_released_distance(flat, theirs), torch.ones(2))
    assert bool((_released_distance(theirs, theirs) > 1).all())


def test_4_attention_of_intended_sees_the_teacher() -> None:
    ours = noise(2, 4, 8, 8)
    first, second = (slope(XFKD(), ours, noise(2, 4, 8, 8, seed=seed), "mask") for seed in (1, 2))
    assert not torch.allclose(first, second, atol=1e-3 * float(first.abs().max()))


def test_4_released_costs_its_floor_where_student_and_teacher_are_one() -> None:
    theirs = noise(2, 4, 8, 8)
    found = values(run(XFKD(variant="released"), theirs, theirs))
    assert found["mask"] == pytest.approx(1e-3, rel=1e-2)  # gamma x (0.5 + 0.5)
    assert found["fg"] + found["bg"] + found["gc"] < 1e-5


def test_5_released_relation_shifts_the_value_and_has_no_slope() -> None:
    method = XFKD(variant="released", lambda_=1.0)
    torch.manual_seed(0)
    adapters = method.adapters({3: (4, 4)})
    assert not any("dan" in name for name, _ in adapters.named_parameters())
    ours, theirs = noise(2, 4, 8, 8).requires_grad_(), noise(2, 4, 8, 8, seed=1)
    gc = run(method, ours, theirs, adapters=adapters)["gc"]
    s, t = adapters.get_submodule("student_norm.p3")(ours + theirs), adapters.get_submodule("teacher_norm.p3")(theirs)
    offsets = (adapters.get_submodule(f"{side}_context.p3")(f) for side, f in (("student", s), ("teacher", t)))
    r_s, r_t = (f + offset for f, offset in zip((s, t), offsets, strict=True))
    plain = (r_s - r_t).square().sum() / 2
    relation = F.binary_cross_entropy((2 * s).softmax(2), (2 * t).softmax(2)).item() / 2
    assert gc.item() == pytest.approx(plain.item() + relation, rel=1e-5)
    slopes = [torch.autograd.grad(loss, ours, retain_graph=True)[0] for loss in (gc, plain)]
    assert torch.allclose(*slopes, atol=1e-5)


def test_5_dual_attention_of_intended_learns() -> None:
    method = XFKD(dan=True)
    adapters = method.adapters({3: (8, 8)})
    run(method, noise(2, 8, 8, 8), noise(2, 8, 8, 8, seed=1), adapters=adapters)["dan"].backward()
    for name in ("cell_scale", "channel_scale"):
        assert float(adapters.get_parameter(f"dan.p3.{name}").grad.abs()) > 1e-5  # type: ignore[union-attr]


def test_6_flat_student_and_any_positive_scale_satisfy_released() -> None:
    theirs = noise(2, 4, 8, 8)
    for ours in (torch.zeros(2, 4, 8, 8), torch.full((2, 4, 8, 8), 3.0), 0.5 * theirs - 1, -0.5 * theirs):
        found = values(run(XFKD(variant="released", alpha=1, beta=1), ours, theirs))
        assert found["fg"] + found["bg"] < 1e-5
    for ours in (torch.zeros(2, 4, 8, 8), torch.full((2, 4, 8, 8), 3.0), -0.5 * theirs):
        assert run(XFKD(alpha=1), ours, theirs)["fg"].item() > 0.1


def test_6_released_shrinks_a_small_student_and_intended_does_not() -> None:
    theirs, ours = noise(2, 16, 16, 16), 0.1 * noise(2, 16, 16, 16, seed=1)
    over_all = dataclasses.replace(SCENE, boxes=[torch.tensor([[0.0, 0, 64, 64]])] * 2)
    shrinking = {}
    for variant in ("intended", "released"):
        leaf = ours.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(run(XFKD(variant=variant), leaf, theirs, over_all)["gc"], leaf)
        shrinking[variant] = cosine(gradient, ours)
    assert shrinking["released"] > 0.95
    assert abs(shrinking["intended"]) < 0.01


def test_7_only_released_has_scales_that_can_shrink_what_is_compared() -> None:
    def scales(variant: str) -> int:
        adapters = XFKD(variant=variant).adapters({3: (4, 4)})
        return sum(isinstance(module, (BatchStatistics, nn.BatchNorm2d)) for module in adapters.modules())

    assert (scales("intended"), scales("released")) == (0, 2)


def test_8_context_blocks_start_as_the_identity_in_intended_only() -> None:
    for variant, identity in (("intended", True), ("released", False)):
        adapters = XFKD(variant=variant).adapters({3: (32, 32)})
        for side in ("student", "teacher"):
            weight = adapters.get_parameter(f"{side}_context.p3.expand.weight")
            assert bool((weight == 0).all()) == identity
            assert identity or weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_9_attention_that_weighs_the_loss_learns_from_it_in_released_only() -> None:
    ours, theirs = noise(2, 32, 8, 8), noise(2, 32, 8, 8, seed=1)
    released = XFKD(variant="released")
    adapters = released.adapters({3: (32, 32)})
    run(released, ours, theirs, adapters=adapters)["fg"].backward()
    assert float(adapters.get_parameter("attention.p3.cells.weight").grad.abs().max()) > 0  # type: ignore[union-attr]

    intended = XFKD(attention="cbam")
    adapters = intended.adapters({3: (32, 32)})
    losses = run(intended, ours.requires_grad_(), theirs, adapters=adapters)
    (losses["fg"] + losses["bg"]).backward(retain_graph=True)
    gates = [adapters.get_parameter(f"{side}_attention.p3.cells.weight") for side in ("student", "teacher")]
    assert torch.equal(*gates)
    assert [gate.requires_grad for gate in gates] == [True, False]
    assert gates[0].grad is None
    losses["mask"].backward()
    assert float(gates[0].grad.abs().max()) > 0  # type: ignore[union-attr]


def test_10_channel_attention_tells_channels_apart_on_raw_maps_and_not_on_standardised_ones() -> None:
    theirs = noise(2, 8, 16, 16) * torch.linspace(0.3, 2, 8).view(8, 1, 1)
    raw = magnitude_attention(theirs, 0.5).channel
    flat = magnitude_attention(BatchStatistics(8)(theirs), 0.5).channel
    assert raw.max() / raw.min() > 5
    assert flat.max() / flat.min() < 1.4
    costs = []
    for channel in (0, 7):  # as far off in either, once standardised
        ours = theirs.clone()
        ours[:, channel] = noise(2, 16, 16, seed=1)
        costs.append(run(XFKD(), ours, theirs)["fg"].item())
    assert costs[1] > 3 * costs[0]


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "paper"}, "variant is 'paper'; possible: intended, released"),
        ({"mode": "mean"}, "mode is 'mean'; possible: pre_norm, sum, none"),
        ({"rho_schedule": "cosine"}, "rho_schedule is 'cosine'; possible: constant, linear"),
        ({"attention": "se"}, "attention is 'se'; possible: fgd, cbam"),
        ({"gc": "max"}, "gc is 'max'; possible: sum, mean"),
        ({"adapt": "never"}, "adapt is 'never'; possible: auto, always"),
        ({"tau": 0.0}, "tau is 0.0; it should be above 0"),
        ({"rho": -0.1}, "rho is -0.1; it should be 0 or above"),
        ({"mode": "none", "rho": 0.5}, "rho has no effect; possible: pre_norm, sum"),
        ({"mode": "none", "rho_schedule": "linear"}, "rho has no effect; possible: pre_norm, sum"),
        ({"attention": "cbam", "att_norm": True}, "possible: attention 'fgd'"),
        ({"omega": 2.0}, "possible: dan = true"),
        (
            {"variant": "released", "mode": "sum", "dan": True},
            "no mode, dan; possible: alpha, beta, gamma, lambda_, tau",
        ),
    ],
)
def test_impossible_options_name_the_possible_ones(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        XFKD(**options)


def test_released_refuses_unequal_channels() -> None:
    with pytest.raises(
        RecipeError, match=r"p4 has 8 channels in the student and 16 in the teacher; possible: .*intended"
    ):
        XFKD(variant="released").adapters({3: (8, 8), 4: (8, 16)})
