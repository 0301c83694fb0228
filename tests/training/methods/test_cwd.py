"""CWD's loss: its closed form, its invariances, its edges, and what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd._recipe import DistillConfig
from edgekd.errors import RecipeError
from edgekd.training.distill import Distiller
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods._channel_kl import channel_kl
from edgekd.training.methods.cwd import CWD

if TYPE_CHECKING:
    from torch import Tensor

SCENE = Scene([], [], 64, 64, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl_by_loop(ours: Tensor, theirs: Tensor, tau: float) -> float:
    """τ²/(N C) Σ p_T log(p_T/p_S) in float64, channel by channel."""
    total = 0.0
    n, c = theirs.shape[:2]
    for i in range(n):
        for j in range(c):
            s, t = ((x[i, j].double() / tau).flatten() for x in (ours, theirs))
            p_s, p_t = s.exp() / s.exp().sum(), t.exp() / t.exp().sum()
            total += float((p_t * (p_t / p_s).log()).sum())
    return tau**2 * total / (n * c)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0.5, 8),
)
def test_loss_equals_its_definition(seed: int, n: int, c: int, h: int, w: int, tau: float) -> None:
    ours, theirs = noise(n, c, h, w, seed=seed), 2 * noise(n, c, h, w, seed=seed + 1)
    assert float(channel_kl(ours, theirs, tau)) == pytest.approx(kl_by_loop(ours, theirs, tau), rel=1e-4, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_loss_does_not_see_an_offset_and_is_never_negative(seed: int, offset: float) -> None:
    ours, theirs = noise(2, 4, 8, 8, seed=seed), noise(2, 4, 8, 8, seed=seed + 1)
    plain = float(channel_kl(ours, theirs, 1.0))
    assert plain > 0
    assert float(channel_kl(ours + offset, theirs, 1.0)) == pytest.approx(plain, abs=1e-4)
    assert float(channel_kl(ours, theirs + offset, 1.0)) == pytest.approx(plain, abs=1e-4)
    assert abs(float(channel_kl(2 * ours, theirs, 1.0)) - plain) > 0.1


def test_loss_of_a_map_with_itself_is_zero() -> None:
    features = noise(2, 5, 8, 8) * 5
    assert float(channel_kl(features, features + 3, 1.0)) == pytest.approx(0, abs=1e-6)


def test_gradient_equals_its_closed_form_and_none_reaches_the_teacher() -> None:
    ours, theirs = noise(2, 3, 6, 6).requires_grad_(), noise(2, 3, 6, 6, seed=1)
    channel_kl(ours, theirs, 2.0).backward()
    p_s, p_t = ((x.detach().flatten(2) / 2).softmax(2) for x in (ours, theirs))
    assert ours.grad is not None
    assert torch.allclose(ours.grad.flatten(2), 2 * (p_s - p_t) / 6, atol=1e-7)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (torch.zeros(2, 3, 8, 8), noise(2, 3, 8, 8)),
        (noise(2, 3, 8, 8), torch.full((2, 3, 8, 8), 4.0)),
        (noise(1, 3, 1, 1), noise(1, 3, 1, 1, seed=1)),
        (noise(1, 3, 7, 11), noise(1, 3, 7, 11, seed=1)),
        (noise(2, 3, 8, 8) * 1e4, noise(2, 3, 8, 8) * 1e4),
    ],
    ids=["dead student", "constant teacher", "one cell", "odd map", "large"],
)
def test_value_and_gradient_stay_finite(ours: Tensor, theirs: Tensor) -> None:
    ours = ours.clone().requires_grad_()
    loss = CWD()(Taps({3: ours}), Taps({3: theirs}), CWD().adapters({3: (3, 3)}), SCENE)["p3"]
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert ours.grad is not None
    assert bool(torch.isfinite(ours.grad).all())


def test_factor_multiplies_every_level() -> None:
    student, teacher = (Taps({3: noise(2, 4, 8, 8, seed=i), 4: noise(2, 4, 4, 4, seed=i)}) for i in range(2))
    adapters = CWD().adapters({3: (4, 4), 4: (4, 4)})
    one, ten = (CWD(factor=factor)(student, teacher, adapters, SCENE) for factor in (1.0, 10.0))
    assert set(one) == {"p3", "p4"}
    assert all(float(ten[name]) == pytest.approx(10 * float(one[name])) for name in one)


def test_other_channels_and_another_grid_run_through_the_harness() -> None:
    distiller = Distiller([DistillConfig(method="cwd")], {3: 8, 4: 8}, {"teacher": {3: 16, 4: 8}}, seed=0)
    ours = {level: noise(2, 8, side, side).requires_grad_() for level, side in ((3, 8), (4, 4))}
    theirs = {3: noise(2, 16, 16, 16, seed=1), 4: noise(2, 8, 8, 8, seed=1)}
    with torch.autocast("cpu", torch.bfloat16):
        total, values = distiller(Taps(ours), {"teacher": Taps(theirs)}, SCENE)
    total.backward()
    assert set(values) == {"cwd.p3", "cwd.p4"}
    assert all(bool(torch.isfinite(x.grad).all()) and bool(x.grad.any()) for x in ours.values())
    assert all(parameter.grad is not None for parameter in distiller.parameters())


def test_equal_counts_get_an_adapter_only_if_always_wanted() -> None:
    for adapt, count in (("auto", 0), ("always", 2)):
        assert len(list(CWD(adapt=adapt).adapters({3: (4, 4)}).parameters())) == count


def test_shows_where_the_channels_are_active_with_mean_one() -> None:
    teacher = noise(2, 4, 8, 8)
    teacher[:, :, 2, 5] += 6
    student = noise(2, 4, 8, 8, seed=1)
    seen = CWD().observe(Taps({3: student}), Taps({3: teacher}), CWD().adapters({3: (4, 4)}), SCENE)
    assert torch.equal(seen.aligned[3], student)
    theirs, ours = (seen.maps[f"{side} attention"][3] for side in ("teacher", "student"))
    assert theirs.shape == ours.shape == (2, 8, 8)
    for each in (theirs, ours):
        assert torch.allclose(each.mean(dim=(1, 2)), torch.ones(2), atol=1e-5)
    assert theirs.flatten(1).argmax(1).tolist() == [2 * 8 + 5] * 2
    assert ours.flatten(1).argmax(1).tolist() != [2 * 8 + 5] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [({"adapt": "never"}, "adapt is 'never'; possible: auto, always"), ({"tau": 0.0}, "tau is 0.0; .* above 0")],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        CWD(**options)  # type: ignore[arg-type]
