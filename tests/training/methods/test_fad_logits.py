"""FAD's consistency on class maps instead of features."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.training.methods import Scene, Taps
from edgekd.training.methods._ssim import structure_loss
from edgekd.training.methods.fad import FAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

SCENE = Scene([], [], 64, 64, 0, 1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_head(features: Mapping[int, Tensor], logits: Mapping[int, Tensor]) -> Taps:
    network = SimpleNamespace(strides=tuple(2**level for level in logits))
    return Taps(features, SimpleNamespace(logits=tuple(logits.values())), network)


def test_class_maps_are_compared_as_scores_class_by_class() -> None:
    features = {4: noise(2, 4, 8, 8)}
    ours, theirs = ({3: noise(2, 2, 16, 16, seed=i), 4: noise(2, 2, 8, 8, seed=i + 10)} for i in range(2))
    method = FAD(alpha=0, beta=1, gamma=1, mdc="logits")
    found = method(with_head(features, ours), with_head(features, theirs), method.adapters({4: (4, 4)}), SCENE)
    rows = torch.stack([side[4].sigmoid().transpose(0, 1).flatten(1) for side in (ours, theirs)], 1).double()
    r = torch.stack([torch.corrcoef(pair)[0, 1] for pair in rows])
    assert found["pcc.p4"].item() == pytest.approx(float((1 - r).mean()) * 127 / 128, abs=1e-5)
    expected = structure_loss(ours[4].sigmoid(), theirs[4].sigmoid(), "teacher", 1e-4, 9e-4)
    assert found["ssim.p4"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_heads_run_only_if_class_maps_are_compared() -> None:
    assert FAD(mdc="logits").needs_head
    assert FAD(mdc="logits", gamma=0).needs_head
    assert not FAD().needs_head
    assert not FAD(mdc="logits", beta=0, gamma=0).needs_head


def test_heads_of_another_kind_are_refused() -> None:
    features = {3: noise(2, 4, 8, 8)}
    method = FAD(mdc="logits")
    taps = (with_head(features, {3: noise(2, count, 8, 8)}) for count in (2, 18))
    with pytest.raises(RecipeError, match=r"on P3 the student has 2 and the teacher 18 .*mdc = features"):
        method(*taps, method.adapters({3: (4, 4)}), SCENE)


def test_class_maps_of_another_grid_or_in_half_precision_are_brought_to_the_teachers() -> None:
    features = {3: noise(2, 4, 16, 16)}
    method = FAD(mdc="logits")
    ours, theirs = (
        noise(2, 2, 8, 8).bfloat16().requires_grad_(),
        noise(2, 2, 16, 16, seed=1).bfloat16().requires_grad_(),
    )
    found = method(
        with_head(features, {3: ours}), with_head(features, {3: theirs}), method.adapters({3: (4, 4)}), SCENE
    )
    torch.stack(list(found.values())).sum().backward()
    assert all(loss.dtype == torch.float32 and bool(torch.isfinite(loss)) for loss in found.values())
    assert ours.grad is not None
    assert bool(ours.grad.any())
    assert theirs.grad is None
