"""What FGD and every variant of XFKD have in common: edge cases, gradients, adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd._recipe import DistillConfig
from edgekd.training.distill import Distiller
from edgekd.training.methods import Method, Scene, Taps, method

ALL: dict[str, tuple[str, dict[str, Any]]] = {
    "fgd": ("fgd", {}),
    "intended": ("xfkd", {}),
    "sum": ("xfkd", {"mode": "sum"}),
    "none": ("xfkd", {"mode": "none"}),
    "all options": ("xfkd", {"attention": "cbam", "dan": True, "skip_empty": True, "gc": "mean", "adapt": "always"}),
    "normalised": ("xfkd", {"att_norm": True, "rho_schedule": "linear"}),
    "released": ("xfkd", {"variant": "released"}),
}
BOXES = [[(4.0, 6.0, 30.0, 40.0), (20.0, 8.0, 55.0, 30.0)], [(33.0, 30.0, 64.0, 64.0)]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(boxes: list[list[Any]], step: int = 3) -> Scene:
    tensors = [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in boxes]
    return Scene(tensors, [torch.zeros(len(each), dtype=torch.long) for each in boxes], 64, 64, step, 10)


@pytest.fixture(params=ALL, ids=str)
def built(request: pytest.FixtureRequest) -> Method:
    name, options = ALL[request.param]
    return method(name, **options)


def losses_and_gradient(
    built: Method, ours: Tensor, theirs: Tensor, where: Scene
) -> tuple[dict[str, Tensor], Tensor, nn.Module]:
    torch.manual_seed(0)
    adapters = built.adapters({3: (ours.shape[1], theirs.shape[1])})
    ours = ours.clone().requires_grad_()
    losses = built(Taps({3: ours}), Taps({3: theirs}), adapters, where)
    torch.stack(list(losses.values())).sum().backward()
    assert ours.grad is not None
    return losses, ours.grad, adapters


@pytest.mark.parametrize(
    "boxes",
    [
        [[], []],
        [[(3, 3, 20, 20)], []],
        [[(5, 5, 5, 20)], [(70, 70, 90, 90)]],
        [[(-9, -9, 99, 99)], [(60, 60, 64, 64)]],
    ],
    ids=["all empty", "one empty", "no area inside", "over all"],
)
def test_any_boxes_give_finite_losses_and_use_every_adapter(built: Method, boxes: list[list[Any]]) -> None:
    losses, gradient, adapters = losses_and_gradient(built, noise(2, 6, 8, 8), noise(2, 6, 8, 8, seed=1), scene(boxes))
    assert all(bool(torch.isfinite(loss)) and loss.requires_grad and loss.ndim == 0 for loss in losses.values())
    assert bool(torch.isfinite(gradient).all())
    unused = [name for name, p in adapters.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    assert {name.split(".")[1] for name in losses} == {"p3"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (noise(1, 3, 1, 1), noise(1, 3, 1, 1, seed=1)),
        (noise(1, 1, 5, 3), noise(1, 1, 5, 3, seed=1)),
        (noise(2, 3, 7, 11) * 1e4, noise(2, 3, 7, 11, seed=1) * 1e-4),
        (torch.zeros(2, 3, 8, 8), noise(2, 3, 8, 8)),
        (noise(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)),
        (torch.full((2, 3, 8, 8), 7.0), torch.full((2, 3, 8, 8), 7.0)),
        (-noise(2, 3, 8, 8), noise(2, 3, 8, 8)),
    ],
    ids=["one cell", "one channel", "far scales", "dead student", "dead teacher", "both dead", "constant", "negative"],
)
def test_any_maps_give_finite_losses_and_gradients(built: Method, ours: Tensor, theirs: Tensor) -> None:
    losses, gradient, adapters = losses_and_gradient(built, ours, theirs, scene(BOXES[: len(ours)]))
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert bool(torch.isfinite(gradient).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in adapters.parameters() if p.grad is not None)


def test_student_gets_a_gradient_from_every_term_and_the_teacher_none(built: Method) -> None:
    torch.manual_seed(0)
    adapters = built.adapters({3: (6, 6)})
    theirs = noise(2, 6, 8, 8, seed=1).requires_grad_()
    ours = noise(2, 6, 8, 8).requires_grad_()
    losses = built(Taps({3: ours}), Taps({3: theirs.detach()}), adapters, scene(BOXES))
    for name, loss in losses.items():
        (gradient,) = torch.autograd.grad(loss, ours, retain_graph=True)
        assert float(gradient.abs().max()) > 0, name
    assert theirs.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ALL)
def test_half_precision_under_autocast_is_finite_and_near_fp32(name: str, dtype: torch.dtype) -> None:
    which, options = ALL[name]
    ours, theirs = (40 * noise(2, 6, 8, 8, seed=seed) for seed in (0, 1))
    totals = []
    for cast in (torch.float32, dtype):
        distiller = Distiller([DistillConfig(method=which, options=options)], {3: 6}, {"teacher": {3: 6}}, seed=0)
        leaf = ours.to(cast, copy=True).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16 if cast is torch.float32 else cast):
            total, values = distiller(Taps({3: leaf}), {"teacher": Taps({3: theirs})}, scene(BOXES))
        total.backward()
        assert bool(torch.isfinite(leaf.grad).all())  # type: ignore[union-attr]
        assert all(value.dtype == torch.float32 and bool(torch.isfinite(value)) for value in values.values())
        totals.append(total.item())
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


@pytest.mark.parametrize("name", [name for name in ALL if name != "released"])
def test_unequal_channels_and_grids_train_the_alignment_and_leave_no_trace_in_the_student(name: str) -> None:
    which, options = ALL[name]
    student = nn.Conv2d(3, 4, 3, padding=1)
    keys = set(student.state_dict())
    distiller = Distiller([DistillConfig(method=which, options=options)], {3: 4}, {"teacher": {3: 6}}, seed=0)
    shown = {"teacher": Taps({3: noise(2, 6, 8, 8, seed=1)})}
    total, _ = distiller(Taps({3: student(noise(2, 3, 5, 9))}), shown, scene(BOXES))
    total.backward()
    assert float(distiller.get_submodule("adapters.0.align.p3").weight.grad.abs().max()) > 0  # type: ignore[union-attr, operator]
    assert float(student.weight.grad.abs().max()) > 0  # type: ignore[union-attr]
    assert set(student.state_dict()) == keys


def test_channels_last_maps_give_the_same_losses(built: Method) -> None:
    ours, theirs = noise(2, 6, 8, 8), noise(2, 6, 8, 8, seed=1)
    plain, _, _ = losses_and_gradient(built, ours, theirs, scene(BOXES))
    other, _, _ = losses_and_gradient(built, ours.to(memory_format=torch.channels_last), theirs, scene(BOXES))
    assert {k: v.item() for k, v in other.items()} == pytest.approx({k: v.item() for k, v in plain.items()}, rel=1e-5)


def test_levels_are_told_apart(built: Method) -> None:
    adapters = built.adapters({3: (6, 6), 4: (8, 8)})
    ours = Taps({3: noise(2, 6, 8, 8), 4: noise(2, 8, 4, 4)})
    theirs = Taps({3: noise(2, 6, 8, 8, seed=1), 4: noise(2, 8, 4, 4, seed=1)})
    losses = built(ours, theirs, adapters, scene(BOXES))
    kinds = {name.split(".")[0] for name in losses}
    assert kinds >= {"fg", "bg", "mask", "gc"}
    assert set(losses) == {f"{kind}.{level}" for kind in kinds for level in ("p3", "p4")}
    assert built.observe(ours, theirs, adapters, scene(BOXES)).maps["foreground"][4].shape == (2, 4, 4)


@pytest.mark.parametrize("name", ["fgd", "intended", "all options", "released"])
def test_training_the_adapters_alone_cannot_bring_the_loss_down(name: str) -> None:
    """The maps are fixed and unrelated: whatever falls, falls by shrinking what is compared."""
    which, options = ALL[name]
    built = method(which, **options)
    torch.manual_seed(0)
    # One image: between images the context blocks may learn an offset, which is no collapse.
    ours, theirs = Taps({3: noise(1, 8, 6, 6)}), Taps({3: noise(1, 8, 6, 6, seed=1)})
    adapters = built.adapters({3: (8, 8)})
    # The alignment may learn too; that is its task.
    trained = [p for name, p in adapters.named_parameters() if p.requires_grad and not name.startswith("align")]
    optimiser = torch.optim.Adam(trained, lr=1e-2)
    seen = []
    for _ in range(400):
        losses = built(ours, theirs, adapters, scene(BOXES[:1]))
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        seen.append({kind: loss.item() for kind, loss in losses.items()})
    focal = [row["fg.p3"] + row["bg.p3"] for row in (seen[0], seen[-1])]
    if name == "released":
        assert focal[1] < 0.01 * focal[0], "the authors' code has this fault; is it still the authors' code?"
        return
    assert focal[1] > 0.5 * focal[0]
    for kind in {"gc.p3", "dan.p3"} & set(losses):
        assert seen[-1][kind] > 0.5 * seen[0][kind], kind
