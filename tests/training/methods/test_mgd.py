"""MGD's loss: its definition, its masks and what they leave reproducible, its generation block."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekd._recipe import DistillConfig
from edgekd.errors import RecipeError
from edgekd.training.distill import Distiller
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods.mgd import MGD, kept_cells

SCENE = Scene([], [], 64, 64, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pass_through(block: nn.Module) -> None:
    """Make G the identity for values of either sign within ±100: shifted past the ReLU and back."""
    first, _, second = block.children()
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        for conv, bias in ((first, 100.0), (second, -100.0)):
            nn.init.dirac_(conv.weight)
            nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]


def test_masks_hide_whole_cells_of_single_images_with_the_given_probability() -> None:
    torch.manual_seed(0)
    kept = kept_cells(noise(8, 3, 64, 64), 0.65)
    assert kept.shape == (8, 1, 64, 64)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(0.35, abs=0.015)  # 5 deviations of 32768 draws
    assert not torch.equal(kept[0], kept[1])
    assert bool(kept_cells(noise(1, 3, 64, 64), 0.0).all())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.95))
def test_loss_is_the_sum_of_squares_over_the_images(seed: int, n: int, h: int, w: int, lam: float) -> None:
    """With G the identity, a kept cell adds (F − T)² and a hidden one T²."""
    method = MGD(alpha=0.5, lam=lam)
    adapters = method.adapters({3: (4, 4)})
    pass_through(adapters.get_submodule("generate.p3"))
    ours, theirs = noise(n, 4, h, w, seed=seed), noise(n, 4, h, w, seed=seed + 1)
    torch.manual_seed(seed)
    kept = torch.rand(n, 1, h, w) >= lam
    torch.manual_seed(seed)
    found = method(Taps({3: ours}), Taps({3: theirs}), adapters, SCENE)["p3"]
    expected = 0.5 * torch.where(kept, ours - theirs, theirs).double().square().sum() / n
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_generation_block_is_two_convolutions_of_nine_cells_in_the_teachers_channels() -> None:
    adapters = MGD().adapters({3: (8, 16), 4: (16, 16)})
    shapes = {name: tuple(p.shape) for name, p in adapters.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "align.p3.weight": (16, 8, 1, 1),
        **{f"generate.p{level}.{i}.weight": (16, 16, 3, 3) for level in (3, 4) for i in (0, 2)},
    }
    assert isinstance(adapters.get_submodule("generate.p3.1"), nn.ReLU)


def test_equal_counts_get_an_adapter_only_if_always_wanted() -> None:
    for adapt, count in (("auto", 0), ("always", 2)):
        assert len(list(MGD(adapt=adapt).adapters({3: (4, 4)}).get_submodule("align").parameters())) == count


def test_loss_is_not_zero_where_student_and_teacher_are_equal() -> None:
    features = noise(2, 4, 8, 8)
    torch.manual_seed(0)
    assert MGD()(Taps({3: features}), Taps({3: features}), MGD().adapters({3: (4, 4)}), SCENE)["p3"].item() > 0


def test_hidden_cells_take_no_gradient_and_the_teacher_none_at_all() -> None:
    method = MGD(lam=0.5)
    ours = noise(2, 4, 8, 8).requires_grad_()
    adapters = method.adapters({3: (4, 4)})
    torch.manual_seed(3)
    method(Taps({3: ours}), Taps({3: noise(2, 4, 8, 8, seed=1)}), adapters, SCENE)["p3"].backward()
    torch.manual_seed(3)
    kept = kept_cells(ours, 0.5).bool().expand_as(ours)
    assert ours.grad is not None
    assert not bool(ours.grad[~kept].any())
    assert bool((ours.grad[kept] != 0).all())
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in adapters.parameters())


def test_a_step_is_reproducible_and_the_next_one_hides_other_cells() -> None:
    distiller = Distiller([DistillConfig(method="mgd")], {3: 4, 4: 4}, {"teacher": {3: 4, 4: 4}}, seed=1)
    ours, theirs = (Taps({3: noise(2, 4, 8, 8, seed=i), 4: noise(2, 4, 8, 8, seed=i)}) for i in range(2))
    first, again, other = (
        distiller(ours, {"teacher": theirs}, Scene([], [], 64, 64, step, 10))[1]["mgd.p3"].item() for step in (0, 0, 1)
    )
    assert first == again != other


def test_other_channels_and_another_grid_run_through_the_harness_and_stay_finite() -> None:
    distiller = Distiller([DistillConfig(method="mgd")], {3: 8, 5: 8}, {"teacher": {3: 16, 5: 8}}, seed=0)
    ours = {level: noise(1, 8, side, side).requires_grad_() for level, side in ((3, 8), (5, 1))}
    theirs = {3: noise(1, 16, 16, 16, seed=1), 5: noise(1, 8, 2, 2, seed=1)}
    with torch.autocast("cpu", torch.bfloat16):
        total, values = distiller(Taps(ours), {"teacher": Taps(theirs)}, SCENE)
    total.backward()
    assert set(values) == {"mgd.p3", "mgd.p5"}
    assert all(value.dtype == torch.float32 and bool(torch.isfinite(value)) for value in values.values())
    assert all(bool(torch.isfinite(x.grad).all()) for x in ours.values())
    assert all(parameter.grad is not None for parameter in distiller.parameters())


def test_shows_what_is_restored_from_whole_maps() -> None:
    features, adapters = noise(2, 4, 8, 8), MGD().adapters({3: (4, 4)})
    seen = MGD().observe(Taps({3: features}), Taps({3: features}), adapters, SCENE)
    assert torch.equal(seen.aligned[3], adapters.get_submodule("generate.p3")(features))
    assert not seen.maps


@pytest.mark.parametrize(
    ("options", "message"),
    [({"adapt": "never"}, "adapt is 'never'; possible: auto, always"), ({"lam": 1.0}, r"lam is 1.0; .* in \[0, 1\)")],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        MGD(**options)  # type: ignore[arg-type]
