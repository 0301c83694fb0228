"""Rotated overlap and the losses of rotated boxes: values, laws, gradients."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekd import geometry, ops
from edgekd.training.models.gaussian import (
    LOSSES,
    bhattacharyya,
    kld_loss,
    kullback_leibler,
    probiou_loss,
    wasserstein,
)
from edgekd.training.models.rotated import hulls, iou_rotated, points_inside

# The published failures of other implementations are listed once, beside the tests of the reference.
PUBLISHED = runpy.run_path(str(Path(__file__).parents[2] / "test_rotated.py"))["PUBLISHED"]
P = torch.tensor([0, 0, 4, 2, 0], dtype=torch.float64)
T = torch.tensor([1, 0.5, 5, 2, math.radians(30)], dtype=torch.float64)
FUNCTIONS = [*LOSSES.values(), iou_rotated]
Overlap = Callable[[Tensor, Tensor], Tensor]


def double(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_boxes(count: int, seed: int, reach: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([reach, reach, 60, 60, 7.0], dtype=torch.float64)
    return torch.rand(count, 5, generator=generator, dtype=torch.float64) * scale + double(0, 0, 1, 1, -3.5)


@pytest.mark.parametrize(("a", "b", "expected", "error"), PUBLISHED)
def test_iou_of_published_cases_is_that_of_the_kernels(
    a: tuple[float, ...], b: tuple[float, ...], expected: float, error: float
) -> None:
    first, second = double(*a), double(*b)
    value = float(iou_rotated(first, second))
    assert value == pytest.approx(float(ops.iou_rotated([a], [b], dtype=np.float64)[0, 0]), abs=1e-9)
    assert float(iou_rotated(first.float(), second.float())) == pytest.approx(expected, abs=max(error, 1e-6))
    assert 0 <= value <= 1


def test_iou_of_a_table_of_boxes_is_that_of_the_kernels() -> None:
    a, b = random_boxes(120, 0), random_boxes(90, 1)
    found = iou_rotated(a.unsqueeze(-2), b.unsqueeze(-3)).numpy()
    assert found.shape == (120, 90)
    assert (found > 0).mean() > 0.2
    np.testing.assert_allclose(found, ops.iou_rotated(a.numpy(), b.numpy(), dtype=np.float64), atol=1e-9)
    single = iou_rotated(a.float().unsqueeze(-2), b.float().unsqueeze(-3)).numpy()
    np.testing.assert_allclose(single, found, atol=2e-5)


@pytest.mark.parametrize("sides", [(0.0, 5.0), (5.0, 0.0), (0.0, 0.0)])
def test_iou_of_a_box_without_area_is_0_with_a_finite_gradient(sides: tuple[float, float]) -> None:
    flat = torch.tensor([[5.0, 5, *sides, 0.3]], requires_grad=True)
    for other in (torch.tensor([[5.0, 5, 4, 4, 0.1]]), flat.detach()):
        value = iou_rotated(flat, other)
        value.sum().backward()
        assert value.item() == 0
        assert flat.grad is not None
        assert bool(flat.grad.isfinite().all())


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_computed_in_float32_under_autocast_and_of_half_precision(name: str) -> None:
    a, b = P.float(), T.float()
    plain = LOSSES[name](a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(LOSSES[name](a, b), plain)
    assert LOSSES[name](a.bfloat16(), b.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(LOSSES[name](a.bfloat16(), b), LOSSES[name](a.bfloat16().float(), b))


def test_golden_values() -> None:
    assert iou_rotated(P, T).item() == pytest.approx(0.4465528, abs=1e-7)
    assert wasserstein(P, T).item() == pytest.approx(0.4931533, abs=1e-7)
    assert LOSSES["gwd"](P, T).item() == pytest.approx(0.2861682, abs=1e-7)
    assert kullback_leibler(P, T).item() == pytest.approx(0.8002939, abs=1e-7)
    assert kld_loss(P, T).item() == pytest.approx(0.3898731, abs=1e-7)
    assert kullback_leibler(T, P).item() == pytest.approx(0.4600282, abs=1e-7)
    assert kld_loss(T, P).item() == pytest.approx(0.3411316, abs=1e-7)
    assert bhattacharyya(P, T).item() == pytest.approx(0.2006605, abs=1e-7)
    assert 1 - probiou_loss(P, T).item() == pytest.approx(0.5736083, abs=1e-7)


def test_probiou_is_that_of_the_reference() -> None:
    a, b = random_boxes(200, 2, 40).float(), random_boxes(200, 3, 40).float()
    expected = geometry.iou_rotated(a.numpy(), b.numpy(), metric="probiou").diagonal()
    np.testing.assert_allclose(1 - probiou_loss(a, b).numpy(), expected, atol=1e-4)


sides = st.floats(1, 300)
rectangles = st.tuples(st.floats(-100, 100), st.floats(-100, 100), sides, sides, st.floats(-4, 4))


def same_rectangles(box: Tensor) -> list[Tensor]:
    x, y, w, h, angle = box.unbind()
    names = ((w, h, angle + math.pi), (w, h, angle - math.pi), (h, w, angle + math.pi / 2), (h, w, angle - math.pi / 2))
    return [torch.stack([x, y, *name]) for name in names]


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=40, deadline=None)
@given(a=rectangles, b=rectangles)
def test_the_name_of_a_rectangle_does_not_matter(function: Overlap, a: tuple[float, ...], b: tuple[float, ...]) -> None:
    first, second = double(*a), double(*b)
    value = function(first, second).item()
    assert 0 <= value <= 1
    for name in same_rectangles(first):
        assert function(name, second).item() == pytest.approx(value, abs=1e-6)
        assert function(second, name).item() == pytest.approx(function(second, first).item(), abs=1e-6)
    for name in [first, *same_rectangles(first)]:
        assert function(first, name).item() == pytest.approx(float(function is iou_rotated), abs=1e-5)


@pytest.mark.parametrize("function", FUNCTIONS)
@settings(max_examples=40, deadline=None)
@given(
    a=rectangles, b=rectangles, angle=st.floats(-3, 3), scale=st.floats(0.01, 100), shift=st.floats(-500, 500),
    mirror=st.booleans(),
)  # fmt: skip
def test_a_common_motion_scaling_or_mirror_changes_nothing(
    function: Overlap,
    a: tuple[float, ...],
    b: tuple[float, ...],
    angle: float,
    scale: float,
    shift: float,
    mirror: bool,
) -> None:
    def moved(box: tuple[float, ...]) -> Tensor:
        x, y, w, h, r = box
        x, r = (-x, -r) if mirror else (x, r)
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        return double(c * x - s * y + shift, s * x + c * y - shift, scale * w, scale * h, r + angle)

    expected = function(double(*a), double(*b)).item()
    assert function(moved(a), moved(b)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f is not kld_loss])
@settings(max_examples=40, deadline=None)
@given(a=rectangles, b=rectangles)
def test_it_is_symmetric(function: Overlap, a: tuple[float, ...], b: tuple[float, ...]) -> None:
    first, second = double(*a), double(*b)
    assert function(first, second).item() == pytest.approx(function(second, first).item(), abs=1e-9)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_are_those_of_finite_differences(function: Overlap) -> None:
    a = double([10, 12, 30, 14, 0.3], [3, 2, 8, 25, -1.2], [50, 40, 20, 18, 2.0], [20, 20, 9, 9, 0.7])
    b = double([14, 9, 22, 18, 0.9], [4, 1, 9, 21, -1.5], [58, 44, 26, 11, 1.4], [20.5, 19, 30, 40, 0.2])
    assert bool((iou_rotated(a, b) > 0.05).all())
    torch.autograd.gradcheck(function, (a.requires_grad_(), b.requires_grad_()), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 1e4])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_are_finite_for_equal_touching_turned_nested_and_distant_boxes(
    function: Overlap, size: float
) -> None:
    scale = torch.tensor([size, size, size, size, 1.0])
    base = torch.tensor([[0, 0, 1, 0.5, 0.3], [3, 2, 1, 0.7, 0.0], [0, 0, 1, 1, 0.0], [1, 1, 1, 1e-3, 1.0]]) * scale
    changes = ([0, 0, 0, 0, 0], [1e-7, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, math.pi / 2], [0.2, 0.1, 0, 0, 0.2],
               [0, 0, 9, 9, 0.1], [50, 0, 0, 0, 0], [1e4 / size, 0, 0, 0, 1])  # fmt: skip
    for change in changes:
        for other in (base + torch.tensor(change) * scale, base * torch.tensor([1, 1, 1e-3, 1, 1])):
            box = base.clone().requires_grad_()
            value = function(box, other)
            value.sum().backward()
            assert bool(value.isfinite().all())
            assert box.grad is not None
            assert bool(box.grad.isfinite().all())


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_descent_turns_moves_and_stretches_a_box_onto_another(name: str) -> None:
    target = torch.tensor([[50.0, 40, 40, 14, 1.2]])
    box = torch.tensor([[44.0, 45, 24, 24, 0.4]], requires_grad=True)
    box.data[0, 3] = 18
    optimizer = torch.optim.Adam([box], lr=0.3)
    for step in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * (1 - step / 250)
        optimizer.zero_grad()
        LOSSES[name](box * torch.tensor([1, 1, 1, 1, 0.1]), target).sum().backward()
        optimizer.step()
    with torch.no_grad():
        assert iou_rotated(box * torch.tensor([1, 1, 1, 1, 0.1]), target).item() > 0.9


def test_points_inside_a_turned_box_are_those_of_its_own_frame() -> None:
    boxes = random_boxes(40, 5)
    points = torch.rand(300, 2, dtype=torch.float64) * 120 - 10
    found = points_inside(points, boxes)
    assert found.shape == (40, 300)
    assert 0 < found.float().mean() < 1
    for box, row in zip(boxes, found, strict=True):
        corners = geometry.xywhr_to_corners(box[None].numpy())[0].astype(np.float64)
        edges = np.roll(corners, -1, 0) - corners
        offset = points.numpy()[:, None] - corners
        side = edges[:, 0] * offset[..., 1] - edges[:, 1] * offset[..., 0]
        clear = np.abs(side).min(axis=1) > 1e-2
        assert np.array_equal(row.numpy()[clear], (side > 0).all(axis=1)[clear])
    assert not points_inside(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0, 4, 2, 0]])).any()  # on the edge


def test_hulls_hold_the_corners_and_touch_them() -> None:
    boxes = random_boxes(50, 6)
    corners = geometry.xywhr_to_corners(boxes.numpy())
    expected = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    np.testing.assert_allclose(hulls(boxes).numpy(), expected, atol=1e-4)
