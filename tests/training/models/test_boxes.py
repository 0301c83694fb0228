"""Overlaps against the NumPy reference, and the padding of ground truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd import geometry
from edgekd.errors import UsageError
from edgekd.training.models.boxes import giou, pad_truth, pairwise_iou


def boxes(seed: int, count: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-20, 80, (count, 2))
    return torch.from_numpy(np.concatenate([corner, corner + rng.uniform(0.1, 60, (count, 2))], axis=1)).float()


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_pairwise_iou_when_boxes_are_random_then_it_is_the_references(seed: int, first: int, second: int) -> None:
    a, b = boxes(seed, first), boxes(seed + 1, second)
    np.testing.assert_allclose(pairwise_iou(a, b).numpy(), geometry.iou(a.numpy(), b.numpy()), atol=1e-5)


def test_pairwise_iou_when_batched_then_images_do_not_mix() -> None:
    a, b = torch.stack([boxes(0, 3), boxes(1, 3)]), torch.stack([boxes(2, 5), boxes(3, 5)])
    batched = pairwise_iou(a, b)
    assert batched.shape == (2, 3, 5)
    torch.testing.assert_close(batched[1], pairwise_iou(a[1], b[1]))


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_giou_when_boxes_are_random_then_it_is_bounded_symmetric_and_below_iou(seed: int) -> None:
    a, b = boxes(seed, 8), boxes(seed + 7, 8)
    iou, value = giou(a, b)
    torch.testing.assert_close(iou, pairwise_iou(a, b).diagonal())
    assert bool((value <= iou + 1e-6).all())
    assert bool((value > -1).all())
    torch.testing.assert_close(value, giou(b, a)[1])


def test_giou_when_boxes_touch_not_then_the_golden_value_comes_out() -> None:
    value = giou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 0, 3, 1]]))[1]
    assert value.item() == pytest.approx(-1 / 3)  # hull 3, union 2


def test_giou_when_boxes_are_points_then_value_and_gradient_are_finite() -> None:
    a = torch.zeros(2, 4, requires_grad=True)
    value = giou(a, torch.zeros(2, 4))[1]
    value.sum().backward()
    assert bool(value.isfinite().all())
    assert a.grad is not None
    assert bool(a.grad.isfinite().all())


def test_pad_truth_when_counts_differ_then_only_real_boxes_with_area_are_valid() -> None:
    some = torch.tensor([[0.0, 0, 4, 4], [3, 3, 3, 9], [5, 5, 2, 9]])
    truth = pad_truth([some, torch.zeros(0, 4)], [torch.tensor([1, 0, 2]), torch.zeros(0)], torch.device("cpu"))
    assert truth.boxes.shape == (2, 3, 4)
    assert truth.valid.tolist() == [[True, False, False], [False, False, False]]
    assert truth.labels[0].tolist() == [1, 0, 2]


def test_pad_truth_when_boxes_are_oriented_then_the_error_names_the_shape() -> None:
    with pytest.raises(UsageError, match=r"\(n, 4\), got \(2, 5\)"):
        pad_truth([torch.zeros(2, 5)], [torch.zeros(2)], torch.device("cpu"))
    with pytest.raises(UsageError, match=r"oriented xywhr boxes of shape \(n, 5\), got \(2, 4\)"):
        pad_truth([torch.zeros(2, 4)], [torch.zeros(2)], torch.device("cpu"), 5)


def test_pad_truth_of_oriented_boxes_tells_by_their_sides_which_are_valid() -> None:
    rows = torch.tensor([[50.0, 50, 9, 4, 0.1], [50, 50, 4, 9, 0.1], [1, 1, 0, 4, 0], [1, 1, 4, -1, 0]])
    truth = pad_truth([rows, torch.zeros(0, 5)], [torch.tensor([1, 0, 2, 1]), torch.zeros(0)], torch.device("cpu"), 5)
    assert truth.boxes.shape == (2, 4, 5)
    assert truth.valid.tolist() == [[True, True, False, False], [False] * 4]
