"""FGD's terms against their formulas, in double precision and image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods._attention import channel_attention, spatial_attention
from edgekd.training.methods._context import GcBlock
from edgekd.training.methods._masks import box_masks
from edgekd.training.methods.fgd import FGD

BOXES = [torch.tensor([[4.0, 6, 30, 40], [20, 8, 55, 30]]), torch.zeros(0, 4), torch.tensor([[33.0, 30, 64, 64]])]
SCENE = Scene(BOXES, [torch.zeros(len(boxes), dtype=torch.long) for boxes in BOXES], 64, 64, 0, 10)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block(features: Tensor, parts: GcBlock) -> Tensor:
    """R(F) of one image `(C, H, W)`, cell by cell."""
    cells = features.flatten(1)
    weights = torch.stack([(parts.where.weight.flatten() * cell).sum() for cell in cells.T]).softmax(dim=0)
    context = sum(weight * cell for weight, cell in zip(weights, cells.T, strict=True))
    hidden = parts.squeeze.weight.flatten(1) @ context + parts.squeeze.bias
    hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
    hidden = hidden * parts.norm.weight.flatten() + parts.norm.bias.flatten()
    return features + (parts.expand.weight.flatten(1) @ hidden.relu() + parts.expand.bias)[:, None, None]


def attention(features: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """A^S `(H, W)` and A^C `(C,)` of one image."""
    cells, channels = features.abs().mean(0), features.abs().mean((1, 2))
    spatial = (cells / tau).exp() / (cells / tau).exp().sum() * cells.numel()
    return spatial, (channels / tau).exp() / (channels / tau).exp().sum() * len(channels)


def terms(ours: Tensor, theirs: Tensor, adapters: torch.nn.Module, method: FGD) -> dict[str, float]:
    masks = box_masks(BOXES, (64, 64), (8, 8))
    totals = dict.fromkeys(("fg", "bg", "mask", "gc"), 0.0)
    for index, (s, t) in enumerate(zip(ours, theirs, strict=True)):
        (spatial_s, channel_s), (spatial_t, channel_t) = attention(s, method.tau), attention(t, method.tau)
        weight = spatial_t * channel_t[:, None, None]
        totals["fg"] += float((masks.foreground[index] * weight * (s - t) ** 2).sum())
        totals["bg"] += float((masks.background[index] * weight * (s - t) ** 2).sum())
        totals["mask"] += float((channel_s - channel_t).abs().sum() + (spatial_s - spatial_t).abs().sum())
        pair = (adapters.get_submodule(f"{side}_context.p3") for side in ("student", "teacher"))
        r_s, r_t = (block(f, part) for f, part in zip((s, t), pair, strict=True))  # type: ignore[arg-type]
        totals["gc"] += float(((r_s - r_t) ** 2).sum())
    return {name: total / len(ours) for name, total in totals.items()}


@pytest.mark.parametrize("tau", [0.5, 0.8])
def test_every_term_equals_its_formula(tau: float) -> None:
    method = FGD(alpha=2.0, beta=3.0, gamma=5.0, lambda_=7.0, tau=tau)
    ours, theirs = noise(3, 6, 8, 8).double(), (2 * noise(3, 6, 8, 8, seed=1)).double()
    adapters = method.adapters({3: (6, 6)}).double().requires_grad_(requires_grad=False)
    for index, parameter in enumerate(adapters.parameters()):
        torch.nn.init.normal_(parameter, 0.5, 0.5, generator=torch.Generator().manual_seed(index))
    found = method(Taps({3: ours}), Taps({3: theirs}), adapters, SCENE)
    expected = terms(ours, theirs, adapters, method)
    for name, factor in {"fg": 2, "bg": 3, "mask": 5, "gc": 7}.items():
        assert found[f"{name}.p3"].item() == pytest.approx(factor * expected[name], rel=1e-5), name


def test_map_compared_with_itself_costs_nothing() -> None:
    taps = Taps({3: noise(3, 6, 8, 8)})
    losses = FGD()(taps, taps, FGD().adapters({3: (6, 6)}), SCENE)
    assert all(loss.item() == 0 for loss in losses.values())


def test_scale_and_offset_count_unlike_in_pkd() -> None:
    theirs = noise(3, 6, 8, 8)
    losses = FGD()(Taps({3: 2 * theirs + 1}), Taps({3: theirs}), FGD().adapters({3: (6, 6)}), SCENE)
    assert all(loss.item() > 1e-4 for loss in losses.values())


def test_attention_has_mean_one_in_each_image_and_is_flat_on_a_flat_map() -> None:
    features = noise(3, 6, 8, 8).abs()
    assert torch.allclose(spatial_attention(features.mean(1), 0.5).mean((1, 2)), torch.ones(3))
    assert torch.allclose(channel_attention(features.mean((2, 3)), 0.5).mean(1), torch.ones(3))
    assert torch.allclose(spatial_attention(torch.full((2, 5, 5), 3.0), 0.5), torch.ones(2, 5, 5))


def test_context_starts_at_zero_and_its_last_convolution_learns_first() -> None:
    parts = GcBlock(8)
    parts(noise(2, 8, 4, 4)).sum().backward()
    assert float(parts(noise(2, 8, 4, 4)).detach().abs().max()) == 0
    assert parts(noise(2, 8, 4, 4)).shape == (2, 8, 1, 1)
    assert float(parts.expand.weight.grad.abs().max()) > 0  # type: ignore[union-attr]


def test_defaults_are_the_authors_for_retinanet() -> None:
    method = FGD()
    assert (method.alpha, method.beta, method.gamma, method.lambda_, method.tau) == (1e-3, 5e-4, 5e-4, 5e-6, 0.5)


def test_observe_shows_attention_masks_and_aligned_maps() -> None:
    method = FGD(adapt="always")
    student, teacher = Taps({3: noise(3, 4, 8, 8)}), Taps({3: noise(3, 6, 8, 8, seed=1)})
    seen = method.observe(student, teacher, method.adapters({3: (4, 6)}), SCENE)
    assert seen.aligned[3].shape == (3, 6, 8, 8)
    assert set(seen.maps) == {"teacher attention", "student attention", "foreground", "background"}
    assert all(maps[3].shape == (3, 8, 8) for maps in seen.maps.values())
    expected = torch.stack([attention(f, 0.5)[0] for f in teacher.features[3]])
    assert torch.allclose(seen.maps["teacher attention"][3], expected, atol=1e-5)
    assert not torch.allclose(seen.maps["student attention"][3], expected, atol=1e-2)
    assert torch.equal(seen.maps["foreground"][3], box_masks(BOXES, (64, 64), (8, 8)).foreground)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapt": "never"}, "adapt is 'never'; possible: auto, always"),
        ({"tau": 0.0}, "tau is 0.0; it should be above 0"),
    ],
)
def test_impossible_options_name_the_possible_ones(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FGD(**options)  # type: ignore[arg-type]
