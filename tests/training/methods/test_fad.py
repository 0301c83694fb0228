"""FAD: each term by its definition, what its switches do, levels and maps at the edge, what it keeps in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekd._recipe import DistillConfig, ModelConfig, Recipe
from edgekd.errors import RecipeError
from edgekd.training.distill import Distiller
from edgekd.training.methods import Scene, Taps, fad
from edgekd.training.methods._ssim import structure_loss
from edgekd.training.methods.fad import FAD
from edgekd.training.models import build_model
from edgekd.training.run import read_splits
from edgekd.training.teacher import Teacher
from edgekd.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SCENE = Scene([], [], 64, 64, 0, 1)
OFF = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0}
LSFI, PCC, SSIM = ({**OFF, name: 1.0} for name in ("alpha", "beta", "gamma"))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def losses(
    ours: Tensor | Mapping[int, Tensor], theirs: Tensor | Mapping[int, Tensor], **options: Any
) -> dict[str, Any]:
    """The losses of maps, on P3 if not said otherwise, through untrained adapters."""
    ours, theirs = ({3: side} if isinstance(side, Tensor) else side for side in (ours, theirs))
    method = FAD(**options)
    adapters = method.adapters({level: (ours[level].shape[1], theirs[level].shape[1]) for level in ours})
    return method(Taps(ours), Taps(theirs), adapters, SCENE)


def with_head(features: Mapping[int, Tensor], logits: Mapping[int, Tensor]) -> Taps:
    network = SimpleNamespace(strides=tuple(2**level for level in logits))
    return Taps(features, SimpleNamespace(logits=tuple(logits.values())), network)


def values(*args: Any, **options: Any) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses(*args, **options).items()}


def correlation(a: Tensor, b: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Pearson's r over `dims` in float64, from its definition."""
    x, y = (t.double() - t.double().mean(dim=dims, keepdim=True) for t in (a, b))
    return (x * y).sum(dims) / (x.square().sum(dims) * y.square().sum(dims)).sqrt()


def attention(features: Tensor, **options: Any) -> Tensor:
    method = FAD(**options)
    adapters = method.adapters({3: (features.shape[1], features.shape[1])})
    return method.observe(Taps({3: features}), Taps({3: features}), adapters, SCENE).maps["teacher attention"][3]


# --- all terms ----------------------------------------


def test_losses_of_a_map_with_itself_are_zero() -> None:
    features = noise(2, 5, 16, 16) * 3 + 1
    found = values(features, features)
    assert set(found) == {"lsfi.p3", "pcc.p3", "ssim.p3"}
    assert all(0 <= value < 1e-5 for value in found.values())  # the weights are 1, 6 and 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 50), st.floats(-20, 20))
def test_imitation_alone_sees_scale_and_offset_of_the_student(seed: int, scale: float, offset: float) -> None:
    ours, theirs = noise(2, 4, 9, 9, seed=seed), noise(2, 4, 9, 9, seed=seed + 1)
    plain, moved = values(ours, theirs), values(ours * scale + offset, theirs)
    assert moved["pcc.p3"] == pytest.approx(plain["pcc.p3"], abs=1e-3)
    assert moved["ssim.p3"] == pytest.approx(plain["ssim.p3"], abs=1e-3)
    if abs(scale - 1) > 0.5 or abs(offset) > 0.5:
        assert abs(moved["lsfi.p3"] - plain["lsfi.p3"]) > 1e-2


def test_negative_and_unrelated_maps_are_as_far_as_specified() -> None:
    theirs, other = noise(4, 8, 32, 32), noise(4, 8, 32, 32, seed=1)
    m = 4 * 32 * 32
    negative = values(-theirs, theirs, beta=1, gamma=1)
    assert negative["pcc.p3"] == pytest.approx(2 * (m - 1) / m, abs=1e-5)
    assert negative["ssim.p3"] == pytest.approx(0.97, abs=0.01)
    unrelated = values(other, theirs, beta=1, gamma=1)
    assert unrelated["pcc.p3"] == pytest.approx(1, abs=0.02)
    assert 0.47 < unrelated["ssim.p3"] < 0.49


def test_order_of_the_cells_counts_for_ssim_but_not_for_the_correlation() -> None:
    theirs = torch.nn.functional.avg_pool2d(noise(2, 4, 20, 20), 5, 1)
    ours = theirs.roll(2, dims=3)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    plain = values(ours, theirs)
    mixed = values(*(t.flatten(2)[..., order].view(t.shape) for t in (ours, theirs)))
    assert mixed["pcc.p3"] == pytest.approx(plain["pcc.p3"], abs=1e-5)
    assert abs(mixed["ssim.p3"] - plain["ssim.p3"]) > 0.1


def test_weights_multiply_their_terms() -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    one, other = values(ours, theirs, alpha=1, beta=1, gamma=1), values(ours, theirs, alpha=0.5, beta=10, gamma=2)
    for term, factor in (("lsfi", 0.5), ("pcc", 10), ("ssim", 2)):
        assert other[f"{term}.p3"] == pytest.approx(factor * one[f"{term}.p3"])


@pytest.mark.parametrize(
    ("weight", "function"),
    [("alpha", "imitation_loss"), ("beta", "correlation_loss"), ("gamma", "structure_loss")],
)
def test_term_of_weight_zero_is_absent_and_not_computed(
    monkeypatch: pytest.MonkeyPatch, weight: str, function: str
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError(f"{function} was called")

    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    term = {"alpha": "lsfi.p3", "beta": "pcc.p3", "gamma": "ssim.p3"}[weight]
    monkeypatch.setattr(fad, function, refuse)
    assert set(values(ours, theirs, **{weight: 0.0})) == {"lsfi.p3", "pcc.p3", "ssim.p3"} - {term}
    with pytest.raises(AssertionError, match=function):
        values(ours, theirs)


def test_gradient_reaches_student_and_adapter_and_none_the_teacher() -> None:
    ours, theirs = noise(2, 4, 8, 8).requires_grad_(), noise(2, 6, 8, 8, seed=1).requires_grad_()
    method = FAD()
    adapters = method.adapters({3: (4, 6)})
    found = method(Taps({3: ours}), Taps({3: theirs.detach()}), adapters, SCENE)
    for loss in found.values():
        ours.grad = None
        adapters.zero_grad()
        loss.backward(retain_graph=True)
        assert ours.grad is not None
        assert bool(ours.grad.any())
        assert bool(adapters.get_submodule("p3").weight.grad.any())  # type: ignore[union-attr, operator]
    assert theirs.grad is None


# --- global consistency ----------------------------------------


@pytest.mark.parametrize(("stat", "dims"), [("batch", (0, 2, 3)), ("image", (2, 3)), ("cell", (1,))])
def test_correlation_is_taken_over_what_stat_says(stat: str, dims: tuple[int, ...]) -> None:
    theirs = noise(3, 20, 9, 8) + noise(3, 20, 1, 1, seed=2)
    ours = 0.5 * theirs + noise(3, 20, 9, 8, seed=1)
    m = {"batch": 3 * 9 * 8, "image": 9 * 8, "cell": 20}[stat]
    expected = float((1 - correlation(ours, theirs, dims)).mean()) * (m - 1) / m
    assert values(ours, theirs, **PCC, stat=stat)["pcc.p3"] == pytest.approx(expected, abs=1e-5)


def test_loss_of_a_batch_is_the_mean_of_its_images_only_with_stat_image() -> None:
    ours, theirs = noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    ours[1] += 3
    theirs[1] += 3
    for stat, additive in (("image", True), ("batch", False)):
        alone = [values(ours[i : i + 1], theirs[i : i + 1], **PCC, stat=stat)["pcc.p3"] for i in range(2)]
        together = values(ours, theirs, **PCC, stat=stat)["pcc.p3"]
        assert (abs(together - sum(alone) / 2) < 1e-5) == additive


def test_cell_refuses_too_few_channels() -> None:
    with pytest.raises(RecipeError, match="stat = cell needs 16 channels, got 4; possible: batch, image"):
        values(noise(2, 4, 8, 8), noise(2, 4, 8, 8), stat="cell")


def test_gradient_of_the_correlation_is_orthogonal_to_scale_and_offset() -> None:
    ours, theirs = noise(2, 3, 8, 8).requires_grad_(), noise(2, 3, 8, 8, seed=1)
    losses(ours, theirs, **PCC)["pcc.p3"].backward()
    grad = ours.grad
    assert grad is not None
    assert float(grad.abs().max()) > 1e-4
    centred = ours.detach() - ours.detach().mean(dim=(0, 2, 3), keepdim=True)
    assert float((grad * centred).sum(dim=(0, 2, 3)).abs().max()) < 1e-5
    assert float(grad.sum(dim=(0, 2, 3)).abs().max()) < 1e-5


def test_local_term_is_ssim_on_the_range_and_with_the_constants_asked_for() -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    found = values(ours, theirs, **SSIM, range="minmax_raw", c1=0.01, c2=0.03)["ssim.p3"]
    assert found == pytest.approx(structure_loss(ours, theirs, "minmax_raw", 0.01, 0.03).item(), abs=1e-6)


def test_divergence_takes_the_place_of_the_correlation() -> None:
    ours, theirs = noise(2, 4, 8, 8), noise(2, 4, 8, 8, seed=1)
    found = values(ours, theirs, beta=2, distribution="kl", tau_kl=2.0)
    assert set(found) == {"lsfi.p3", "kl.p3", "ssim.p3"}
    p_s, p_t = ((x.flatten(2) / 2).log_softmax(2) for x in (ours, theirs))
    assert found["kl.p3"] == pytest.approx(float(2 * 4 * (p_t.exp() * (p_t - p_s)).sum() / 8), rel=1e-4)


# --- edges ----------------------------------------

EDGES = {
    "dead student": (torch.zeros(2, 3, 8, 8), noise(2, 3, 8, 8)),
    "constant student": (torch.full((2, 3, 8, 8), 7.0), noise(2, 3, 8, 8)),
    "dead teacher": (noise(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
    "both dead": (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
    "constant teacher channel": (noise(2, 3, 8, 8), noise(2, 3, 8, 8) * torch.tensor([1.0, 0, 1]).view(1, 3, 1, 1) + 1),
    "one cell": (noise(1, 3, 1, 1), noise(1, 3, 1, 1, seed=1)),
    "3x5": (noise(1, 3, 3, 5), noise(1, 3, 3, 5, seed=1)),
    "7x11, one image": (noise(1, 3, 7, 11), noise(1, 3, 7, 11, seed=1)),
    "far scales": (noise(2, 3, 8, 8) * 1e4, noise(2, 3, 8, 8) * 1e-3),
}
READINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "per image": {"stat": "image"},
    "raw range": {"range": "minmax_raw"},
    "standardised imitation": {"imitate": "standardised"},
    "divergence": {"distribution": "kl"},
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("edge", EDGES)
def test_values_and_gradients_stay_finite(edge: str, reading: str) -> None:
    ours, theirs = EDGES[edge]
    ours = ours.clone().requires_grad_()
    found = losses(ours, theirs, **READINGS[reading])
    torch.stack(list(found.values())).sum().backward()
    assert all(bool(torch.isfinite(loss)) for loss in found.values())
    assert ours.grad is not None
    assert bool(torch.isfinite(ours.grad).all())


def test_dead_teacher_level_pulls_at_nothing() -> None:
    ours = noise(2, 3, 8, 8).requires_grad_()
    found = losses(ours, torch.zeros(2, 3, 8, 8))
    torch.stack(list(found.values())).sum().backward()
    assert ours.grad is not None
    assert not bool(ours.grad.any())


@pytest.mark.parametrize("options", [{}, OFF, LSFI, PCC, SSIM], ids=["all", "none", "lsfi", "pcc", "ssim"])
@pytest.mark.parametrize("mdc", ["features", "logits"])
def test_every_level_is_connected_through_its_adapter_and_small_ones_give_zero(
    options: dict[str, float], mdc: str
) -> None:
    """Whatever is on: unused parameters break distributed training."""
    method = FAD(**options, mdc=mdc, adapt="always")
    adapters = method.adapters(dict.fromkeys((3, 4, 6), (4, 4)))
    ours, theirs = (
        {
            level: noise(2, 4, h, w, seed=i).requires_grad_()
            for level, (h, w) in {3: (8, 7), 4: (7, 6), 6: (1, 1)}.items()
        }
        for i in range(2)
    )
    heads = [{level: noise(2, 2, *x.shape[2:], seed=i) for level, x in ours.items()} for i in range(2)]
    theirs = {level: x.detach() for level, x in theirs.items()}
    found = method(with_head(ours, heads[0]), with_head(theirs, heads[1]), adapters, SCENE)
    torch.stack(list(found.values())).sum().backward()
    assert all(loss.requires_grad or (mdc == "logits" and "lsfi" not in name) for name, loss in found.items())
    assert all(loss.item() == 0 for name, loss in found.items() if name.endswith(("p4", "p6")))
    assert [parameter.grad is not None for parameter in adapters.parameters()] == [True] * 6
    assert all(x.grad is not None for x in ours.values())


def test_levels_of_seven_cells_count_and_smaller_ones_leave_the_attention_alone() -> None:
    large = {3: noise(2, 4, 14, 14), 4: noise(2, 4, 7, 7, seed=1)}
    small = {**large, 5: 100 * noise(2, 4, 4, 4, seed=2)}
    seen, seen_small = (
        FAD().observe(Taps(maps), Taps(maps), FAD().adapters(dict.fromkeys(maps, (4, 4))), SCENE)
        for maps in (large, small)
    )
    assert set(seen_small.aligned) == {3, 4, 5}
    for name in ("teacher attention", "student attention"):
        assert set(seen_small.maps[name]) == {3, 4}
        assert all(torch.equal(seen.maps[name][level], seen_small.maps[name][level]) for level in (3, 4))


# --- what it shows, keeps and leaves alone ----------------------------------------


def test_shows_the_attention_by_which_it_weighs_and_the_students_own() -> None:
    teacher, student = noise(2, 6, 8, 8), noise(2, 4, 8, 8, seed=1)
    teacher[:, :, 2, 5] *= 9
    student[:, :, 6, 1] *= 9
    method = FAD()
    adapters = method.adapters({3: (4, 6)})
    with torch.no_grad():
        adapters.get_submodule("p3").bias.zero_()  # type: ignore[operator, union-attr]
        seen = method.observe(Taps({3: student}), Taps({3: teacher}), adapters, SCENE)
        assert torch.equal(seen.aligned[3], adapters.get_submodule("p3")(student))
    theirs, ours = (seen.maps[f"{side} attention"][3] for side in ("teacher", "student"))
    assert theirs.flatten(1).argmax(1).tolist() == [2 * 8 + 5] * 2
    assert ours.flatten(1).argmax(1).tolist() == [6 * 8 + 1] * 2
    assert torch.equal(theirs, attention(teacher))


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"lsfi": "channel"}], ids=["no LSFI", "channels only"])
def test_shows_no_attention_that_weighs_nothing(options: dict[str, Any]) -> None:
    maps, method = Taps({3: noise(2, 4, 8, 8)}), FAD(**options)
    assert not method.observe(maps, maps, method.adapters({3: (4, 4)}), SCENE).maps


def kept_maps(**options: Any) -> float:
    """Bytes kept for the backward pass, each storage once, in copies of the student's map."""
    ours, theirs = noise(2, 16, 32, 32).requires_grad_(), noise(2, 16, 32, 32, seed=1)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = losses(ours, theirs, **options)
    assert found
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (4 * ours.numel())


def test_recomputed_ssim_keeps_less_than_six_maps_and_the_plain_one_more() -> None:
    assert kept_maps(**SSIM, recompute_above=0) < 3
    assert kept_maps(recompute_above=0) < 6
    assert kept_maps(**SSIM) > 10


def test_recomputed_ssim_is_the_plain_one_bit_for_bit() -> None:
    results = []
    for bound in (0, 2**40):
        ours, theirs = noise(2, 6, 12, 10).requires_grad_(), noise(2, 6, 12, 10, seed=1)
        loss = losses(ours, theirs, recompute_above=bound)["ssim.p3"]
        loss.backward()
        results.append((loss.detach(), ours.grad))
    (plain, grad), (again, grad_again) = results
    assert torch.equal(plain, again)
    assert grad is not None
    assert bool(grad.any())
    assert torch.equal(grad, grad_again)  # type: ignore[arg-type]


def test_only_large_maps_are_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def recorded(function: Callable[..., Tensor], *args: Any, **_: Any) -> Tensor:
        calls.append(args[0].shape)
        return function(*args)

    monkeypatch.setattr(fad, "checkpoint", recorded)
    maps = {3: noise(1, 2, 16, 16), 4: noise(1, 2, 8, 8)}
    values(maps, maps, **SSIM, recompute_above=512)
    assert calls == [(1, 2, 16, 16)]


@pytest.mark.parametrize("options", [{}, {"recompute_above": 0}, {"stat": "image"}, {"imitate": "standardised"}])
def test_other_channels_and_another_grid_run_through_the_harness_under_autocast(options: dict[str, Any]) -> None:
    entry = DistillConfig(method="fad", options=options)
    distiller = Distiller([entry], {3: 8, 4: 8}, {"teacher": {3: 16, 4: 8}}, seed=0)
    ours = {level: noise(2, 8, side, side).bfloat16().requires_grad_() for level, side in ((3, 8), (4, 4))}
    theirs = {3: noise(2, 16, 16, 16, seed=1), 4: noise(2, 8, 8, 8, seed=1)}
    with torch.autocast("cpu", torch.bfloat16):
        total, found = distiller(Taps(ours), {"teacher": Taps(theirs)}, SCENE)
    total.backward()
    assert set(found) == {f"fad.{term}.p{level}" for term in ("lsfi", "pcc", "ssim") for level in (3, 4)}
    assert all(value.dtype == torch.float32 and bool(torch.isfinite(value)) and value > 0 for value in found.values())
    assert all(bool(torch.isfinite(x.grad).all()) and bool(x.grad.any()) for x in ours.values())
    assert all(parameter.grad is not None for parameter in distiller.parameters())


def trained(recipe: Recipe, folder: Path) -> nn.Module:
    splits = read_splits(recipe)
    config = ModelConfig(backbone="csp-tiny", width=0.25, channels=24, head_depth=1)
    teacher = Teacher(build_model(config, 2, recipe.input, seed=7), recipe.input, {})
    run = Trainer(recipe, folder, splits["train"], splits["val"], teacher=teacher, device=torch.device("cpu"))
    run.run()
    return run.student


def test_run_with_weights_zero_is_bit_identical_to_the_baseline(small: Callable[..., Recipe], tmp_path: Path) -> None:
    """The entry's weight at 0, and FAD's own three at 0; CWD and MGD, which draws masks, beside it."""
    entries = (
        *(DistillConfig(method=name, weight=0.0) for name in ("fad", "cwd", "mgd")),
        DistillConfig(method="fad", weight=0.0, options={"mdc": "logits"}),
        DistillConfig(method="fad", options=OFF),
    )
    baseline = trained(small(steps=2), tmp_path / "baseline").state_dict()
    control = trained(small(steps=2, distill=entries), tmp_path / "control").state_dict()
    taught = trained(small(steps=2, distill=(*entries[:1], DistillConfig(method="fad"))), tmp_path / "taught")
    assert all(torch.equal(baseline[name], control[name]) for name in baseline)
    assert any(not torch.equal(baseline[name], tensor) for name, tensor in taught.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lsfi": "none"}, "lsfi is 'none'; possible: both, spatial, channel"),
        ({"mdc": "boxes"}, "mdc is 'boxes'; possible: features, logits"),
        ({"range": "unit"}, "range is 'unit'; possible: teacher, minmax_raw"),
        ({"adapt": "never"}, "adapt is 'never'; possible: auto, always"),
        ({"tau_c": 0.0}, "tau_c is 0.0; it should be above 0"),
        ({"scales": ()}, r"scales are \[\]; name at least one"),
        ({"scales": (1, 0)}, r"scales are \[1, 0\]; name at least one"),
        ({"distribution": "kl", "stat": "image"}, "distribution = kl compares features and knows no stat"),
        ({"distribution": "kl", "mdc": "logits"}, "distribution = kl compares features and knows no stat"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FAD(**options)
