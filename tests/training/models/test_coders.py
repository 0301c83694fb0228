"""What heads learn in place of oriented boxes, there and back."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekd.training.data.polygon import regularise
from edgekd.training.models.coders import (
    BINS,
    angle_of_bins,
    bin_targets,
    bins_of,
    decode_deltas,
    encode_deltas,
    to_le90,
)
from edgekd.training.models.rotated import iou_rotated

ANCHOR = torch.tensor([[100.0, 100, 32, 32, 0]])
OBJECT = torch.tensor([[104.0, 98, 60, 20, math.radians(-80)]])
sides = st.floats(4, 100)
boxes_ = st.tuples(st.floats(0, 200), st.floats(0, 200), sides, sides, st.floats(-1.57, 1.57))


def rows(boxes: Tensor) -> Tensor:
    """Return `(N, 5)` as the `(1, 5, N)` that decoding works on."""
    return boxes.t().unsqueeze(0)


def le90(boxes: Tensor) -> Tensor:
    return to_le90(rows(boxes))[0].t()


def test_golden_deltas_and_bin() -> None:
    deltas = encode_deltas(OBJECT, ANCHOR)
    expected = [0.125, -0.0625, -0.4700036, 0.6286087, math.radians(10)]
    assert deltas[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert bins_of(deltas[:, 4]).tolist() == [18]
    logits = torch.full((1, BINS, 1), -4.0)
    logits[0, 18] = 1.0
    assert math.degrees(angle_of_bins(logits).item()) == pytest.approx(10.5, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(boxes_, boxes_), min_size=1, max_size=5))
def test_deltas_come_back_as_the_same_rectangle_from_any_anchor(pairs: list[tuple[tuple[float, ...], ...]]) -> None:
    boxes, anchors = (torch.tensor([pair[i] for pair in pairs]) for i in range(2))
    deltas = encode_deltas(boxes, anchors)
    assert bool((deltas[:, 4].abs() <= math.pi / 4 + 1e-6).all())
    back = to_le90(decode_deltas(rows(deltas), anchors))[0].t()
    assert bool((iou_rotated(back, boxes) > 0.999).all())
    assert bool((back[:, 2] >= back[:, 3]).all())
    assert bool(((back[:, 4] >= -math.pi / 2 - 1e-7) & (back[:, 4] < math.pi / 2)).all())


def test_deltas_of_turned_anchors_are_in_the_anchors_frame() -> None:
    anchor = torch.tensor([[10.0, 20, 8, 4, math.pi / 2]])  # its w-edge points down
    deltas = encode_deltas(torch.tensor([[10.0, 24, 8, 4, math.pi / 2]]), anchor)
    assert deltas[0].tolist() == pytest.approx([0.5, 0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("angle", [math.pi / 4, -math.pi / 4, 3 * math.pi / 4])
def test_diagonal_boxes_end_in_a_bin_on_their_side(angle: float) -> None:
    box = torch.tensor([[100.0, 100, 60, 20, angle]])
    deltas = encode_deltas(box, ANCHOR)
    logits = torch.nn.functional.one_hot(bins_of(deltas[:, 4]), BINS).float().unsqueeze(-1)
    deltas[:, 4] = angle_of_bins(logits)[0, 0]
    assert iou_rotated(decode_deltas(rows(deltas), ANCHOR)[0].t(), box).item() > 0.9


@settings(max_examples=80, deadline=None)
@given(st.lists(boxes_, min_size=1, max_size=4), st.sampled_from([0.0, math.pi / 2, -math.pi / 2, -math.pi]))
def test_le90_is_what_the_readers_make_of_it(boxes: list[tuple[float, ...]], turn: float) -> None:
    given_ = torch.tensor(boxes)
    given_[:, 4] = (given_[:, 4] + turn).clamp(-1.5 * math.pi, math.pi - 1e-6)
    found, expected = le90(given_), torch.from_numpy(regularise(given_.numpy())).float()
    torch.testing.assert_close(found[:, :4], expected[:, :4])
    apart = (found[:, 4] - expected[:, 4]).abs()
    assert bool((torch.minimum(apart, math.pi - apart) < 1e-5).all())
    assert bool((found[:, 4] < math.pi / 2).all())


def test_le90_at_its_borders_is_exact_in_float32() -> None:
    half, wide = math.pi / 2, 40.0
    below = torch.nextafter(torch.tensor(half), torch.tensor(0.0)).item()
    more = torch.nextafter(torch.tensor(wide), torch.tensor(50.0)).item()
    given_ = torch.tensor(
        [[0, 0, wide, 9, half], [0, 0, wide, 9, below], [0, 0, wide, 9, -half], [0, 0, wide, wide, 0.1],
         [0, 0, wide, more, 0.1], [0, 0, 9, wide, 0.0]]
    )  # fmt: skip
    found = le90(given_)
    lower = torch.tensor(-half).item()
    assert found[:, 4].tolist() == pytest.approx([lower, below, lower, 0.1, 0.1 + half - math.pi, lower], abs=2e-7)
    assert found[1, 4].item() == below
    assert found[0, 4].item() == lower
    assert found[:, 2:4].tolist() == [[wide, 9]] * 3 + [[wide, wide], [more, wide], [wide, 9]]


def test_le90_of_a_square_has_a_bounded_gradient() -> None:
    boxes = torch.tensor([[5.0, 5, 8, 8, 0.2], [5, 5, 8, 8, math.pi / 2]], requires_grad=True)
    le90(boxes).sum().backward()
    assert boxes.grad is not None
    assert float(boxes.grad.abs().max()) <= 1


def test_bins_cover_a_quarter_turn_in_steps_of_three_degrees() -> None:
    degrees = torch.tensor([-45.0, -42.01, -41.99, -0.01, 0.01, 44.99, 45.0])
    assert bins_of(degrees.deg2rad()).tolist() == [0, 0, 1, 14, 15, 29, 29]
    each = torch.eye(BINS).unsqueeze(-1)
    found = angle_of_bins(each).flatten().rad2deg()
    torch.testing.assert_close(found, torch.arange(BINS) * 3 - 43.5, atol=1e-4, rtol=0)


def test_strongest_bin_is_found_whatever_the_others_say() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, BINS, 50, generator=generator) * 5
    expected = (logits.argmax(dim=1, keepdim=True) * 3 - 43.5).deg2rad()
    torch.testing.assert_close(angle_of_bins(logits), expected, atol=1e-5, rtol=0)


def test_targets_without_any_positive_are_background_everywhere() -> None:
    """The authors encode only where there is a positive; else all their targets read "bin 0"."""
    match = torch.tensor([[-1, -2, -1], [-1, 0, -1]])
    where = (match >= 0).nonzero(as_tuple=True)
    target = bin_targets(match, where, torch.tensor([math.radians(10)]))
    assert float(target[0].abs().max()) == 0
    assert target[1].sum().item() == 1
    assert target[1, 18, 1].item() == 1
    nobody = torch.full((2, 3), -1)
    assert not bin_targets(nobody, (nobody >= 0).nonzero(as_tuple=True), torch.zeros(0)).any()  # type: ignore[arg-type]
